"""A run of real workers on two ranks under torchrun's agent: whichever is killed at whatever it does, the others end,
and the run that goes on is the one that never was disturbed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest

from core.advice import plan
from core.presets import PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system.processes import kill_tree
from core.workspace.folder import Workspace
from tests.kit.trainer import losses
from tests.kit.waits import PATIENCE, wait_until
from tests.kit.workers import at_work, rank_of

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


def ranks_of(run: RunFolder) -> list[psutil.Process]:
    return [psutil.Process(wait_until(partial(rank_of, run.id, rank), LONG_S)) for rank in (0, 1)]


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def nobody_is_left(run: RunFolder) -> None:
    wait_until(lambda: not at_work("core.training.ranks.rank_process", run.id) and not run.is_locked(), LONG_S)
    assert not (run.path / "ranks.store").exists()


@pytest.mark.parametrize("steps", [0, 3, 25])
@pytest.mark.parametrize("victim", [0, 1])
def test_any_rank_killed_at_any_stage_ends_both_and_loses_nothing(
    victim: int, steps: int, library: Workspace, undisturbed: dict[int, float]
) -> None:
    run, runs = new_run(library), Runs(library)
    process = spawn_worker(library, run)
    ranks = ranks_of(run)
    wait_until(lambda: len(losses(run)) >= steps, LONG_S)
    ranks[victim].kill()
    code = process.wait(LONG_S)
    nobody_is_left(run)
    status = runs.status(run)
    if victim and steps:
        assert (code, status.state, status.message.key) == (1, State.FAILED, "ranks.gone")
        assert run.saved_step() == len(losses(run)), "what was learned last is saved too"
    elif not steps:  # rank 0 may not have begun: who started it says so (core/commands/running, core/queue/supervisor)
        assert code == 1 and not run.saved_step()
        if status.state == State.QUEUED:
            run.write_status(status.model_copy(update={"state": State.FAILED}))
    else:
        assert status.state == State.INTERRUPTED
    runs.queue_again(run, "command")
    if steps == 25:  # as `resume --ranks 1` has it
        run.add_facts(RunFacts(ranks=1))
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    assert losses(run) == (pytest.approx(undisturbed, rel=2e-2) if steps == 25 else undisturbed)
    nobody_is_left(run)


def test_ranks_end_with_torchruns_agent_and_what_was_learned_is_saved(
    library: Workspace, undisturbed: dict[int, float]
) -> None:
    run, runs = new_run(library), Runs(library)
    process = spawn_worker(library, run)
    ranks_of(run)
    wait_until(lambda: len(losses(run)) >= 3, LONG_S)
    process.kill()
    process.wait(LONG_S)
    wait_until(lambda: not at_work("core.training.ranks.rank_process", run.id), LONG_S)
    assert runs.status(run).state == State.FAILED and run.saved_step() == len(losses(run))
    runs.queue_again(run, "command")
    run.add_facts(RunFacts(ranks=3))
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    assert losses(run) == pytest.approx(undisturbed, rel=2e-2)


def test_a_supervisor_that_kills_the_agent_kills_all_its_ranks(library: Workspace) -> None:
    run = new_run(library)
    process = spawn_worker(library, run)
    ranks = ranks_of(run)
    wait_until(lambda: losses(run), LONG_S)
    kill_tree(process.pid)
    assert all(map(is_over, ranks))


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_rank_that_holds_a_part_of_the_base_is_killed_and_nothing_is_lost(
    ranks: int, library: Workspace, undisturbed: dict[int, float]
) -> None:
    """With sample answers, which rank 0 makes of layers that the other gathers with it. It goes on alone, with the
    whole base, or with more."""
    run, runs = new_run(library, fsdp=True, sample_seconds=4), Runs(library)
    process = spawn_worker(library, run)
    other = ranks_of(run)[1]
    wait_until(lambda: len(losses(run)) >= 3, LONG_S)
    other.kill()
    code, status = process.wait(LONG_S), runs.status(run)
    assert (code, status.state, status.message.key) == (1, State.FAILED, "ranks.gone")
    assert run.saved_step() == len(losses(run))
    nobody_is_left(run)
    assert any((line.get("message") or {}).get("key") == "fsdp.begun" for line in run.events())
    runs.queue_again(run, "command")
    run.add_facts(RunFacts(ranks=ranks))  # as `resume --ranks` has it
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    assert losses(run) == pytest.approx(undisturbed, rel=2e-2)


@pytest.mark.parametrize(("wish", "code"), [("stop", 3), ("pause", 4)])
def test_a_stop_and_a_pause_are_heard_at_a_steps_end_and_leave_nobody_behind(
    wish: Any, code: int, library: Workspace, undisturbed: dict[int, float]
) -> None:
    run = new_run(library)
    process = spawn_worker(library, run)
    wait_until(lambda: len(losses(run)) >= 3, LONG_S)
    run.request(wish)
    assert process.wait(LONG_S) == code
    nobody_is_left(run)
    if wish == "stop":
        assert run.has_adapter()
        return
    assert run.saved_step() == len(losses(run))
    Runs(library).queue_again(run, "command")
    run.add_facts(RunFacts(ranks=3))
    assert spawn_worker(library, run).wait(LONG_S) == 0, run.log_tail()
    assert losses(run) == pytest.approx(undisturbed, rel=2e-2)


ORDERLY = """
import os
if os.environ.get("RANK") == "0":
    from core.runs import reporter
    reporter.GRACE_S = 3600.0
