"""A person's first half hour with the program itself: train, pause, run out of memory, chat, export. No torch."""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import child
from benchmarks.gpu_report.hour import Hour, LeftOut, NotWell, chosen
from core.data.store import DatasetStore
from core.presets import PRESETS, PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import devices
from core.system.processes import worker_environment

STEPS, PAUSE_AT = 120, 20  # of a run that is paused; some 20 steps a second
SHORT_OF = 0.95  # of what the first run needed is left free
KINDS = ("adapter", "merged", "gguf")  # of exports
SUDDENLY_FREE = 64 << 20  # bytes, once another program takes the rest in the middle of a run


def losses(run: RunFolder) -> list[float]:
    """Return losses by step. A step that a later attempt repeated counts once, with its last loss."""
    found = {line["step"]: line["loss"] for line in run.all_metrics() if line.get("kind") == "train"}
    return [found[step] for step in sorted(found)]


def learned(run: RunFolder) -> str:
    """Return the result of a run. Raises NotWell unless it ended well, on the card, with its loss halved."""
    status, facts, seen = run.status(), run.facts(), losses(run)
    if status.state != State.COMPLETED:
        raise NotWell(f"{run.log_tail(20)}\n{status.state.value}: {status.message}")
    rates = sorted(line["tokens_per_second"] for line in run.all_metrics() if line.get("kind") == "train")
    peak = f"{facts.peak_memory_bytes / 2**30:.2f} GiB at most" if facts.peak_memory_bytes else "memory not measured"
    said = (
        f"loss {seen[0]:.3f} -> {seen[-1]:.3f}, {rates[len(rates) // 2]:,.0f} tokens/s, {peak}, {facts.dtype} on "
        f"{facts.device}{foretold(facts)}"
    )
    if facts.device in (None, "cpu"):
        raise NotWell(f"it trained on the processor, not on the card: {said}")
    if not seen[-1] < seen[0] / 2:
        raise NotWell(f"it did not learn: {said}")
    return said


def foretold(facts: RunFacts) -> str:
    """Compare predicted with actual memory and time. Measured bytes that are not torch's are CUDA's own."""
    memory, time_ = facts.memory, facts.time
    gib = (
        {"foretold": memory.predicted_gib, "measured": memory.measured_gib, "of it torch's": memory.reserved_gib}
        if memory
        else {}
    )
    said = "".join(f", {name} {'unknown' if value is None else f'{value:.2f} GiB'}" for name, value in gib.items())
    if time_ and time_.said_seconds and time_.took_seconds:
        said += (
            f"; {time_.said_seconds:.0f} s foretold after {time_.after_steps} steps, {time_.took_seconds:.0f} s taken"
        )
    return said


def doctor(hour: Hour) -> list[str]:
    found = hour.command("doctor")
    # what is wrong comes last, where the table shows it
    findings = sorted(found["findings"], key=lambda each: not each["ok"])
    lines = [f"the program's path has {len(str(PROJECT))} characters"]
    lines += [f"{'ok' if each['ok'] else '!!'} {each['name']}: {each['message']['sentence']}" for each in findings]
    if not found["ok"]:
        raise NotWell("\n".join(lines))
    return lines


def first_run(hour: Hour) -> list[str]:
    """A run in an empty workspace, whose starter model is still to be made."""
    started = time.monotonic()
    run = hour.train("First run")
    hour.keep("run", run.id)
    return [learned(run), f"{time.monotonic() - started:.0f} s with the starter model"]


def cards(hour: Hour) -> list[str]:
    """Report NVML's values, of which WDDM has only some; of several cards, check that each one trains when it alone is
    visible."""
    nvidia = devices.read_cards()
    lines: list[str] = []
    wrong: list[str] = []
    for card in nvidia.cards:
        unknown = sorted(name for name, value in card if value is None and name != "left_out")
        held = [holder.used_bytes for holder in card.holders or ()]
        told = f"processes {len(held)}, {sum(size is not None for size in held)} of them with their memory"
        lines.append(
            f"{card.name}, {card.capability}, {card.left_out or 'used'}; {told}; not told: "
            f"{', '.join(unknown) or 'nothing'}"
        )
        if len(nvidia.cards) > 1 and card.usable and card.uuid:
            run = hour.train(
                f"On card {card.index} alone", "train.max_steps=40", environment={devices.VISIBLE: card.uuid}
            )
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


def too_little_memory(hour: Hour) -> str:
    """Check whether a card that is nearly full raises an error, or begins to use the PC's RAM: only the driver decides
    that."""
    needed = Runs(hour.space).get(needs_run(hour)).facts().peak_memory_bytes
    if not needed:
        raise LeftOut("the first run measured no memory")
    with ballast(int(needed * SHORT_OF)) as held:
        run = hour.train("Too little memory", "train.max_steps=20", "train.sample_seconds=0")
    return completed_or_refused(run, held, "probe.")


def completed_or_refused(run: RunFolder, held: str, refusal: str) -> str:
    """Report a run's end. refusal: the beginning of the message's key if there is too little memory."""
    status, helped = run.status(), sum(event.get("kind") == "guard" for event in run.events())
    said = f"{held}: {status.state.value} at step {status.step}, help {helped} times; {status.message}"
    if status.state == State.COMPLETED or (status.message and status.message.key.startswith(refusal)):
        return said
    raise NotWell(f"{run.log_tail(20)}\n{said}")


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


