"""The background thread that drives the trainer: takes the next queued run, starts its worker, watches it.

It holds no run state that a restart would lose: everything is read from the run folders. It never trains.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import psutil

from core import pausing
from core.child import device_environment, is_ours, kill_tree, own_group, worker_environment
from core.errors import BusyError, RunError
from core.recipe import Recipe
from core.run_folder import RunFolder, Status
from core.runs import Runs, dropped, interrupted, this_process
from core.states import ACTIVE, BUSY, MOVES, State, may_pause, may_stop
from core.text import text
from core.workspace import Workspace

POLL_S = 0.25
TERMINATE_AFTER_S = 45.0  # a stop that nothing came of: saving a large adapter to a slow disk may take half of this
KILL_AFTER_S = 60.0
FRESH_S = 10.0  # of a heartbeat that comes each two seconds


def spawn_worker(workspace: Workspace, run: RunFolder) -> subprocess.Popen:
    """The worker of run as a child in its own process group; all its output goes to train.log, never to a pipe."""
    with open(run.path / "train.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "core.worker", "--workspace", str(workspace.root), run.id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=workspace.root,
            env=worker_environment() | device_environment(run.facts().get("wanted_device")),
            **own_group(),
        )


class Supervisor:
    """start() begins the thread, close() pauses what runs, then ends it.

    before_start is called with the run just before its worker starts: the chat gives up the device there.
    """

    def __init__(self, workspace: Workspace, before_start: Callable[[RunFolder], None] = lambda run: None):
        self.workspace, self.runs = workspace, Runs(workspace)
        self._before_start = before_start
        self._worker: tuple[RunFolder, subprocess.Popen, int] | None = None  # the number: which attempt it carries out
        self._settled: dict[str, int] = {}
        self._stop_asked: dict[str, float] = {}
        self._submitting = threading.Lock()
        self._trouble = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._drive, name="supervisor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # ---- what pages ask -------------------------------------------------------------------------------------------
    def submit(self, recipe: Recipe, facts: dict[str, Any]) -> RunFolder:
        """Queue a run. Raises BusyError, naming it, while another one is queued or at work (two Starts give one run)."""
        with self._submitting:
            if busy := self.runs.busy():
                raise BusyError("run.already_training", name=busy.name)
            return self.runs.create(recipe, "app", facts)

    def stop(self, run: RunFolder) -> None:
        """Ask a run to stop and keep its adapter; a queued one is dropped. Raises RunError where there is nothing to stop."""
        state = self.runs.status(run).state
        if not may_stop(state):
            raise RunError("run.not_running", name=run.name, state=text(f"state.{state.value}"))
        run.ask("stop")
        self._stop_asked.setdefault(run.id, time.monotonic())

    def pause(self, run: RunFolder) -> None:
        """Ask a run to save where it is and give the device free. Raises RunError where there is nothing to pause."""
        state = self.runs.status(run).state
        if not may_pause(state):
            raise RunError("run.not_pausable", name=run.name, state=text(f"state.{state.value}"))
        run.ask("pause")
        self._stop_asked.setdefault(run.id, time.monotonic())

    def resume(self, run: RunFolder) -> None:
        """Let a run that was paused, interrupted or failed go on from its newest checkpoint. Raises BusyError or RunError."""
        with self._submitting:
            if busy := self.runs.busy():
                raise BusyError("run.already_training", name=busy.name)
            self.runs.queue_again(run, "app")

    def close(self, wait_s: float = 30.0) -> None:
        """Pause what runs, wait at most wait_s, end the thread. For Ctrl-C in the terminal."""
        deadline = time.monotonic() + wait_s
        worker = self._worker
        if worker and self.runs.status(worker[0]).state in BUSY:
            worker[0].ask("pause", by="close")
            while worker[1].poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            if worker[1].poll() is not None:
                pausing.process_is_gone(worker[0])
        elif adopted := self._adopted():
            adopted.ask("pause", by="close")
            pid = adopted.status().pid
            while (adopted.is_locked() or is_ours(pid, adopted.id)) and time.monotonic() < deadline:
                time.sleep(0.1)
            pausing.process_is_gone(adopted)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _adopted(self) -> RunFolder | None:
        """A run at work that an app before this one started, and that this one watches. A command's run is its own affair."""
        if not self._thread.is_alive():
            return None
        at_work = (run for run in self.runs.folders() if self.runs.status(run).state in ACTIVE)
        return next((run for run in at_work if run.facts().get("launcher") == "app"), None)

    # ---- the thread -----------------------------------------------------------------------------------------------
    def _drive(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self._look()
                self._trouble = ""
            except Exception as error:  # noqa: BLE001 - a disk that is full or gone for a moment must not end supervision
                if repr(error) != self._trouble:  # four times a second the same is no news
                    self._trouble = repr(error)
                    traceback.print_exc()

    def _look(self) -> None:
        if self._worker:
            run, process, attempt = self._worker
            is_current = run.status().attempt == attempt  # else the run was let go on before this process was quite gone
            if process.poll() is None:
                if is_current:
                    self._escalate(run, process.pid)
                return
            self._worker = None
            if is_current:
                self._settle(run, process.returncode)
        for run, status in self._unsettled():
            if status.state in ACTIVE:
                if self.runs.status(run).state == State.INTERRUPTED:
                    self._mark_interrupted(run)
                else:  # a worker that another process started, or an app before this one: wait for it
                    if is_ours(status.pid, run.id):
                        self._escalate(run, status.pid)
                    return
            elif status.state == State.QUEUED and run.facts().get("launcher") == "app":
                self._begin(run)
                return

    def _unsettled(self) -> list[tuple[RunFolder, Status]]:
        """Runs that wait or work, the longest waiting first. One that ended is read again only when its state changes."""
        found = []
        for run in self.runs.folders():
            stamp = (run.path / "state.json").stat().st_mtime_ns
            if self._settled.get(run.id) != stamp:
                status = run.status()
                if status.state in BUSY:
                    found.append((run, status))
                else:
                    self._settled[run.id] = stamp
        return sorted(found, key=lambda pair: pair[1].since)

    def _begin(self, run: RunFolder) -> None:
        if run.asked():
            self._drop(run)
            return
        try:
            self._before_start(run)
            run.add_facts(**this_process())  # an app before this one may have queued it
            self._worker = (run, spawn_worker(self.workspace, run), run.status().attempt)
        except Exception as error:  # noqa: BLE001 - whatever it was, the person must not wait for ever
            traceback.print_exc()
            reason = getattr(error, "strerror", None) or str(error)
            crashed = {"state": State.FAILED, "message": text("run.cannot_start", reason=reason), "since": time.time()}
            run.write_status(run.status().model_copy(update=crashed))

    def _settle(self, run: RunFolder, exit_code: int) -> None:
        """The process is gone. If it left a word, that stands; if not, say what is known."""
        self._stop_asked.pop(run.id, None)
        status = run.status()
        if status.state == State.QUEUED and run.asked():
            self._drop(run)
        elif status.state == State.QUEUED:
            crashed = {"state": State.FAILED, "message": text("run.never_started", code=exit_code), "since": time.time()}
            run.write_status(status.model_copy(update={**crashed, "advice": text("advice.crashed")}))
        elif status.state in ACTIVE:
            self._mark_interrupted(run)
        else:
            pausing.process_is_gone(run)

    def _drop(self, run: RunFolder) -> None:
        """A queued run that is not to begin. What an earlier attempt had learned can still be gone on from."""
        status = run.status()
        run.write_status(dropped(status, was_paused=run.asked() == "pause"))

    def _mark_interrupted(self, run: RunFolder) -> None:
        with run.lock().acquire(timeout=5):
            status = run.status()
            if State.INTERRUPTED in MOVES[status.state]:
                run.write_status(interrupted(run, status))
                run.log_event("state", state=State.INTERRUPTED.value)

    def _escalate(self, run: RunFolder, pid: int) -> None:
        """Ask, wait, terminate, kill: a stop that the worker does not carry out is carried out here."""
        if not run.asked():  # or not any more: the run was let go on since
            self._stop_asked.pop(run.id, None)
            return
        asked = self._stop_asked.setdefault(run.id, time.monotonic())
        if run.status().stage == "saving" and (run.heartbeat_age_s() or 0.0) < FRESH_S:
            return  # a large adapter on a slow disk
        waited = time.monotonic() - asked
        if waited > KILL_AFTER_S or run.status().state == State.QUEUED:  # still importing: nothing to save
            kill_tree(pid)
        elif waited > TERMINATE_AFTER_S:
            psutil.Process(pid).terminate()
