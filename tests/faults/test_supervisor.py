"""Workers that do not end, and apps that die: stops are bounded, and a run is never trained twice at once.

The workers are real processes with a scripted training (tests/faults/fake_worker.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from core.presets import PROJECT
from core.queue.supervisor import Patience, Supervisor
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.faults import fake_worker
from tests.faults.table import FaultTable
from tests.kit.waits import wait_until
from tests.kit.workers import at_work

IMPATIENT = Patience(terminate_s=1.0, kill_s=2.0, saving_s=4.0, fresh_s=10.0)
Ask = Callable[[Supervisor, RunFolder], None]
POSIX = pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")


@contextmanager
def supervised(folder: Path, patience: Patience = IMPATIENT) -> Iterator[Supervisor]:
    supervisor = Supervisor(Workspace.open(folder), spawn=fake_worker.spawn, patience=patience)
    supervisor.start()
    try:
        yield supervisor
    finally:
        for run in supervisor.runs.list():
            if (pid := run.status().pid) and run.is_locked() and psutil.pid_exists(pid):
                with_end(pid)
        supervisor.close()


def with_end(pid: int) -> None:
    with suppress(psutil.Error):
        psutil.Process(pid).resume()
        psutil.Process(pid).kill()


def running(supervisor: Supervisor, steps: int = 100_000, **script: object) -> RunFolder:
    run = supervisor.submit(fake_worker.recipe(steps, 5), RunFacts.from_json({"script": {"step_s": 0.01} | script}))
    wait_until(lambda: run.saved_step() >= 5, 60)
    return run


ASKS: dict[str, Ask] = {"stop": Supervisor.stop, "pause": Supervisor.pause}


@POSIX
@pytest.mark.parametrize(
    ("asks", "script"),
    [
        ("stop", {"deaf": True}),
        ("pause", {"deaf": True, "stubborn": True}),
        ("stop", {"save_s": 600.0}),
        pytest.param("pause", {"deaf": True}, marks=pytest.mark.full),
        pytest.param("stop", {"deaf": True, "stubborn": True}, marks=pytest.mark.full),
        pytest.param("pause", {"save_s": 600.0}, marks=pytest.mark.full),
    ],
    ids=str,
)
def test_a_worker_that_hangs_on_a_stop_is_ended_and_its_checkpoints_stay(
    asks: str, script: dict, tmp_path: Path, faults: FaultTable
) -> None:
    """Deaf to the wish, deaf to the signal, or saving without an end while its heart still beats: bounded each time."""
    with supervised(tmp_path) as supervisor:
        if "save_s" in script:
            run = supervisor.submit(
                fake_worker.recipe(100_000, 5), RunFacts.from_json({"script": {"step_s": 0.01} | script})
            )
            wait_until(lambda: run.status().stage == "saving", 60)
        else:
            run = running(supervisor, **script)
        pid, asked_at = run.status().pid, time.monotonic()
        ASKS[asks](supervisor, run)
        wait_until(lambda: run.status().state == State.INTERRUPTED, 60)
        took = time.monotonic() - asked_at
        assert not psutil.pid_exists(pid)
        wait_until(lambda: not run.is_locked(), 10)
        least = (
            IMPATIENT.saving_s
            if "save_s" in script
            else IMPATIENT.kill_s
            if "stubborn" in script
            else IMPATIENT.terminate_s
        )
        assert took >= least * 0.9, "it was not given the time that it has"
        for folder in run.checkpoints():
            fake_worker.read_checkpoint(folder)
    hangs = {"deaf": "does not react", "stubborn": "ignores SIGTERM", "save_s": "keeps saving, with its heartbeat"}
    faults.add(f"a worker asked to {asks} that " + " and ".join(hangs[name] for name in script), "supervisor")


@POSIX
def test_a_worker_that_stands_still_is_ended_though_it_said_that_it_saves(tmp_path: Path, faults: FaultTable) -> None:
    """Stopped by SIGSTOP, as on a drive that went away: no heartbeat, so no ten minutes of patience either."""
    with supervised(tmp_path, Patience(terminate_s=0.5, kill_s=1.0, saving_s=600.0, fresh_s=3.0)) as supervisor:
        run = supervisor.submit(
            fake_worker.recipe(100_000, 5), RunFacts.from_json({"script": {"step_s": 0.01, "save_s": 600.0}})
        )
        wait_until(lambda: run.status().stage == "saving", 60)
        os.kill(run.status().pid, signal.SIGSTOP)
        supervisor.stop(run)
        wait_until(lambda: run.status().state == State.INTERRUPTED, 60)
    faults.add("a worker that freezes while it saves", "supervisor")


APP = """
import sys, time
from tests.faults import fake_worker
from core.queue.supervisor import Supervisor
from core.runs.run_json import RunFacts
from core.workspace.folder import Workspace
supervisor = Supervisor(Workspace.open(sys.argv[1]), spawn=fake_worker.spawn)
supervisor.start()
run = next(iter(supervisor.runs.list()), None)
recipe = fake_worker.recipe(int(sys.argv[2]), 5)
run = run or supervisor.submit(recipe, RunFacts.from_json({"script": {"step_s": 0.01}}))
print(run.id, flush=True)
time.sleep(600)
"""


def other_app(workspace: Workspace, steps: int) -> tuple[subprocess.Popen, RunFolder]:
    """An app of its own, and the workspace's run, which the first app begins as its Start does."""
    app = subprocess.Popen(
        [sys.executable, "-c", APP, str(workspace.root), str(steps)], stdout=subprocess.PIPE, cwd=PROJECT
    )
    return app, Runs(workspace).get(app.stdout.readline().decode().strip())


