"""What Windows refuses for a moment, because a scanner, OneDrive, Explorer or a reader of ours has a file open: nobody
notices.

The refusals are made: Wine lets a folder with an open file be renamed. The clock is too, so that ten seconds pass at
once.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core import files
from core.export import jobs
from core.export.exports import Exports
from core.export.jobs import JobFolder
from core.export.records import ExportRequest, ExportStatus
from core.messages import msg
from core.presets import PROJECT
from core.recipe import Recipe
from core.runs import checkpoints
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.faults.table import FaultTable
from tests.kit.waits import wait_until


class Clock:
    """time, where a sleep takes no time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    monkeypatch.setattr(files, "time", clock)
    return clock


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return Runs(Workspace.open(tmp_path)).create(
        Recipe.parse({"data": {"source": "sample:x"}, "name": "kept"}), "command"
    )


def refusing(clock: Clock, real: Callable[..., Any], until_s: float) -> Callable[..., Any]:
    """real, which Windows refuses until then."""

    def call(path: Any, *arguments: Any, **options: Any) -> Any:
        if clock.now < until_s:
            raise PermissionError(
                13, "The process cannot access the file because it is being used by another process", str(path)
            )
        return real(path, *arguments, **options)

    return call


@pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
def test_a_rename_that_is_refused_for_nine_seconds_goes_through(
    is_folder: bool, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    source, target = tmp_path / "new", tmp_path / "there"
    (source / "in it" if is_folder else source).parent.mkdir(exist_ok=True)
    (source / "in it" if is_folder else source).write_text("kept", "utf-8")
    monkeypatch.setattr(os, "replace", refusing(clock, os.replace, 9.0))
    files.rename(source, target)
    assert not source.exists() and (target / "in it" if is_folder else target).read_text("utf-8") == "kept"
    faults.add("Windows refuses a rename for nine seconds", "folder" if is_folder else "file", 1)


def test_a_rename_that_is_refused_for_ever_is_told_after_ten_seconds_and_changes_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "there"
    file.write_text("old", "utf-8")
    monkeypatch.setattr(os, "replace", refusing(clock, os.replace, 1e9))
    with pytest.raises(PermissionError):
        files.replace(file, "new")
    assert (
        10 <= clock.now < 11
        and file.read_text("utf-8") == "old"
        and [path.name for path in tmp_path.iterdir()] == ["there"]
    )


def test_elsewhere_a_refusal_is_told_at_once(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ON_WINDOWS", False)
    monkeypatch.setattr(os, "replace", refusing(clock, os.replace, 1e9))
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "there", "new")
    assert clock.now == 0


def test_every_rename_has_this_patience() -> None:
    """In core; webui renames nothing, launch.py keeps no file that another program opens."""
    renames = re.compile(
        r"os\.(?:replace|rename)\(|shutil\.move\(|\b(?!files|self|runs|run|seen|allocations)\w+\.rename\("
    )
    sources = [path for path in (PROJECT / "core").rglob("*.py") if path.name != "files.py"]
    assert len(sources) > 100
    assert [(path.name, found) for path in sources for found in renames.findall(path.read_text("utf-8"))] == []


def test_a_reader_that_meets_a_writer_reads_what_stands_there(
    run: RunFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: a page said FAILED for a moment, and `pause` refused a run that was at work."""
    run.log_event("first")
    with monkeypatch.context() as refused:
        refused.setattr(Path, "read_text", refusing(clock, Path.read_text, 0.9))
        assert run.status().state == State.QUEUED
    with monkeypatch.context() as refused:
        refused.setattr(files, "open", refusing(clock, open, clock.now + 0.9), raising=False)
        assert [event["kind"] for event in run.events()] == ["first"]


def test_facts_are_never_written_over_what_could_not_be_read(
    run: RunFolder, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in the code: run.json would have lost its name, its data and its advice."""
    with monkeypatch.context() as refused:
        refused.setattr(files, "open", refusing(clock, open, 1e9), raising=False)
        with pytest.raises(PermissionError):
            run.add_facts(RunFacts(dtype="bfloat16"))
    assert run.facts().name == "kept" and run.facts().dtype is None
    with monkeypatch.context() as refused:
        refused.setattr(files, "open", refusing(clock, open, clock.now + 9), raising=False)
        run.add_facts(RunFacts(dtype="bfloat16"))
    assert (run.facts().name, run.facts().dtype) == ("kept", "bfloat16")


def test_progress_that_is_refused_ends_no_run_and_is_written_once_it_can_be(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen in the code: a scanner that held state.json for a quarter of a second ended hours of training."""
    (run.path / "run.lock").touch()
    refused: list[str] = []
    real = files.replace

    def held(path: Path, data: str | bytes, lasting: bool = True) -> None:
        if refusing_now.is_set():
            refused.append(threading.current_thread().name)
            raise PermissionError(13, "The process cannot access the file", str(path))
        real(path, data, lasting)

    refusing_now = threading.Event()
    with Reporter(run) as reporter:
        reporter.has_something_to_save()
        reporter.set_state(State.PREPARING)
        reporter.set_state(State.RUNNING)
        monkeypatch.setattr(files, "replace", held)
        refusing_now.set()
        began = time.monotonic()
        for step in range(1, 51):
            reporter.set_progress(step, 100, 60.0)
        wait_until(lambda: len(refused) > 2, 10)
        assert run.status().step == 0 and time.monotonic() - began < 10
        refusing_now.clear()
        wait_until(lambda: run.status().step == 50, 10)
        assert set(refused) == {"watch"}, "the training thread waits for no disk"
        reporter.set_state(State.COMPLETED)
    assert (run.status().state, run.status().step) == (State.COMPLETED, 50)


class Cancelled:
    """A GGUF export of which the worker, played, says that it is cancelled, and whose file it could not delete."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, ends_by_itself: bool = True):
        self.exports = Exports(Workspace.open(folder))
        request = ExportRequest(workspace=str(folder), run="run", kind="gguf", quant="q8_0")
        monkeypatch.setattr(self.exports, "request", lambda *asked, **more: request)
        monkeypatch.setattr(
            self.exports, "runs", SimpleNamespace(get=lambda run_id: SimpleNamespace(id=run_id, name="Pirate"))
        )
        monkeypatch.setattr(jobs, "CANCEL_S", 0.3)
        monkeypatch.setattr(jobs, "kill_tree", self._kill)
        monkeypatch.setattr(JobFolder, "request_cancel", lambda job: self._told(job))
        self.job, self.killed, self._ends_by_itself = self.exports._job(request.name), [], ends_by_itself
        self._name = request.name
        self.job.build.mkdir(parents=True)
        self.file = self.job.build / "model.gguf"
        self.file.write_bytes(b"GGUF")
        self.job.write(ExportStatus(state="running", pid=41, since=time.time()))
        self._lock = self.job.lock()
        self._lock.acquire()

    def _told(self, job: JobFolder) -> None:
        job.write(ExportStatus(state="cancelled", message=msg("export.cancelled"), pid=41))
        if self._ends_by_itself:
            self._lock.release()

    def _kill(self, pid: int) -> None:
        self.killed.append(pid)
        self._lock.release()

    def cancel(self) -> ExportStatus | None:
        return self.exports.cancel(self._name)


def hold(clock: Clock, monkeypatch: pytest.MonkeyPatch, until_s: float) -> None:
    """The GGUF file, as a scanner or a process that has it mapped."""
    real = os.unlink
    held = refusing(clock, real, until_s)
    monkeypatch.setattr(
        os, "unlink", lambda path, **options: (held if str(path).endswith(".gguf") else real)(path, **options)
    )


def test_a_cancelled_export_that_is_held_open_for_a_moment_is_deleted(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """Seen in the code: gigabytes of it stayed until the same export was asked for again."""
    cancelled = Cancelled(tmp_path, monkeypatch)
    hold(clock, monkeypatch, 0.9)
    assert cancelled.cancel().message.key == "export.cancelled" and not cancelled.job.build.exists()
    faults.add("Windows refuses to delete a cancelled export for a moment", "file", 1)


def test_a_cancelled_export_that_stays_is_said_and_goes_with_the_next_one_of_any_kind(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = Cancelled(tmp_path, monkeypatch)
    with monkeypatch.context() as refused:
        hold(clock, refused, 1e9)
        status = cancelled.cancel()
    assert status.message.key == "export.cancelled_left" and str(cancelled.job.build) in str(status.message)
    assert cancelled.job.status() == status and cancelled.file.exists() and clock.now < 2, (
        "a person waits for the answer"
    )
    another = ExportRequest(workspace=str(tmp_path), run="another", kind="adapter")
    monkeypatch.setattr(cancelled.exports, "request", lambda *asked: another)
    monkeypatch.setattr(jobs, "start_worker", lambda *asked, **where: SimpleNamespace(poll=lambda: None))
    facts = SimpleNamespace(wanted_device=None)
    cancelled.exports.start(SimpleNamespace(id="another", name="Another", facts=lambda: facts), "adapter")
    assert not cancelled.job.build.exists()


def test_a_worker_that_has_said_it_is_cancelled_and_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lives, what it has mapped cannot be deleted on Windows."""
    cancelled = Cancelled(tmp_path, monkeypatch, ends_by_itself=False)
    assert cancelled.cancel().state == "cancelled" and cancelled.killed == [41] and not cancelled.job.build.exists()


def test_a_checkpoint_that_cannot_be_dropped_yet_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "checkpoint-000001"
    old.mkdir()
    (old / "COMPLETE").write_text("{}", "utf-8")

    def held(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "in use", str(path))

    monkeypatch.setattr(Path, "unlink", held)
    checkpoints.drop([old])