"""


def begin_with(code: str, folder: Path, library: Workspace, run: RunFolder, **environment: str) -> Popen[bytes]:
    """Start the run's worker with Python that each of its processes carries out first."""
    (folder / "sitecustomize.py").write_text(code, "utf-8")
    return spawn_worker(library, run, environment | {"PYTHONPATH": os.pathsep.join((str(folder), str(PROJECT)))})


@pytest.mark.parametrize(("wish", "code"), [("stop", 3), ("pause", 4)])
def test_a_stop_and_a_pause_while_rank_0_prepares_end_the_others_that_wait_for_it(
    wish: Any, code: int, library: Workspace, tmp_path: Path
) -> None:
    """Also where the main thread of rank 0 ends by itself, before the watch thread ends its process."""
    run = new_run(library)
    run.request(wish)
    process = begin_with(ORDERLY, tmp_path, library, run)
    try:
        assert process.wait(60 * PATIENCE) == code, run.log_tail()
    finally:
        kill_tree(process.pid)
    nobody_is_left(run)


PREPARES = """
import os, sys, time
if os.environ.get("RANK") == "0":
    from core.data.store import DatasetStore
    DatasetStore.rows = lambda *_, **__: time.sleep(3600)
elif os.environ.get("RANK"):
    from core.training import worker
    def cannot_read():
        while '"reading_data"' not in open(os.environ["STATE"], encoding="utf-8").read():
            time.sleep(0.05)
        raise RuntimeError("torch is damaged")
    if os.environ["FAILS"]:
        worker.read_libraries = cannot_read
"""


@pytest.mark.parametrize("fails", ["1", ""], ids=["fails", "killed"])
def test_a_rank_that_ends_while_rank_0_prepares_is_what_the_run_says(
    fails: str, library: Workspace, tmp_path: Path
) -> None:
    run = new_run(library)
    process = begin_with(PREPARES, tmp_path, library, run, FAILS=fails, STATE=str(run.path / "state.json"))
    try:
        if not fails:
            other = ranks_of(run)[1]
            wait_until(lambda: run.status().stage == "reading_data", LONG_S)
            other.kill()
        assert process.wait(60 * PATIENCE) == 1
    finally:
        kill_tree(process.pid)
    nobody_is_left(run)
    status = run.status()
    assert status.state == State.FAILED and status.message
    assert status.message.key == ("ranks.failed" if fails else "ranks.gone")
    assert "torch is damaged" in str(status.message) or not fails