def memory_that_goes(hour: Hour, steps: int = 800) -> str:
    """Another program takes the card's memory in the middle of a run, which then saves memory or reports that there is
    none."""
    with begun(hour, "Memory that goes", (f"train.max_steps={steps}", "train.sample_seconds=0")) as (process, run):
        wait_for_step(run, process, 1)
        with ballast(SUDDENLY_FREE) as held:
            at = run.status().step
            if process.poll() is not None:
                raise LeftOut(f"the run was over before another program had {held}")
            process.wait()
    return completed_or_refused(run, f"{held} from step {at} on", "run.out_of_memory")


def paused_and_resumed(hour: Hour, steps: int = STEPS, pause_at: int = PAUSE_AT) -> str:
    """QLoRA with 8-bit AdamW, undisturbed, then paused and resumed: the numbers of both."""
    settings = ("adapter.method=qlora", "train.optim=adamw_8bit", f"train.max_steps={steps}", "train.sample_seconds=0")
    whole = hour.train("Undisturbed", *settings)
    said = learned(whole)
    with begun(hour, "Paused", settings) as (process, run):
        wait_for_step(run, process, pause_at)
        Runs(hour.space).pause(run)
        process.wait()
    if run.status().state != State.PAUSED:
        raise NotWell(f"it did not pause: {run.status().state.value}")
    at = run.status().step
    hour.command("resume", run.id)
    learned(run)
    ours, theirs = losses(run), losses(whole)
    if len(ours) != len(theirs):
        raise NotWell(f"{len(ours)} steps after a pause at {at}, {len(theirs)} without")
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    return f"{said}; paused at step {at}, losses at most {apart:.2g} apart"


@contextmanager
def begun(hour: Hour, name: str, settings: tuple[str, ...]) -> Iterator[tuple[subprocess.Popen[bytes], RunFolder]]:
    """Context manager: a run that trains meanwhile, and the command that follows it, which ends with it."""
    runs = Runs(hour.space)
    before = {run.id for run in runs.list()}
    command = hour.line("train", str(hour.recipe), *chosen(name, settings), "--json")
    process = subprocess.Popen(
        command, cwd=PROJECT, env=worker_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        while not (new := [run for run in runs.list() if run.id not in before]):
            if process.poll() is not None:
                raise NotWell(f"{name} never began: exit status {process.returncode}")
            time.sleep(0.02)
        yield process, new[0]
    finally:
        process.wait()


def wait_for_step(run: RunFolder, process: subprocess.Popen[bytes], step: int) -> None:
    while run.status().step < step:
        if process.poll() is not None:
            raise NotWell(f"it ended before step {step}: {run.status().state.value}, {run.status().message}")
        time.sleep(0.02)


def pairs(hour: Hour) -> str:
    """DPO on the starter, with the reference beside it."""
    file = PROJECT / "benchmarks" / "pairs" / "repair_cafe.jsonl"
    source = DatasetStore(hour.space.datasets, PRESETS).import_file(file).id
    run = hour.train(
        "Pairs", f"data.source={source}", "train.objective=dpo", "train.max_steps=40", "train.sample_seconds=0"
    )
    status, seen = run.status(), losses(run)
    if status.state != State.COMPLETED or not seen[-1] < seen[0]:
        raise NotWell(f"{run.log_tail(20)}\n{status.state.value}, loss {seen[:1]} -> {seen[-1:]}: {status.message}")
    return f"loss {seen[0]:.3f} -> {seen[-1]:.3f} on {run.facts().device}"


def own_model(hour: Hour) -> list[str]:
    """Train a person's own model; also the case of a 16-bit type that overflows: Gemma on a card before Ampere."""
    if not hour.model:
        raise LeftOut("name one: --model ID (of 1B to 8B; on a card before RTX 30, google/gemma-3-1b-it)")
    settings = (f"model.id={hour.model}", "adapter.method=qlora", "train.max_steps=40")
    run = hour.train("A model of one's own", *settings)
    return [
        learned(run),
        f"computes so because: {run.facts().dtype_reason}",
        *(exported(hour, run.id, kind) for kind in KINDS),
    ]


def chat(hour: Hour) -> list[str]:
    answered = hour.command("chat", needs_run(hour), "--prompt", "What is a horse?", "--base", "--max-new-tokens", "48")
    if not all(str(answered.get(column) or "").strip() for column in ("base", "tuned")):
        raise NotWell(f"an answer is missing: {sorted(answered)}")
    return [f"{column}: {answered[column]!r}" for column in ("base", "tuned")]


def export(hour: Hour, kind: str) -> str:
    return exported(hour, needs_run(hour), kind)


def exported(hour: Hour, run: str, kind: str) -> str:
    started = time.monotonic()
    found = hour.command("export", run, "--to", kind)
    if not found.get("passed"):
        raise NotWell(f"{kind}: {(found.get('message') or {}).get('sentence')}")
    return f"{kind}: proven, {sum(found['files'].values()) / 1e6:,.0f} MB, {time.monotonic() - started:.0f} s"


def needs_run(hour: Hour) -> str:
    if "run" not in hour.kept:
        raise LeftOut("there is no first run to do it with")
    return str(hour.kept["run"])


def marked_tests(hour: Hour, file: str) -> str:
    """Run the tests marked gpu of a file, with their own bounds."""
    said = hour.module("pytest", "-p", "no:cacheprovider", "-m", "gpu", "-q", "-rA", file)
    if " passed" not in said[-1]:
        raise NotWell(f"none ran: {said[-1]}")
    return said[-1].strip("= ")
