"""Runs that faults are injected into, what they are when nothing disturbs them, and what must be whole afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from core.advice import plan
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import ACTIVE, State, may_resume
from core.workspace.folder import Workspace
from tests.faults.forking import Forker
from tests.kit.waits import wait_until

SEED = 20261125
SAVE = 2  # steps
Reads = Callable[[Path], object]


def real_recipe(**adapter: object) -> Recipe:
    """Each step saves or measures, examples are packed, and a step is of two micro-batches."""
    value = {
        "name": "Tiny", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers", "max_length": 128},
        "adapter": {"r": 4, **adapter},
        "train": {
            "max_steps": 6, "learning_rate": 1e-2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2,
            "save_steps": SAVE, "eval_steps": 3, "sample_seconds": 0.3,
        },
    }  # fmt: skip
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def read_real(folder: Path) -> object:
    from core.training import checkpoint

    return checkpoint.read(folder)


def assert_whole(run: RunFolder, reads: Reads, most_halves: int) -> None:
    """Every file of the run that has its name says what it should; what has no name yet does not count."""
    for file in run.path.rglob("*.json"):
        inside = file.relative_to(run.path).parts
        is_whole = "checkpoints" not in inside or (run.path / "checkpoints" / inside[1] / "COMPLETE").exists()
        if is_whole and not any(part.startswith(".") for part in inside):
            json.loads(file.read_text("utf-8"))
    for folder in run.checkpoints():
        reads(folder)
    for name in ("metrics.jsonl", "events.jsonl"):
        if (run.path / name).exists():
            *lines, last = (run.path / name).read_bytes().split(b"\n")
            bad = sum(not is_json(line) for line in lines)
            assert bad <= most_halves, f"{bad} lines of {name} cannot be read after {most_halves} kills"


def is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def numbers(run: RunFolder) -> dict[tuple[str, int], float]:
    """By kind and step, each as the last attempt that came there had it."""
    losses = {}
    for line in run.all_metrics():
        if line["kind"] in ("train", "eval"):
            losses[line["kind"], line["step"]] = line["loss" if line["kind"] == "train" else "eval_loss"]
    return losses


class Undisturbed:
    """The run that nothing happened to, to hold the others against."""

    def __init__(self, forker: Forker, workspace: Workspace, recipe: Recipe, reads: Reads):
        self.forker, self.workspace, self.recipe, self.reads = forker, workspace, recipe, reads
        run = self.new_run()
        trial = forker.run(workspace.root, run.id)
        assert trial.code == 0, run.log_tail()
        self.operations, self.seconds = trial.done, trial.seconds
        self.numbers, self.adapter = numbers(run), adapter_bytes(run)

    def new_run(self) -> RunFolder:
        return Runs(self.workspace).create(self.recipe, "command")

    def go_on(self, run: RunFolder) -> None:
        """As a person does who sees what happened: the state says it, and Resume is there."""
        runs = Runs(self.workspace)
        # A worker that was killed while it started a program leaves its locks to that one until it has begun: some
        # milliseconds.
        wait_until(lambda: runs.status(run).state not in ACTIVE, 10)
        state = runs.status(run).state
        if state != State.QUEUED:
            assert may_resume(state), state
            runs.queue_again(run, "command")

    def assert_same(self, run: RunFolder) -> None:
        assert run.status().state == State.COMPLETED, f"{run.status()}\n{run.log_tail()}"
        assert numbers(run) == self.numbers, "another loss than that of the run that was never disturbed"
        assert adapter_bytes(run) == self.adapter, "another adapter than that of the run that was never disturbed"

    def killed(self, fault: dict, kills: int = 1) -> int:
        """One run, killed so, then let go on to its end; returns how many steps it had to go back at most."""
        run, back = self.new_run(), 0
        for done in range(1, kills + 1):
            trial = self.forker.run(self.workspace.root, run.id, **fault)
            assert_whole(run, self.reads, done)
            if trial.code == 0 or Runs(self.workspace).status(run).state == State.COMPLETED:  # it had just ended
                break
            assert trial.code == -9, run.log_tail()
            back = max(back, steps_back(run))
            assert back <= SAVE, f"{back} steps back, saved each {SAVE}"
            self.go_on(run)
        else:
            assert self.forker.run(self.workspace.root, run.id).code == 0, run.log_tail()
            assert_whole(run, self.reads, kills)
        self.assert_same(run)
        return back


def places(whole: Undisturbed, count: int | None) -> list[dict]:
    """Operations to be met by a fault, as layer.Fault takes them: all, or as many, some of them in each part of the
    run."""
    every = len(whole.operations)
    if count is None or count >= every:
        return [{"nth": nth} for nth in range(1, every + 1)]
    chance, width = random.Random(SEED), every / count
    return [{"nth": int(i * width) + chance.randint(1, max(1, int(width)))} for i in range(count)]


def telling(whole: Undisturbed, *begins: str) -> list[dict]:
    """For each of them, an operation in the middle of those that begin so ("write metrics.jsonl"). Counted among those
    alone: how often a real worker writes something else meanwhile (its memory, the answers of a frame) is the clock's
    to say."""
    counts = {begin: sum(done.startswith(begin) for done in whole.operations) for begin in begins}
    assert all(counts.values()), counts
    return [{"nth": count // 2 + 1, "begins": begin} for begin, count in counts.items()]


def steps_back(run: RunFolder) -> int:
    """How many steps that were finished have to be done again."""
    trained = [line["step"] for line in run.all_metrics() if line["kind"] == "train"]
    return trained[-1] - run.saved_step() if trained else 0


def adapter_bytes(run: RunFolder) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()
