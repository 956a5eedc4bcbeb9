"""Start LoRA Garage: create or repair its environment in .venv, then start the app or run a command.

    python launch.py [--host H] [--port P] [--workspace DIR] [--no-browser] [--auth USER:PASS]
                                        --host 0.0.0.0: also for other devices on the network, with the printed key or
                                        the password of --auth
    python launch.py COMMAND ...        train, further, queue, runs, pause, resume, chat, compare, evaluate,
                                        benchmark, sum, export, serve, mcp, recipe, pack, plan, estimate, inspect,
                                        data, make, models, tools, workspace, doctor; COMMAND --help lists its options
    python launch.py --version
    python launch.py --repair [--cpu]   check every package, choose torch again, then start; --cpu: the CPU build of
                                        torch, even if there is a GPU
    python launch.py update [--check] [--undo] [--from URL] [--at-start on|off]
                                        install a newer version if there is one; runs, data and settings stay; --undo
                                        returns to the previous version
    python launch.py shortcut [--remove]    an icon on the desktop
    python launch.py uninstall [--workspace] [--models] [--yes]
                                        list what is removed, ask, and remove the environment and what the start scripts
                                        downloaded; runs, data and models stay (--workspace: also remove runs and data;
                                        --models: also the Hub cache)
    python launch.py check              for developers: lint, format, types, the site of the docs, import rules,
                                        catalogues, in seconds
    python launch.py test [pytest args]             the gate: what every change runs
    python launch.py test --full                    also the long forms, hours on a small PC; goes on where it was ended
    python launch.py test --changed [COMMIT]        those that a change can reach, nearest first, in about a minute
    python launch.py test --windows [FILE ...]      on a Windows Python; on other systems under Wine (tests/windows)
    python launch.py test --card [FILE ...]         on the CUDA build of torch and a GPU that is none
                                                    (docs/null-card.md)

Standard library only; everything else runs in .venv. A start with a complete .venv reads two small files and hands
over, without pip, uv or a network. `.venv/.lora-garage.json` is written last: an interrupted install has none, and the
next start continues it. The output of pip and uv is in `.venv/install.log`.

LORA_GARAGE_TORCH_INDEX overrides the choice of torch: a wheel index, "pypi", or "cpu". LORA_GARAGE_INSTALLER=pip:
without uv.
Exit status: that of the command; 1 if the environment cannot be created; 2 for an unknown command.
"""

import os
import sys
from contextlib import nullcontext, redirect_stdout

from launcher import INSTALLED, ROOT
from launcher.developers import run_checks, run_tests
from launcher.doctor import doctor
from launcher.environment import Environment
from launcher.install import ensure_environment
from launcher.running import hand_over
from launcher.sentences import as_typed, say
from launcher.shortcut import shortcut
from launcher.uninstall import uninstall
from launcher.update import look_at_start, mend, update

COMMANDS = (
    "doctor",
    "plan",
    "estimate",
    "inspect",
    "data",
    "make",
    "models",
    "train",
    "queue",
    "runs",
    "pause",
    "resume",
    "further",
    "chat",
    "compare",
    "evaluate",
    "benchmark",
    "merge",
    "export",
    "serve",
    "mcp",
    "recipe",
    "pack",
    "tools",
    "workspace",
)

FOR_DEVELOPERS = ("check", "test")

OWN_COMMANDS = ("update", "shortcut", "uninstall")  # done by the launcher itself


def parse(arguments):
    """Return (kind, rest).

    kind: "app", "help", "version", "unknown", or one of OWN_COMMANDS, FOR_DEVELOPERS or COMMANDS; main removes
    --repair.
    """
    asks_of_tests = arguments[:1] in (["check"], ["test"]) and "--help" in arguments
    if arguments[:1] in (["-h"], ["--help"]) or asks_of_tests:
        return "help", []
    if arguments[:1] == ["--version"]:
        return "version", []
    if not arguments or arguments[0].startswith("-"):
        return "app", arguments
    if arguments[0] in (*FOR_DEVELOPERS, *COMMANDS, *OWN_COMMANDS):
        return arguments[0], arguments[1:]
    return "unknown", arguments


def main(arguments=None):
    """Run the launcher and return the exit status.

    arguments: None for those of the command line, as for the wheel's command `lora-garage`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] == ["--repair", "--cpu"]:
        os.environ["LORA_GARAGE_TORCH_INDEX"] = "cpu"
        arguments = ["--repair", *arguments[2:]]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # Into a file or a pipe: UTF-8, as the processes in .venv write, whatever the code page.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    if not INSTALLED and mend(ROOT):
        return 1
    repair = "--repair" in arguments[:1]
    kind, rest = parse(arguments[1:] if repair else arguments)
    environment = Environment(ROOT)
    if kind == "help":
        print(as_typed(__doc__))
        return 0
    if kind == "version":
        print("LoRA Garage " + environment.version())
        return 0
    if kind == "unknown":
        import difflib

        words = (*COMMANDS, *OWN_COMMANDS, *FOR_DEVELOPERS)
        near, known = difflib.get_close_matches(rest[0], words, 1), ", ".join(words)
        say("unknown_near" if near else "unknown", to=sys.stderr, found=rest[0], near="".join(near), known=known)
        return 2
    if kind in FOR_DEVELOPERS and not os.path.isdir(os.path.join(ROOT, "tests")):
        say("for_developers", to=sys.stderr)
        return 2
    if kind in OWN_COMMANDS:
        return (
            {"update": update, "uninstall": uninstall}[kind](environment, rest)
            if kind != "shortcut"
            else shortcut(rest)
        )
    if INSTALLED:
        if repair:
            say("not_ours_to_repair", to=sys.stderr, python=sys.executable)
            return 2
        environment.python = sys.executable
        return start(environment, kind, rest)
    if kind == "doctor" and not repair:
        return doctor(environment, rest)
    # A command's stdout is often JSON, so the launcher's own messages go to stderr.
    with redirect_stdout(sys.stderr) if kind in COMMANDS else nullcontext():
        ready = ensure_environment(environment, with_tests=kind in FOR_DEVELOPERS, repair=repair)
    if not ready:
        return 1
    if kind == "app":
        look_at_start(environment)
    for option, module in (("--windows", "tests.windows"), ("--card", "tests.card")):
        if kind == "test" and option in rest:
            os.chdir(ROOT)
            return hand_over(environment, ["-m", module, *(word for word in rest if word != option)])
    if kind == "test":
        return run_tests(environment, rest)
    if kind == "check":
        return run_checks(environment)
    return start(environment, kind, rest)


def start(environment, kind, rest):
    return hand_over(environment, ["-m", "webui", *rest] if kind == "app" else ["-m", "core.commands", kind, *rest])
