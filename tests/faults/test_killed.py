"""A worker killed anywhere loses nothing that was saved, and the run that goes on is the run that never was disturbed.

By fork (tests/faults/forking.py) in front of operations on the disk, each with half of what was being written, and at
random moments; the real worker on a tiny model, the scripted one where there is no time for that.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.queue.supervisor import Supervisor
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.faults import fake_worker
from tests.faults.forking import Forker
from tests.faults.runs import (
    SAVE,
    SEED,
    Undisturbed,
    adapter_bytes,
    assert_whole,
    places,
    read_real,
    real_recipe,
    steps_back,
    telling,
)
from tests.faults.table import FaultTable
from tests.kit.waits import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked workers: POSIX only")


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


def test_the_scripted_worker_killed_in_front_of_any_operation_ends_in_the_same_adapter(
    fake: Undisturbed, full: bool, faults: FaultTable
) -> None:
    chosen = places(fake, None if full else 26)
    back = max(fake.killed(place | {"act": "kill"}) for place in chosen)
    faults.add("SIGKILL halfway through a disk operation", "scripted worker", len(chosen), lost(back))


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
    faults.add("SIGKILL at a random moment, the same run repeatedly", "scripted worker", kills, lost(back))


def lost(back: int) -> str:
    return f"nothing; at most {back} of {SAVE} steps back"


@pytest.mark.slow
def test_the_real_worker_killed_in_front_of_operations_goes_on_bit_for_bit(
    real: Undisturbed, full: bool, faults: FaultTable
) -> None:
    chosen = (
        places(real, None) if full else telling(real, "write metrics.jsonl", "replace .state.json", "open trainer.pt")
    )
    back = max(real.killed(place | {"act": "kill"}) for place in chosen)
    faults.add("SIGKILL halfway through a disk operation", "worker, LoRA", len(chosen), lost(back))


@pytest.mark.slow
def test_the_real_worker_killed_at_random_moments_goes_on_bit_for_bit(
    real: Undisturbed, full: bool, faults: FaultTable
) -> None:
    """Spread over its whole life: load, tokenise, train, measure, save."""
    chance, count = random.Random(SEED), 50 if full else 3
    snapshots = [real.seconds * (i + chance.random()) / count for i in range(count)]
    back = max(real.killed({"act": "kill", "after_s": after_s}) for after_s in snapshots)
    faults.add("SIGKILL at a random moment between start and end", "worker, LoRA", count, lost(back))


@pytest.mark.full
@pytest.mark.parametrize("settings", [{"method": "qlora"}, {"lora_dropout": 0.2}, {"use_dora": True}], ids=str)
def test_other_ways_to_train_killed_at_random_moments_go_on_bit_for_bit(
    settings: dict, forker: Forker, library: Workspace, faults: FaultTable
) -> None:
    undisturbed = Undisturbed(forker, library, real_recipe(**settings), read_real)
    chance = random.Random(SEED)
    snapshots = [undisturbed.seconds * (i + chance.random()) / 12 for i in range(12)]
    back = max(undisturbed.killed({"act": "kill", "after_s": after_s}, kills=2) for after_s in snapshots)
    faults.add("SIGKILL twice at random moments", f"worker, {settings}", 24, lost(back))


def test_the_supervisor_says_so_and_its_next_worker_goes_on(tmp_path: Path, full: bool, faults: FaultTable) -> None:
    """Started, watched and let go on by the supervisor; the workers are real processes, killed from outside."""
    supervisor = Supervisor(Workspace.open(tmp_path), spawn=fake_worker.spawn)
    supervisor.start()
    kills = 12 if full else 3
    steps = 30 * (kills + 1)
    try:
        run = supervisor.submit(fake_worker.recipe(steps, 10), RunFacts.from_json({"script": {"step_s": 0.01}}))
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
    faults.add(
        "SIGKILL from outside, the supervisor resumes", "scripted worker", kills, "nothing; at most 10 of 10 steps back"
    )