def kill(app: subprocess.Popen) -> None:
    app.kill()
    app.wait()
    app.stdout.close()


def test_an_app_that_dies_leaves_its_worker_to_the_next_one_which_starts_no_second(
    tmp_path: Path, faults: FaultTable
) -> None:
    workspace = Workspace.open(tmp_path)
    apps = 3
    pid, pids = None, set()
    for _ in range(apps):
        app, run = other_app(workspace, 100_000)
        try:
            wait_until(lambda run=run: run.status().step > 5 and run.is_locked(), 60)
            pid = pid or run.status().pid
            then = run.status().step
            wait_until(lambda run=run, step=then: run.status().step > step + 20, 60)
            pids |= set(at_work("tests.faults.fake_worker", run.id))
        finally:
            kill(app)
    assert pids == {pid}, "another worker was started beside it"
    with supervised(tmp_path) as supervisor:
        supervisor.pause(run)
        wait_until(lambda: run.status().state == State.PAUSED, 60)
        assert run.status().attempt == 1 and sorted({m["attempt"] for m in run.all_metrics()}) == [1]
        trained = [m["step"] for m in run.all_metrics() if m["kind"] == "train"]
        assert trained == list(range(1, len(trained) + 1)), "each step once"
    faults.add("SIGKILL of the app while its worker trains, a new app each time", "supervisor", apps)


def test_an_app_that_dies_with_its_worker_says_so_when_it_is_started_again(tmp_path: Path, faults: FaultTable) -> None:
    workspace = Workspace.open(tmp_path)
    app, run = other_app(workspace, 300)
    try:
        wait_until(lambda: run.saved_step() >= 5, 60)
    finally:
        kill(app)
    with_end(run.status().pid)  # as when the power fails
    with supervised(tmp_path) as supervisor:
        wait_until(lambda: run.status().state == State.INTERRUPTED, 30)
        assert run.status().advice.key == "run.interrupted_checkpoint"
        supervisor.resume(run)
        wait_until(lambda: run.status().state == State.COMPLETED, 60)
    assert (run.adapter / "adapter_model.safetensors").read_bytes()[-32:] == fake_worker.learned(300)
    faults.add("the app and its worker die together, the app is started again", "supervisor")


def test_an_app_that_died_just_after_it_started_a_worker_makes_no_second_training(
    tmp_path: Path, faults: FaultTable
) -> None:
    """The next app finds the run still queued and starts it too: the second worker finds it taken, and nothing is
    lost."""
    workspace = Workspace.open(tmp_path)
    run = Runs(workspace).create(fake_worker.recipe(40, 5), "app", RunFacts.from_json({"script": {"step_s": 0.02}}))
    first = fake_worker.spawn(workspace, run)
    with supervised(tmp_path):
        wait_until(lambda: run.status().state == State.COMPLETED, 60)
        first.wait(30)
    trained = [m["step"] for m in run.all_metrics() if m["kind"] == "train"]
    assert trained == list(range(1, 41)) and run.status().state == State.COMPLETED
    assert (run.adapter / "adapter_model.safetensors").read_bytes()[-32:] == fake_worker.learned(40)
    faults.add("the app dies after starting a worker, before it reports", "supervisor")
