"""A process that waited for a run, and became its worker: what it holds before, what the run is, and what ends with
whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.advice import plan
from core.presets import PROJECT
from core.queue import standby
from core.queue.standby import Standby, StandbyProcess
from core.queue.supervisor import Supervisor, spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.system.machine import Machine
from core.system.processes import is_ours
from core.training.standby import standby_worker
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit.waits import PATIENCE, wait_until

POSIX = pytest.mark.skipif(os.name == "nt", reason="no signals")
READY_S = 120.0


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Workspace:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(tmp_path / "ws")


def tiny_recipe(steps: int = 3, name: str = "Tiny") -> Recipe:
    train = {"max_steps": steps, "learning_rate": 1e-2, "sample_seconds": 0}
    value = {
        "name": name,
        "model": {"id": "library:tiny"},
        "data": {"source": "sample:pirate_answers"},
        "adapter": {"r": 4},
        "train": train,
    }
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def ready(space: Workspace) -> StandbyProcess:
    waiting = StandbyProcess(space, {})
    wait_until(lambda: waiting.held_bytes or waiting.is_over, READY_S)
    assert waiting.held_bytes and not waiting.is_over, waiting.report
    return waiting


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in run.metrics().records if line["kind"] == "train"]


@pytest.mark.spawn
def test_the_run_of_one_that_waited_is_that_of_a_worker_started_anew(workspace: Workspace) -> None:
    """Loss by loss; before its order it holds no file of the workspace, no lease and no pipe as stdin."""
    before = {path for path in workspace.root.rglob("*")}
    waiting = ready(workspace)
    process = psutil.Process(waiting.pid)
    assert {path for path in workspace.root.rglob("*")} == before and not lease.is_held(workspace)
    if hasattr(process, "num_fds"):
        assert [file.path for file in process.open_files() if Path(file.path).is_relative_to(workspace.root)] == []
    runs = Runs(workspace)
    run, other = runs.create(tiny_recipe(), "app"), runs.create(tiny_recipe(), "app")
    (run.path / "train.log").write_bytes(b"of an attempt before\n")
    popen = waiting.become(run)
    assert popen.wait(600 * PATIENCE) == 0, run.log_tail()
    assert run.status().state == State.COMPLETED and run.status().pid == waiting.pid
    assert spawn_worker(workspace, other).wait(600 * PATIENCE) == 0, other.log_tail()
    assert losses(run) == losses(other) and len(losses(run)) == 3
    log = (run.path / "train.log").read_bytes()
    assert log.startswith(b"of an attempt before\n") and b"Loading weights" in log, (
        "what it says goes where a worker's goes"
    )


def test_what_libraries_say_as_they_are_read_comes_into_the_log_of_the_run(tmp_path: Path) -> None:
    code = (
        "import sys; from core.training.standby import standby_worker; print('read', file=sys.stderr); "
        "standby_worker.take_over(sys.argv[1]); print('on')"
    )
    log, output = tmp_path / "train.log", tmp_path / "said"
    with open(output, "w+b") as unsaid:
        subprocess.run([sys.executable, "-c", code, str(log)], stderr=unsaid, stdout=unsaid, cwd=PROJECT, check=True)
    assert log.read_text("utf-8").split() == ["read", "on"]


APP = """
import sys, time
from core.queue.standby import Standby, StandbyProcess
from core.queue.supervisor import Supervisor
from core.system.machine import Machine
from core.workspace.folder import Workspace
from tests.process import test_standby

space = Workspace.open(sys.argv[1])
if sys.argv[2] == "waits":
    waiting = StandbyProcess(space, {})
    print(waiting.mark, flush=True)
    while waiting.held_bytes is None and len(sys.argv) > 3:
        time.sleep(0.01)
    print("ready", flush=True)
else:
    supervisor, standby = test_standby.supervised(space)
    print(standby._waiting.mark, flush=True)
    print(supervisor.submit(test_standby.tiny_recipe(100_000)).id, flush=True)
