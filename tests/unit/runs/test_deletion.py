"""A run is deleted at once that only seemed to be at work: while others look at its lock, and while its end is written
down."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from filelock import FileLock

from core import files
from core.errors import BusyError, RunError
from core.messages import msg
from core.queue.supervisor import Supervisor
from core.runs.all import Runs
from core.runs.states import State
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until


def test_two_looks_at_a_free_lock_do_not_take_each_other_for_its_holder(tmp_path: Path):
    lock = tmp_path / "x.lock"
    assert not files.is_locked(lock) and not lock.exists(), "nobody has what is not there, and a look makes nothing"
    lock.touch()
    with open(lock, "rb") as looking:
        assert files._lock_shared(looking.fileno())
        assert not files.is_locked(lock)
    with FileLock(lock):
        assert files.is_locked(lock)
    assert not files.is_locked(lock)


def test_who_takes_the_device_waits_for_a_look_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    space = Workspace.open(tmp_path)
    (space.root / "gpu.lock").touch()
    looking = open(space.root / "gpu.lock", "rb")
    assert files._lock_shared(looking.fileno())
    with pytest.raises(BusyError), lease.hold(space, msg("lease.somebody")):
        pass
    monkeypatch.setattr(files, "LOOK_S", 30.0)
    threading.Timer(0.2, looking.close).start()
    with lease.hold(space, msg("lease.somebody")):
        assert looking.closed


def test_a_run_whose_end_is_being_written_down_is_deleted_when_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It was seen as still running, because whoever wrote down that it was interrupted had its lock."""
    space = Workspace.open(tmp_path)
    scripted = ScriptedRun(space, "gone").to(State.RUNNING)
    with scripted.run.lock().acquire(timeout=1):
        writer_has_it, is_done = threading.Event(), threading.Event()

        def write_down() -> None:
            with FileLock(scripted.run.path / "run.lock", thread_local=False).acquire(timeout=10):
                writer_has_it.set()
                is_done.wait(10)

        writer = threading.Thread(target=write_down)
        writer.start()
        with pytest.raises(RunError, match="still running"):
            Runs(space).delete(scripted.run)
    assert writer_has_it.wait(10)
    monkeypatch.setattr(files, "MOMENT_S", 30.0)
    threading.Timer(0.2, is_done.set).start()
    Runs(space).delete(scripted.run)
    assert not scripted.run.path.exists()
    writer.join()


def test_what_a_deletion_left_that_was_cut_off_is_removed_when_the_app_starts(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    with ScriptedRun(space, "kept") as scripted:
        scripted.to(State.RUNNING).train(5).save(5)
    left = [
        space.runs / ".2026-11-29_gone_abc123.deleted" / "adapter",
        scripted.run.path / ".checkpoints.deleted" / "checkpoint-000003",
    ]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "weights.bin").write_bytes(bytes(100))
    looks = Supervisor(space)
    looks.start()
    try:
        wait_until(lambda: not any(folder.parent.exists() for folder in left))
    finally:
        looks.close()
    assert [run.name for run in Runs(space).list()] == ["kept"] and scripted.run.saved_step() == 5
