"""A run of real workers on two ranks: whichever is killed at whatever it does, the other ends, and the run that goes on
is the one that never was disturbed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.advice import plan
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.trainer import losses
from tests.kit.waits import PATIENCE, wait_until
from tests.kit.workers import at_work

pytestmark = [pytest.mark.full, pytest.mark.skipif(not hasattr(os, "fork"), reason="kills by signals: POSIX only")]
LONG_S = 300 * PATIENCE


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workspace:
    root = tmp_path_factory.mktemp("ranks")
    (root / "settings.yaml").write_text(f'library_folders: ["{tiny_model.parent}"]', "utf-8")
    return Workspace.open(root)


def new_run(space: Workspace, **more: Any) -> RunFolder:
    value = {
        "name": "Two", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers", "max_length": 128},
        "adapter": {"r": 4},
        "train": {
            "max_steps": 60, "learning_rate": 1e-2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2,
            "save_steps": 20, "eval_steps": 30, "sample_seconds": 0, "ranks": 2, **more,
        },
    }  # fmt: skip
    return Runs(space).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command")


@pytest.fixture(scope="module")
def undisturbed(library: Workspace) -> dict[int, float]:
    run = new_run(library)
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    return losses(run)


@pytest.mark.parametrize("steps", [0, 3, 25])
@pytest.mark.parametrize("victim", [0, 1])
def test_any_rank_killed_at_any_stage_ends_both_and_loses_nothing(
    victim: int, steps: int, library: Workspace, undisturbed: dict[int, float]
) -> None:
    run, runs = new_run(library), Runs(library)
    process = spawn_worker(library, run)
    other = psutil.Process(wait_until(lambda: at_work("core.training.ranks.worker", run.id), LONG_S)[0])
    wait_until(lambda: len(losses(run)) >= steps, LONG_S)
    os.kill([process.pid, other.pid][victim], signal.SIGKILL)
    code = process.wait(LONG_S)
    wait_until(lambda: not other.is_running() or other.status() == psutil.STATUS_ZOMBIE)
    status = runs.status(run)
    assert not run.is_locked()
    if victim:
        assert (code, status.state, status.message.key) == (1, State.FAILED, "ranks.gone")
        assert not (run.path / "ranks.store").exists()
        assert run.saved_step() == len(losses(run)), "what was learned last is saved too"
    else:
        assert status.state == State.INTERRUPTED
    runs.queue_again(run, "command")
    if steps == 25:  # as `resume --ranks 1` has it
        run.add_facts(RunFacts(ranks=1))
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    assert (
        losses(run) == (pytest.approx(undisturbed, rel=2e-2) if steps == 25 else undisturbed)
        and not (run.path / "ranks.store").exists()
    )


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_rank_that_holds_a_part_of_the_base_is_killed_and_nothing_is_lost(
    ranks: int, library: Workspace, undisturbed: dict[int, float]
) -> None:
    """With sample answers, which rank 0 makes of layers that the other gathers with it. It goes on alone, with the
    whole base, or with more."""
    run, runs = new_run(library, fsdp=True, sample_seconds=4), Runs(library)
    process = spawn_worker(library, run)
    other = psutil.Process(wait_until(lambda: at_work("core.training.ranks.worker", run.id), LONG_S)[0])
    wait_until(lambda: len(losses(run)) >= 3, LONG_S)
    other.kill()
    code, status = process.wait(LONG_S), runs.status(run)
    assert (code, status.state, status.message.key) == (1, State.FAILED, "ranks.gone")
    assert run.saved_step() == len(losses(run)) and not (run.path / "ranks.store").exists()
    assert any((line.get("message") or {}).get("key") == "fsdp.begun" for line in run.events())
    runs.queue_again(run, "command")
    run.add_facts(RunFacts(ranks=ranks))  # as `resume --ranks` has it
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    assert losses(run) == pytest.approx(undisturbed, rel=2e-2)


def test_a_stop_keeps_the_adapter_and_leaves_nobody_behind(library: Workspace) -> None:
    run = new_run(library)
    process = spawn_worker(library, run)
    other = psutil.Process(wait_until(lambda: at_work("core.training.ranks.worker", run.id), LONG_S)[0])
    wait_until(lambda: len(losses(run)) >= 3, LONG_S)
    run.ask("stop")
    assert process.wait(LONG_S) == 3 and run.has_adapter()
    assert not other.is_running() and not (run.path / "ranks.store").exists()