time.sleep(600)
"""


def supervised(space: Workspace) -> tuple[Supervisor, Standby]:
    """A supervisor at work, and what is ready for it."""
    made = Standby(space, lambda: Machine(system="Linux"), free_bytes=lambda: 8 << 30)
    made.note_page(touched=True)
    made._opened_at -= standby.OPEN_S  # the page was opened a while ago
    supervisor = Supervisor(space, standby=made)
    supervisor.start()
    wait_until(lambda: made.held_bytes, READY_S)
    return supervisor, made


def app(space: Workspace, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", APP, str(space.root), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT, text=True)


def processes_of(mark: str) -> list[int]:
    return [process.pid for process in psutil.process_iter() if is_ours(process.pid, mark)]


def test_one_that_still_reads_ends_with_the_app_that_was_killed(workspace: Workspace) -> None:
    with app(workspace, "waits") as started:
        mark = started.stdout.readline().strip()
        started.stdout.readline()
        wait_until(lambda: processes_of(mark), READY_S)
        started.kill()
    wait_until(lambda: not processes_of(mark), 60)


@pytest.mark.full
def test_one_that_waits_ends_with_the_app_that_was_killed(workspace: Workspace) -> None:
    with app(workspace, "waits", "ready") as started:
        mark = started.stdout.readline().strip()
        assert started.stdout.readline() == "ready\n" and processes_of(mark)
        started.kill()
    wait_until(lambda: not processes_of(mark), 60)


@pytest.mark.full
def test_the_run_of_one_that_waited_outlives_its_app_and_the_next_app_watches_and_pauses_it(
    workspace: Workspace,
) -> None:
    with app(workspace, "trains") as started:
        mark = started.stdout.readline().strip()
        run = Runs(workspace).get(started.stdout.readline().strip())
        wait_until(lambda: run.status().step >= 2, READY_S)
        pid = run.status().pid
        started.kill()
    assert run.facts().worker_mark == mark and is_ours(pid, run.id, mark) and not is_ours(pid, run.id)
    step = run.status().step
    wait_until(lambda: run.status().step > step, 60)
    supervisor = Supervisor(workspace)
    supervisor.start()
    try:
        supervisor.pause(run)
        wait_until(lambda: run.status().state == State.PAUSED, 60)
    finally:
        supervisor.close()
    wait_until(lambda: not psutil.pid_exists(pid), 60)


@POSIX
def test_one_that_dies_as_it_is_told_its_run_costs_the_run_nothing(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """It stands still as the order comes, and is killed: nobody has said that the run began, so a worker is started
    anew."""
    supervisor, made = supervised(workspace)
    try:
        waiting = made._waiting
        os.kill(waiting.pid, signal.SIGSTOP)
        run = supervisor.submit(tiny_recipe(1))
        wait_until(lambda: run.facts().worker_mark == waiting.mark and supervisor._worker, 60)
        os.kill(waiting.pid, signal.SIGKILL)
        wait_until(lambda: run.status().state == State.COMPLETED, READY_S)
        assert run.status().pid != waiting.pid and run.status().attempt == 1
        assert "another worker is started" in caplog.text
    finally:
        supervisor.close()


@pytest.mark.full
def test_the_next_one_is_made_ready_when_the_run_has_ended(workspace: Workspace) -> None:
    supervisor, made = supervised(workspace)
    try:
        first = made._waiting.mark
        run = supervisor.submit(tiny_recipe(1))
        wait_until(lambda: run.status().state == State.COMPLETED, READY_S)
        assert run.facts().worker_mark == first
        wait_until(lambda: made.held_bytes, READY_S)
        assert made._waiting.mark != first
    finally:
        supervisor.close()
    assert made._waiting is None


def test_where_the_system_does_not_tell_what_is_shared_it_waits_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wine 10: WinError 87 of NtQueryVirtualMemory, and what was to wait ended with it."""

    def refuse(process: psutil.Process) -> None:
        raise OSError(22, "Invalid parameter")

    held = standby_worker.held_bytes()
    monkeypatch.setattr(psutil.Process, "memory_full_info", refuse)
    assert 0 < held <= standby_worker.held_bytes()


def test_one_that_has_memory_of_a_card_is_known_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.system.gpu import Card, Holder, Nvidia

    def cards(pid: int) -> Nvidia:
        return Nvidia(cards=(Card(index=0, holders=None), Card(index=1, holders=(Holder(pid=pid),))))

    monkeypatch.setattr(standby_worker.devices, "read_cards", lambda: cards(os.getpid()))
    assert standby_worker.is_on_a_card()
    monkeypatch.setattr(standby_worker.devices, "read_cards", lambda: cards(os.getpid() + 1))
    assert not standby_worker.is_on_a_card()
