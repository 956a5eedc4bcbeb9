"""The first hour on a card: what only a real one can show, in one command and one report that can be pasted into an issue.

    python launch.py test --help                 (once: makes the environment, with what the tests need)
    .venv/bin/python -m benchmarks.gpu_report [--model ID] [--data FILE] [--folder gpu-report] [--with-peers] [--rounds 5]

In this order: the doctor; a first run in an empty workspace; what NVML tells of each card, and, of several, a run on each; on Windows, the console closed over a training; less free memory than a
plan needs; every optimizer with LoRA, in 16 and in 8 bit, and QLoRA, paused and gone on with; a model of yours (--model: one of 1B to 8B, Gemma on a card
before RTX 30); chat; exports; the tests marked gpu; the engine's benchmarks. Each part is kept in the folder as it ends, so that
what broke off goes on where it was; a failed part is tried again. Delete the folder to begin anew; another card or version does too.

The report, printed at the end too, names no person and no path. What it cannot ask (a lid that is closed, a folder that Defender holds)
stands at its end, from docs/gaming-pc.md. Exit status: 0 all is well, 1 a part failed, 2 there is no card: nothing here stands for a
card that was not there.
"""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import child, machine
from core import __version__, files
from core.presets import PRESETS, PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import devices, gpu
from core.system.processes import worker_environment
from core.workspace.folder import Workspace

OPTIMIZERS = ("adamw_torch", "adamw_8bit", "paged_adamw_8bit")
BASES = {
    "lora": ("adapter.method=lora",),
    "lora in 8 bit": ("adapter.method=lora", "adapter.load_in_8bit=true"),
    "qlora": ("adapter.method=qlora",),
}
STEPS, PAUSE_AT = 300, 20  # of each run that is paused; some 20 steps a second
SHORT_OF = 0.95  # of what the first run needed is left free
WELL, FAILED, LEFT_OUT = "well", "failed", "left out"
BY_HAND = "**Seen only by who sits before it:**"
MOST_LINES = 60  # of a part that failed


class NotWell(Exception):
    """A part found something wrong; what, in its words."""


class LeftOut(Exception):
    """A part has nothing to do here; why."""


