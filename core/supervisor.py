"""The background thread that drives the trainer: takes the next queued run, starts its worker, watches it.

It holds no run state that a restart would lose: everything is read from the run folders. It never trains.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from core.child import device_environment, is_ours, kill_tree, own_group, worker_environment
from core.errors import BusyError, RunError
from core.recipe import Recipe
from core.run_folder import RunFolder, Status
from core.runs import Runs, dropped, interrupted
from core.states import ACTIVE, BUSY, MOVES, State, may_pause, may_stop
from core.text import text
from core.workspace import Workspace

POLL_S = 0.25


@dataclass(frozen=True)
class Patience:
    """With a worker that was asked to stop or pause, in seconds since it was asked.

    terminate_s: saving a large adapter to a slow disk may take half of this. While it says that it saves and its
    heartbeat, which comes each two seconds, was seen within fresh_s, it gets saving_s.
    """

    terminate_s: float = 45.0
    kill_s: float = 60.0
    saving_s: float = 600.0
    fresh_s: float = 10.0


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

    def __init__(
        self,
        workspace: Workspace,
        before_start: Callable[[RunFolder], None] = lambda run: None,
        spawn: Callable[[Workspace, RunFolder], subprocess.Popen] = spawn_worker,
        patience: Patience = Patience(),
    ):
        self.workspace, self.runs = workspace, Runs(workspace)
        self._before_start, self._spawn, self._patience = before_start, spawn, patience
        self._beats: dict[str, tuple[int, float]] = {}  # of a run: its newest heartbeat, and when it was seen (monotonic)
        self._trouble = ""
        self._worker: tuple[RunFolder, subprocess.Popen, int] | None = None  # the number: which attempt it carries out
        self._settled: dict[str, int] = {}
        self._stop_asked: dict[str, float] = {}
        self._submitting = threading.Lock()
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
            worker[0].ask("pause")
            while worker[1].poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    # ---- the thread -----------------------------------------------------------------------------------------------
    def _drive(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - a disk that is full or gone for a moment must not end supervision
                if repr(error) != self._trouble:  # said once, not four times a second
                    traceback.print_exc()
                self._trouble = repr(error)

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
                try:
                    self._settle(run, process.returncode)
                except OSError:  # a full disk: once more at the next look
                    self._worker = (run, process, attempt)
                    raise
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
            self._worker = (run, self._spawn(self.workspace, run), run.status().attempt)
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
        elif status.state in ACTIVE and not run.is_locked():  # locked: an app before this one had started it already
            self._mark_interrupted(run)

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
        waited = time.monotonic() - asked
        if run.status().stage == "saving" and self._beats_still(run) and waited < self._patience.saving_s:
            return  # a large adapter on a slow disk
        if waited > self._patience.kill_s or run.status().state == State.QUEUED:  # still importing: nothing to save
            kill_tree(pid)
        elif waited > self._patience.terminate_s:
            with contextlib.suppress(psutil.Error):  # gone in this moment
                psutil.Process(pid).terminate()

    def _beats_still(self, run: RunFolder) -> bool:
        """Whether a new heartbeat was seen lately. Its own time is not asked: the PC's clock may jump."""
        now, beat = time.monotonic(), run.heartbeat()
        if self._beats.get(run.id, (None, 0.0))[0] != beat:
            self._beats[run.id] = (beat, now)
        return now - self._beats[run.id][1] < self._patience.fresh_s
