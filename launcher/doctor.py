"""The part of the doctor that works without .venv. It installs nothing."""

import json
import os
import sys

from launcher.environment import why_not_ready
from launcher.machine import has_nvidia_driver, machine_facts
from launcher.running import ask, hand_over
from launcher.sentences import Forgiving, say_text, sentences
from launcher.torch_build import choose_torch


def doctor(environment, arguments):
    """Run core's doctor if .venv can, with its exit status; else print what the standard library can see and return
    1."""
    why = why_not_ready(environment.marker(), environment.needs(), environment.base(), has_nvidia_driver())
    if why in (None, "new_card", "changed", "unfinished") and environment.base():
        if ask([environment.python, "-c", "import core.commands, core.system.checkup"]).out is not None:
            if why:
                os.environ["LORA_GARAGE_NOT_READY"] = why  # core's doctor cannot ask us: it does not import this file
            return hand_over(environment, ["-m", "core.commands", "doctor", *arguments])
        why = why or "broken"
    facts = machine_facts()
    choice = choose_torch(facts.system, facts.machine, facts.driver, facts.amd, facts.environ, facts.cards)
    fix = "fix_repair" if why in ("broken", "python_moved") else "fix_start"
    findings = [
        ("python", True, ("doctor_python", {"found": "%d.%d.%d" % sys.version_info[:3], "path": sys.executable}), None),
        ("environment", False, ("because_" + why, {"folder": environment.folder}), (fix, {})),
        ("torch", True, choice.reason, None),
        *((o.name, False, (o.key, o.values), (o.fix, o.values)) for o in facts.obstacles(environment.root)),
    ]
    if choice.left_out:
        findings.append(("gpu", True, ("card_left_out", {"cards": ", ".join(choice.left_out)}), None))
    if "--json" in arguments:
        shown = [{"name": n, "ok": ok, "message": as_json(f), "fix": as_json(x)} for n, ok, f, x in findings]
        print(json.dumps({"ok": False, "version": environment.version(), "findings": shown}, indent=1))
    else:
        print("LoRA Garage " + environment.version())
        for _, ok, sentence, fix in findings:
            print("%s %s" % ("ok " if ok else "!! ", say_text(sentence[0], **sentence[1])))
            if fix:
                print("    " + say_text(fix[0], **fix[1]))
    return 1


def as_json(sentence):
    """Return a key and its values as core.messages.Message is written, with the English sentence; None for None."""
    if sentence is None:
        return None
    key, values = sentence
    return {"key": "launch." + key, "params": values, "sentence": sentences("en")[key].format_map(Forgiving(values))}