@dataclass
class Hour:
    """folder: state.json, report.md, the workspace. recipe: of the short runs. model: a person's own, "" for none."""

    folder: Path
    data: Path = PRESETS / "samples" / "pirate_answers.jsonl"
    recipe: Path = PRESETS / "recipes" / "quickstart.yaml"
    model: str = ""
    rounds: int = 5
    with_peers: bool = False
    kept: dict[str, Any] = field(default_factory=dict)  # what a part hands to later ones

    @property
    def space(self) -> Workspace:
        return Workspace.open(self.folder / "workspace")

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "core.commands", *arguments, "--workspace", str(self.folder / "workspace")]

    def command(self, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """What a command with --json says; a command that fails says it all the same. Raises NotWell where it says nothing."""
        done = subprocess.run(
            self.line(*arguments, "--json"), cwd=PROJECT, env=worker_environment() | dict(environment), stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise NotWell(f"{arguments[0]} ended with {done.returncode}: {last_of(done.stderr)}") from None
        return found

    def module(self, *command: str) -> list[str]:
        """The output of `python -m command`. Raises NotWell with its end where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            encoding="utf-8", errors="replace", env=child.environment(),
        )  # fmt: skip
        if done.returncode:
            raise NotWell(f"exit status {done.returncode}: {last_of(done.stdout)}")
        return done.stdout.strip().splitlines()

    def train(self, name: str, *settings: str, environment: Mapping[str, str] = MappingProxyType({})) -> RunFolder:
        """A run from its start to its end, or to where it failed."""
        ended = self.command("train", str(self.recipe), *chosen(name, settings), environment=environment)
        return Runs(self.space).get(str(ended["run"]))


def chosen(name: str, settings: tuple[str, ...]) -> Iterator[str]:
    for setting in (f"name={name}", *settings):
        yield from ("--set", setting)


def last_of(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-MOST_LINES:])


def losses(run: RunFolder) -> list[float]:
    """By step, each once: what an attempt that broke off did again counts as it ended."""
    found = {line["step"]: line["loss"] for line in run.all_metrics() if line.get("kind") == "train"}
    return [found[step] for step in sorted(found)]


def learned(run: RunFolder) -> str:
    """What a run came to. Raises NotWell unless it ended well, on the card, with half of its loss gone."""
    status, facts, seen = run.status(), run.facts(), losses(run)
    if status.state != State.COMPLETED:
        raise NotWell(f"{status.state.value}: {status.message}\n{run.log_tail(20)}")
    rates = sorted(line["tokens_per_second"] for line in run.all_metrics() if line.get("kind") == "train")
    peak = f"{facts.peak_memory_bytes / 2**30:.2f} GiB at most" if facts.peak_memory_bytes else "memory not measured"
    said = f"loss {seen[0]:.3f} -> {seen[-1]:.3f}, {rates[len(rates) // 2]:,.0f} tokens/s, {peak}, {facts.dtype} on {facts.device}{foretold(facts)}"
    if facts.device in (None, "cpu"):
        raise NotWell(f"it trained on the processor, not on the card: {said}")
    if not seen[-1] < seen[0] / 2:
        raise NotWell(f"it did not learn: {said}")
    return said


def foretold(facts: RunFacts) -> str:
    """Memory and time, as they were said before and as they came. What was measured and is not torch's is CUDA's own."""
    memory, time_ = facts.memory, facts.time
    gib = (
        {"foretold": memory.predicted_gib, "measured": memory.measured_gib, "of it torch's": memory.reserved_gib} if memory else {}
    )
    said = "".join(f", {name} {'unknown' if value is None else f'{value:.2f} GiB'}" for name, value in gib.items())
    if time_ and time_.said_seconds and time_.took_seconds:
        said += f"; {time_.said_seconds:.0f} s foretold after {time_.after_steps} steps, {time_.took_seconds:.0f} s taken"
    return said


# ---- the parts, each with its lines for the report ------------------------------------------------------------------------


def doctor(hour: Hour) -> list[str]:
    found = hour.command("doctor")
    lines = [f"{'ok' if each['ok'] else '!!'} {each['name']}: {each['found']['sentence']}" for each in found["findings"]]
    lines.append(f"the program's path has {len(str(PROJECT))} characters")
    if not found["ok"]:
        raise NotWell("\n".join(lines))
    return lines


def first_run(hour: Hour) -> list[str]:
    """Its starter model is still to be made."""
    started = time.monotonic()
    run = hour.train("First run")
    hour.kept["run"] = run.id
    return [learned(run), f"{time.monotonic() - started:.0f} s with the starter model"]


def cards(hour: Hour) -> list[str]:
    """What NVML tells, which WDDM does only in part; of several cards, that each one trains when it alone is shown."""
    nvidia = devices.here()
    lines: list[str] = []
    wrong: list[str] = []
    for card in nvidia.cards:
        unknown = sorted(name for name, value in card if value is None and name != "left_out")
        held = [holder.used_bytes for holder in card.holders or ()]
        told = f"processes {len(held)}, {sum(size is not None for size in held)} of them with their memory"
        lines.append(
            f"{card.name}, {card.capability}, {card.left_out or 'used'}; {told}; not told: {', '.join(unknown) or 'nothing'}"
        )
        if len(nvidia.cards) > 1 and card.usable and card.uuid:
            run = hour.train(f"On card {card.index} alone", "train.max_steps=40", environment={devices.VISIBLE: card.uuid})
            (lines if run.facts().device_uuid == card.uuid else wrong).append(
                f"card {card.index} alone: it trained on {run.facts().device_name}"
            )
    if wrong:
        raise NotWell("\n".join([*lines, *wrong]))
    return lines


def closed_console(hour: Hour) -> list[str]:
    if platform.system() != "Windows":
        raise LeftOut("only Windows ends a program with its console")
    return hour.module("pytest", "-q", "-p", "no:cacheprovider", "tests/windows/test_journeys.py", "-k", "console")[-3:]


def too_little_memory(hour: Hour) -> list[str]:
    """What only the driver knows: whether a card that is nearly full refuses, or begins to use the PC's RAM."""
    needed = Runs(hour.space).get(needs_run(hour)).facts().peak_memory_bytes
    if not needed:
        raise LeftOut("the first run measured no memory")
    with ballast(int(needed * SHORT_OF)) as held:
        run = hour.train("Too little memory", "train.max_steps=20", "train.sample_seconds=0")
    status = run.status()
    helped = [event["kind"] for event in run.events() if event.get("kind") == "guard"]
    said = f"{status.state.value}, help {len(helped)} times, {held}; {status.message}"
    if status.state == State.COMPLETED or (status.message and status.message.key.startswith("probe.")):
        return [said]
    raise NotWell(f"{said}\n{run.log_tail(20)}")


@contextmanager
def ballast(leaves_bytes: int) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.ballast", str(leaves_bytes)],
        cwd=PROJECT, env=child.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said = process.stdout.readline().split() if process.stdout else []
        if said[:1] != ["held"]:
            raise NotWell(f"the card's memory could not be taken: exit status {process.wait()}")
        yield f"{int(said[1]) / 2**30:.1f} GiB of the card held by another program"
    finally:
        process.kill()
        process.communicate()


def optimizers(hour: Hour) -> list[str]:
    """Each undisturbed, then paused and gone on with: the numbers of both."""
    return [paused_and_resumed(hour, base, optim) for base in BASES for optim in OPTIMIZERS]


def paused_and_resumed(hour: Hour, base: str, optim: str, steps: int = STEPS, pause_at: int = PAUSE_AT) -> str:
    name = f"{base} {optim}"
    settings = (*BASES[base], f"train.optim={optim}", f"train.max_steps={steps}", "train.sample_seconds=0")
    whole = hour.train(name, *settings)
    said = learned(whole)
    run = pause(hour, f"{name} paused", settings, pause_at)
    at = run.status().step
    hour.command("resume", run.id)
    learned(run)
    ours, theirs = losses(run), losses(whole)
    if len(ours) != len(theirs):
        raise NotWell(f"{name}: {len(ours)} steps after a pause at {at}, {len(theirs)} without")
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return f"{name}: {said}; paused at step {at}, losses at most {apart:.2g} apart"


def pause(hour: Hour, name: str, settings: tuple[str, ...], at_step: int) -> RunFolder:
    """A run that was begun, and has been paused once it was so far."""
    runs = Runs(hour.space)
    before = {run.id for run in runs.list()}
    command = hour.line("train", str(hour.recipe), *chosen(name, settings), "--json")
    begun = subprocess.Popen(command, cwd=PROJECT, env=worker_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    run = None
    while begun.poll() is None:
        run = run or next((each for each in runs.list() if each.id not in before), None)
        if run and run.status().step >= at_step and not run.asked():
            runs.pause(run)
        time.sleep(0.02)
    if run is None or run.status().state != State.PAUSED:
        raise NotWell(f"{name} did not pause: {run.status().state.value if run else 'it never began'}")
    return run


def own_model(hour: Hour) -> list[str]:
    """Also the place of a 16-bit type that overflows: Gemma on a card before Ampere."""
    if not hour.model:
        raise LeftOut("name one: --model ID (of 1B to 8B; on a card before RTX 30, google/gemma-3-1b-it)")
    settings = (f"model.id={hour.model}", "adapter.method=qlora", "train.max_steps=40")
    run = hour.train("A model of one's own", *settings)
    return [learned(run), f"computes so because: {run.facts().dtype_reason}", *exported(hour, run.id)]


def chat(hour: Hour) -> list[str]:
    answered = hour.command("chat", needs_run(hour), "--prompt", "What is a horse?", "--base", "--max-new-tokens", "48")
    if not all(str(answered.get(column) or "").strip() for column in ("base", "tuned")):
        raise NotWell(f"an answer is missing: {sorted(answered)}")
    return [f"{column}: {answered[column]!r}" for column in ("base", "tuned")]


def exports(hour: Hour) -> list[str]:
    return exported(hour, needs_run(hour))


def exported(hour: Hour, run: str) -> list[str]:
    lines, wrong = [], []
    for kind in ("adapter", "merged", "gguf"):
        started = time.monotonic()
        found = hour.command("export", run, "--to", kind)
        if found.get("passed"):
            lines.append(f"{kind}: proven, {sum(found['files'].values()) / 1e6:,.0f} MB, {time.monotonic() - started:.0f} s")
        else:
            wrong.append(f"{kind}: {(found.get('message') or {}).get('sentence')}")
    if wrong:
        raise NotWell("\n".join([*lines, *wrong]))
    return lines


def needs_run(hour: Hour) -> str:
    if "run" not in hour.kept:
        raise LeftOut("there is no first run to do it with")
    return str(hour.kept["run"])


def marked_tests(hour: Hour) -> list[str]:
    return hour.module("pytest", "-p", "no:cacheprovider", "-m", "gpu", "-q", "-s", "-rA", "tests/model/test_on_a_card.py")


def benchmark(*command: str, rounds: bool = True, peers: bool = False) -> Callable[[Hour], list[str]]:
    def part(hour: Hour) -> list[str]:
        more = ["--rounds", str(hour.rounds)] if rounds else []
        return hour.module(
            *command, "--data", str(hour.data), *more, *(["--only", "garage"] if peers and not hour.with_peers else [])
        )

    return part


Part = Callable[[Hour], list[str]]
PARTS: dict[str, Part] = {
    "The doctor": doctor,
    "A first run in an empty workspace": first_run,
    "The cards": cards,
    "The console closed over a training": closed_console,
    "Less free memory than the plan needs": too_little_memory,
    "Every optimizer, paused and gone on with": optimizers,
    "A model of one's own": own_model,
    "Chat": chat,
    "Exports": exports,
    "Tests marked gpu": marked_tests,
    "Our step against its floor": benchmark("benchmarks.step_limit"),
    "Where our step spends its time": benchmark("benchmarks.step_limit", "--profile", rounds=False),
    "Memory by length": benchmark("benchmarks.memory_vs_length"),
    "Throughput": benchmark("benchmarks.train_throughput", peers=True),
}


# ---- one after the other, kept as they end ------------------------------------------------------------------------------


def go_through(hour: Hour, parts: dict[str, Part], of: str) -> int:
    """The exit status. of: what the results are of; those of something else are not gone on with."""
    hour.folder.mkdir(parents=True, exist_ok=True)
    state = files.read_object(hour.folder / "state.json")
    done: dict[str, Any] = state.get("parts", {}) if state.get("of") == of else {}
    hour.kept = state.get("kept", {}) if done else {}
    for title, part in parts.items():
        if done.get(title, {}).get("how") == WELL:
            print(f"{title}: {WELL}, before", flush=True)
            continue
        print(f"{title} ...", flush=True)
        done[title] = carried_out(hour, part)
        files.replace_json(hour.folder / "state.json", {"of": of, "parts": done, "kept": hour.kept})
        files.replace(hour.folder / "report.md", report(of, {each: done[each] for each in parts if each in done}))
        print(f"{title}: {done[title]['how']}, {done[title]['seconds']:.0f} s", flush=True)
    failed = [title for title in parts if done[title]["how"] == FAILED]
    print((hour.folder / "report.md").read_text("utf-8"))
    print(f"{hour.folder / 'report.md'}: " + (f"failed: {', '.join(failed)}" if failed else "all is well"))
    return 1 if failed else 0


def carried_out(hour: Hour, part: Part) -> dict[str, Any]:
    started = time.monotonic()
    try:
        how, said = WELL, part(hour)
    except LeftOut as reason:
        how, said = LEFT_OUT, [str(reason)]
    except NotWell as reason:
        how, said = FAILED, str(reason).splitlines()
    except Exception:  # noqa: BLE001 - whatever it was, it is the finding, and the parts after it are worth having
        how, said = FAILED, traceback.format_exc().splitlines()
    return {"how": how, "seconds": time.monotonic() - started, "said": [anonymous(line, hour.folder) for line in said]}


def report(of: str, done: dict[str, Any]) -> str:
    parts = [
        f"## {title}: {each['how']}\n\n{each['seconds']:.0f} s\n\n```\n" + "\n".join(each["said"]) + "\n```\n"
        for title, each in done.items()
    ]
    return "\n".join([f"# The first hour on a card\n\n{of}\n", *parts, f"## Not asked here\n\n{by_hand()}\n"])


def by_hand() -> str:
    """The list of docs/gaming-pc.md, so that a report says what it does not show."""
    said = (PROJECT / "docs" / "gaming-pc.md").read_text("utf-8")
    return said.split(BY_HAND, 1)[1].split("\n#", 1)[0].strip()


def anonymous(line: str, folder: Path) -> str:
    """line without the folders of this PC, its name and the person's."""
    places = {
        "<folder>": folder, "<program>": PROJECT, "<environment>": Path(sys.prefix), "<home>": Path.home(), "<temporary>": Path(tempfile.gettempdir()),
    }  # fmt: skip
    for name, place in sorted(places.items(), key=lambda each: -len(str(each[1]))):
        for path in {str(place), str(place.absolute()), place.as_posix(), str(place).replace("\\", "\\\\")}:
            if len(path) > 1:
                line = re.sub(re.escape(path), name, line, flags=re.IGNORECASE)
    for person in {user(), platform.node()} - {""}:
        line = re.sub(rf"\b{re.escape(person)}\b", "<name>", line, flags=re.IGNORECASE)
    return line


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no entry of this user
        return os.environ.get("USERNAME", "")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("gpu-report"), help="where the report is written, and what belongs to it"
    )
    parser.add_argument(
        "--model", default="", help="a model that is trained with QLoRA and exported too, such as Qwen/Qwen2.5-3B-Instruct"
    )
    parser.add_argument("--data", type=Path, default=Hour.data, help="a data file for the benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--with-peers", action="store_true", help="also TRL and LLaMA-Factory, installed from PyPI (gigabytes)")
    given = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a model's answers and a folder's name may not be of the code page
    nvidia = gpu.probe()
    if not nvidia.cards:
        print(
            "NVML names no graphics card here, so there is nothing to report. `python launch.py doctor` says why.", file=sys.stderr
        )
        return 2
    hour = Hour(given.folder.absolute(), given.data.absolute(), model=given.model, rounds=given.rounds, with_peers=given.with_peers)
    versions = machine.line("torch", "transformers", "peft", "bitsandbytes")
    of = f"LoRA Garage {__version__}, {platform.system()} {platform.release()}, driver {nvidia.driver}: {versions}"
    return go_through(hour, PARTS, of)


if __name__ == "__main__":
    sys.exit(main())
