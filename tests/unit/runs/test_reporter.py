"""The moments in which a stop, an end and a full disk meet."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core import files
from core.errors import StopRequested
from core.recipe import Recipe
from core.runs import reporter
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.runs.states import MOVES, TERMINAL, State, may_stop
from core.workspace.folder import Workspace
from tests.kit.waits import wait_until


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = Runs(Workspace.open(tmp_path)).create(Recipe.parse({"data": {"source": "sample:x"}, "name": "x"}), "command")
    (made.path / "run.lock").touch()
    return made


def stopping(run: RunFolder, told: Reporter) -> None:
    run.request("stop")
    wait_until(lambda: run.status().state == State.STOPPING, 10)


def test_a_stop_at_the_last_moment_before_training_is_a_stop(run: RunFolder) -> None:
    with Reporter(run) as reporter:
        reporter.has_something_to_save()
        reporter.set_state(State.PREPARING)
        stopping(run, reporter)
        with pytest.raises(StopRequested):
            reporter.set_state(State.RUNNING)
        reporter.set_state(State.STOPPED)


def test_a_run_that_ended_while_it_was_asked_to_stop_is_done(run: RunFolder) -> None:
    with Reporter(run) as reporter:
        reporter.has_something_to_save()
        reporter.set_state(State.PREPARING)
        reporter.set_state(State.RUNNING)
        stopping(run, reporter)
        reporter.set_progress(5, 5, 0.0)
        assert run.status().state == State.STOPPING, "progress does not undo the announcement"
        reporter.set_state(State.COMPLETED)
    assert run.status().state == State.COMPLETED


def test_a_full_disk_does_not_make_the_worker_deaf(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked like this: the watch thread died of ENOSPC and Stop was never heard."""
    with Reporter(run) as reporter:
        reporter.has_something_to_save()
        reporter.set_state(State.PREPARING)
        reporter.set_state(State.RUNNING)
        monkeypatch.setattr(
            files, "replace", lambda path, data, **how: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        (run.path / "control.json").write_text('{"command": "stop"}', "utf-8")

        def heard() -> bool:
            try:
                reporter.check()
            except StopRequested:
                return True
            return False

        wait_until(heard, 10)
        monkeypatch.undo()


def test_the_heartbeat_is_the_time_of_the_lock(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(reporter, "HEARTBEAT_S", 0.0)
    os.utime(run.path / "run.lock", (0, 0))
    with Reporter(run):
        wait_until(lambda: run.heartbeat() > 0, 10)


def test_the_table_of_states_ends_and_every_stop_leads_somewhere() -> None:
    assert set(MOVES) == set(State)
    assert all(not MOVES[state] or state == State.FAILED for state in TERMINAL)
    assert {s for s in State if may_stop(s)} == {State.QUEUED, State.PREPARING, State.RUNNING, State.PAUSING}


def test_two_threads_replacing_one_file_never_show_a_half(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    files.replace_json(file, {"n": 0})
    over, bad = threading.Event(), []

    def read() -> None:
        while not over.is_set():
            if files.read_json(file) is None:
                bad.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [
        threading.Thread(target=lambda: [files.replace_json(file, {"n": "x" * 5000}) for _ in range(50)])
        for _ in range(3)
    ]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    over.set()
    reader.join()
    assert not bad and [f.name for f in tmp_path.iterdir()] == ["state.json"]


def test_a_reader_survives_half_lines_garbage_and_a_huge_line(tmp_path: Path) -> None:
    from core.files import read_lines

    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"a":1}\ngarbage\n[1]\n{"b":2}\n{"half"')
    tail = read_lines(file, 0)
    assert (tail.records, tail.bad_lines) == ([{"a": 1}, {"b": 2}], 2)
    with open(file, "ab") as more:
        more.write(b":3}\n")
    assert read_lines(file, tail.offset).records == [{"half": 3}]
    file.write_bytes(b"x" * 5000 + b'\n{"c":4}\n')
    first = read_lines(file, 0, limit_bytes=1000)
    assert first.bad_lines == 1 and first.offset == 1000
    assert read_lines(file, 10**9).records == [{"c": 4}], "a file that was replaced by a shorter one is read again"


def test_a_number_that_is_no_number_is_written_as_null_and_said(run: RunFolder) -> None:
    run.log_metrics("train", 1, 3, loss=float("nan"), grad_norm=1.0, learning_rate=None)
    line = run.metrics().records[0]
    assert line["loss"] is None and line["nonfinite"] is True and line["grad_norm"] == 1.0
