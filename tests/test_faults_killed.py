"""A worker killed anywhere loses nothing that was saved, and the run that goes on is the run that never was disturbed.

By fork (tests/forking.py) in front of operations on the disk, each with half of what was being written, and at random
moments; the real worker on a tiny model, the scripted one where there is no time for that.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_worker
import pytest
from conftest import wait_until
from forking import Forker

from core.advice import plan
from core.queue.supervisor import Supervisor
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import ACTIVE, State, may_resume
from core.workspace.folder import Workspace
from tests.fault_table import FaultTable

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked workers: POSIX only")
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
    found = {}
    for line in run.all_metrics():
        if line["kind"] in ("train", "eval"):
            found[line["kind"], line["step"]] = line["loss" if line["kind"] == "train" else "eval_loss"]
    return found


def steps_back(run: RunFolder) -> int:
    """How many steps that were finished have to be done again."""
    trained = [line["step"] for line in run.all_metrics() if line["kind"] == "train"]
    return trained[-1] - run.saved_step() if trained else 0


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
        return Runs(self.workspace).create(self.recipe, "command", {})

    def go_on(self, run: RunFolder) -> None:
        """As a person does who sees what happened: the state says it, and Resume is there."""
        runs = Runs(self.workspace)
        state = runs.status(run).state
        assert state not in ACTIVE, f"nobody works on it, and it says {state}"
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


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    with Forker("fake") as forker:
        space = Workspace.open(tmp_path_factory.mktemp("killed"))
        yield Undisturbed(forker, space, fake_worker.recipe(7, SAVE), fake_worker.read_checkpoint)


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with Forker("real") as forker:
        yield forker


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workspace:
    root = tmp_path_factory.mktemp("killed-real")
    (root / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(root)


@pytest.fixture(scope="module")
def real(forker: Forker, library: Workspace) -> Undisturbed:
    return Undisturbed(forker, library, real_recipe(), read_real)


def places(whole: Undisturbed, count: int | None) -> list[int]:
    """Numbers of operations to be killed in front of: all, or as many, some of them in each part of the run."""
    every = len(whole.operations)
    if count is None or count >= every:
        return list(range(1, every + 1))
    chance, width = random.Random(SEED), every / count
    return [int(i * width) + chance.randint(1, max(1, int(width))) for i in range(count)]


def test_the_scripted_worker_killed_in_front_of_any_operation_ends_in_the_same_adapter(
    fake: Undisturbed, full: bool, faults: FaultTable
) -> None:
    chosen = places(fake, None if full else 50)
    back = max(fake.killed({"nth": nth, "act": "kill"}) for nth in chosen)
    faults.add("SIGKILL in front of an operation on the disk, half of it done", "scripted worker", len(chosen), lost(back))


def test_the_scripted_worker_killed_again_and_again_still_ends_in_the_same_adapter(
    fake: Undisturbed, full: bool, faults: FaultTable
) -> None:
    """At random moments, fifty times the same run; a moment is as long as whole runs take at most."""
    chance, kills, back = random.Random(SEED), 0, 0
    run = fake.new_run()
    while kills < (200 if full else 50) and run.status().state != State.COMPLETED:
        trial = fake.forker.run(fake.workspace.root, run.id, act="kill", after_s=chance.uniform(0, 0.6 * fake.seconds))
        kills += trial.code == -9
        assert_whole(run, fake.reads, kills)
        back = max(back, steps_back(run))
        if run.status().state == State.COMPLETED:  # another one: the kills are what is wanted
            fake.assert_same(run)
            run = fake.new_run()
        else:
            fake.go_on(run)
    assert back <= SAVE
    if run.status().state != State.COMPLETED:
        assert fake.forker.run(fake.workspace.root, run.id).code == 0, run.log_tail()
    fake.assert_same(run)
    faults.add("SIGKILL at a random moment, the same run again and again", "scripted worker", kills, lost(back))


def lost(back: int) -> str:
    return f"nothing; at most {back} of {SAVE} steps back"


@pytest.mark.slow
def test_the_real_worker_killed_in_front_of_operations_goes_on_bit_for_bit(
    real: Undisturbed, full: bool, faults: FaultTable
) -> None:
    chosen = places(real, None if full else 8)
    back = max(real.killed({"nth": nth, "act": "kill"}) for nth in chosen)
    faults.add("SIGKILL in front of an operation on the disk, half of it done", "worker, LoRA", len(chosen), lost(back))


@pytest.mark.slow
def test_the_real_worker_killed_at_random_moments_goes_on_bit_for_bit(real: Undisturbed, full: bool, faults: FaultTable) -> None:
    """Spread over its whole life: load, tokenise, train, measure, save."""
    chance, count = random.Random(SEED), 50 if full else 5
    moments = [real.seconds * (i + chance.random()) / count for i in range(count)]
    back = max(real.killed({"act": "kill", "after_s": after_s}) for after_s in moments)
    faults.add("SIGKILL at a random moment between start and end", "worker, LoRA", count, lost(back))


@pytest.mark.full
@pytest.mark.parametrize("settings", [{"method": "qlora"}, {"lora_dropout": 0.2}, {"use_dora": True}], ids=str)
def test_other_ways_to_train_killed_at_random_moments_go_on_bit_for_bit(
    settings: dict, forker: Forker, library: Workspace, faults: FaultTable
) -> None:
    whole = Undisturbed(forker, library, real_recipe(**settings), read_real)
    chance = random.Random(SEED)
    moments = [whole.seconds * (i + chance.random()) / 12 for i in range(12)]
    back = max(whole.killed({"act": "kill", "after_s": after_s}, kills=2) for after_s in moments)
    faults.add("SIGKILL twice at random moments", f"worker, {settings}", 24, lost(back))


def test_the_supervisor_says_so_and_its_next_worker_goes_on(tmp_path: Path, full: bool, faults: FaultTable) -> None:
    """Started, watched and let go on by the supervisor; the workers are real processes, killed from outside."""
    supervisor = Supervisor(Workspace.open(tmp_path), spawn=fake_worker.spawn)
    supervisor.start()
    kills = 12 if full else 3
    steps = 30 * (kills + 1)
    try:
        run = supervisor.submit(fake_worker.recipe(steps, 10), {"script": {"step_s": 0.01}})
        for number in range(1, kills + 1):
            wait_until(lambda n=number: run.saved_step() >= 10 * n and run.status().state == State.RUNNING, 60)
            os.kill(run.status().pid, 9)
            wait_until(lambda: run.status().state == State.INTERRUPTED, 30)
            assert_whole(run, fake_worker.read_checkpoint, number)
            assert steps_back(run) <= 10
            supervisor.resume(run)
        wait_until(lambda: run.status().state == State.COMPLETED, 120)
    finally:
        supervisor.close()
    assert adapter_bytes(run)[-32:] == fake_worker.learned(steps)
    faults.add("SIGKILL from outside, the supervisor resumes", "scripted worker", kills, "nothing; at most 10 of 10 steps back")


def adapter_bytes(run: RunFolder) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()
