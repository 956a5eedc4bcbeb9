"""The background thread that drives training: takes the run whose turn it is, starts its worker, watches it.

It holds no run state that a restart would lose: everything is read from the run folders. It never trains itself.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import psutil

from core import files
from core.errors import BusyError, GarageError, RecipeError, RunError
from core.messages import msg
from core.queue.queue import Hold
from core.queue.turns import OTHER, Turns, busy
from core.recipe import Recipe
from core.runs import process as run_process
from core.runs.all import Runs, this_process
from core.runs.ended import EndFacts, Failed, ending
from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts
from core.runs.states import ACTIVE, BUSY, MOVES, State, may_stop
from core.system.processes import is_ours, kill_tree, start_worker
from core.workspace.folder import Workspace

log = logging.getLogger("lora_garage.supervisor")

POLL_S = 0.25
SAME_S = 2.0  # an accidental double press of Start


@dataclass(frozen=True)
class Patience:
    """Limits for a worker that was asked to stop or pause, in seconds since the request.

    terminate_s: saving a large adapter to a slow disk may take half of this. While it reports that it saves and its
    heartbeat, which comes each two seconds, is newer than fresh_s, it gets saving_s.
    """

    terminate_s: float = 45.0
    kill_s: float = 60.0
    saving_s: float = 600.0
    fresh_s: float = 10.0


def spawn_worker(
    workspace: Workspace, run: RunFolder, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    """Start the worker of run on its device and return the process; its output is appended to train.log. environment:
    in addition to that of its device."""
    arguments, variables = ("--workspace", str(workspace.root), run.id), {**run_process.environment(run), **environment}
    with open(run.path / "train.log", "ab") as log:
        return start_worker("core.training.worker", *arguments, log=log, cwd=workspace.root, **variables)


class Supervisor:
    """The supervisor of an app's runs. start() begins the thread, close() pauses the running worker, then ends it."""

    def __init__(
        self,
        workspace: Workspace,
        before_start: Callable[[RunFolder], None] = lambda run: None,
        turns: Turns | None = None,
        spawn: Callable[[Workspace, RunFolder], subprocess.Popen[bytes]] | None = None,
        patience: Patience | None = None,
    ):
        """Prepare the thread. before_start: called with the run just before its worker starts, so that the chat can
        release the device. spawn, patience: replaced in tests."""
        self.workspace, self.runs = workspace, Runs(workspace)
        self.turns = turns or Turns(workspace)
        self.queue = self.turns.queue
        self._before_start, self._spawn, self._patience = before_start, spawn or spawn_worker, patience or Patience()
        # by run id: its newest heartbeat, and when it was first read (monotonic)
        self._beats: dict[str, tuple[int, float]] = {}
        # run, process, number of the attempt
        self._worker: tuple[RunFolder, subprocess.Popen[bytes], int] | None = None
        self._watched: RunFolder | None = None  # a run that an earlier app started
        self._settled: dict[str, tuple[int, ...]] = {}
        self._requested_at: dict[str, float] = {}
        self._submitting = threading.Lock()
        self._trouble = ""
        self._closing, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._drive, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin the thread, with waiting runs held for the user, and remove in the background what interrupted
        deletions left."""
        self.turns.app_started([run.id for run in self.runs.waiting()])
        threading.Thread(target=self.runs.clear, name="clear", daemon=True).start()
        self._thread.start()

    # ---- for pages ------------------------------------------------------------------------------------------------
    def submit(self, recipe: Recipe, facts: RunFacts | None = None, not_before: float | None = None) -> RunFolder:
        """Create and return a run that starts now if nothing else is running, else at its turn in the queue, and not
        before a time (seconds since 1970).

        Raises BusyError for a duplicate, such as an accidental second press of Start.
        """
        with self._submitting, self.queue.locked():
            self._refuse_duplicate(recipe)
            waiting = [run.id for run in self.runs.waiting()]
            now = not_before is None and self._is_free()
            run = self.runs.create(recipe, "app", facts)
            try:
                self.queue.add(run.id, waiting, not_before, now=now)
            except GarageError:  # the user gets an error, so the run must not wait either
                shutil.rmtree(run.path, ignore_errors=True)
                raise
            return run

    def _is_free(self) -> bool:
        """Return whether no other run, game mode or other work prevents a start now."""
        return not self.turns.other.is_at_work() and busy(self.runs) is None and self.queue.read().game is None

    def _refuse_duplicate(self, recipe: Recipe) -> None:
        """Raise BusyError for the same settings and name as a waiting or running run, or for the same settings under
        another name within SAME_S of its creation."""
        for run in self.runs.folders():
            if run.status().state not in BUSY:
                continue
            with contextlib.suppress(RecipeError):
                other = run.recipe()
                is_soon = 0 <= time.time() - run.facts().created < SAME_S
                if other == (recipe.model_copy(update={"name": other.name}) if is_soon else recipe):
                    raise BusyError("queue.same", name=run.name)

    def stop(self, run: RunFolder) -> None:
        """Ask a run to stop and keep its adapter; a queued one is dropped. Raises RunError if it cannot be stopped."""
        state = self.runs.status(run).state
        if not may_stop(state):
            raise RunError("run.not_running", name=run.name, state=msg(f"state.{state.value}"))
        run.request("stop")
        self._requested_at.setdefault(run.id, time.monotonic())

    def pause(self, run: RunFolder) -> None:
        """Ask the run to pause, and note when; a worker that does not obey is ended later. Raises RunError if it cannot
        be paused."""
        self.runs.pause(run)
        self._requested_at.setdefault(run.id, time.monotonic())

    def resume(self, run: RunFolder) -> None:
        """Let a paused, interrupted or failed run continue from its newest checkpoint: now, or as the next in the
        queue.

        A run that game mode had paused continues all the same. Raises BusyError or RunError, with the queue as before.
        """
        with self._submitting, self.queue.locked():
            before = self.queue.read()
            try:
                if before.game and before.game.run == run.id:
                    self.queue.put(game=None, ignore_game=True)
                now, waiting = self._is_free(), [other.id for other in self.runs.waiting()]
                # First the place, which alone starts nothing.
                order = self.queue.add(run.id, waiting, now=now, front=True)
                if order.hold and order.hold.run == run.id:
                    self.queue.put(hold=None)
                self.runs.queue_again(run, "app")
            except GarageError:
                with contextlib.suppress(GarageError):
                    self.queue.change(lambda now: before)
                raise

    def continue_anyway(self) -> None:
        """Suspend game mode until no program needs the device any more, and resume the run that it paused. Raises as
        `resume`."""
        game = self.queue.read().game
        self.queue.put(game=None, ignore_game=True)
        if game and game.run:
            self.resume(self.runs.get(game.run))

    def stay_paused(self) -> None:
        """Let the run that game mode paused stay paused after game mode, and hold the queue for the user if others
        wait."""
        with self.queue.locked():
            order = self.queue.read()
            if (game := order.game) and game.run:
                self.runs.get(game.run).request("pause")
                others = self.runs.waiting() or self.turns.other.waits_since() is not None
                hold = Hold(why="paused", since=time.time(), run=game.run) if others else order.hold
                self.queue.put(game=game.model_copy(update={"run": None}), hold=hold)

    def close(self, wait_s: float = 30.0) -> None:
        """Pause the running worker, also one of an earlier app, start nothing more, wait at most wait_s, end the
        thread. For Ctrl-C in the terminal."""
        self._closing.set()
        deadline = time.monotonic() + wait_s
        worker = self._worker
        if worker and self.runs.status(worker[0]).state in BUSY:
            worker[0].request("pause", by="close")
            while worker[1].poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
        elif adopted := self._adopted():
            adopted.request("pause", by="close")
            pid = adopted.status().pid
            while (adopted.is_locked() or is_ours(pid, adopted.id)) and time.monotonic() < deadline:
                time.sleep(0.1)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _adopted(self) -> RunFolder | None:
        """Return a running run that an earlier app started and this one watches, else None; runs of commands are not
        included."""
        if not self._thread.is_alive():
            return None
        at_work = (run for run in self.runs.folders() if self.runs.status(run).state in ACTIVE)
        return next((run for run in at_work if run.is_of_app), None)

    # ---- the thread -----------------------------------------------------------------------------------------------
    def _drive(self) -> None:
        """Loop of the supervisor's thread until it closes; an error is logged once and the loop goes on."""
        while not self._over.wait(POLL_S):
            try:
                self._look()
                self._trouble = ""
            except Exception as error:  # noqa: BLE001 - a disk full or away for a moment must not end supervision
                if repr(error) != self._trouble:  # log the same error once, not four times a second
                    self._trouble = repr(error)
                    log.exception("the supervisor failed; it continues")

    def _look(self) -> None:
        """Check once: settle workers that have ended, drop waiting runs whose stop or pause was requested, apply game
        mode, and, if no run is at work, start the run or the other work whose turn it is. While the app closes, nothing
        is started."""
        active, is_of_app = self._at_work()
        self._waiting(active)  # drops runs that were asked to stop
        if not self._closing.is_set():
            self.turns.look(active, is_of_app)
            if active is None and (turn := self.turns.next(lambda: self._waiting(None))):
                if turn == OTHER:
                    self.turns.other.begin()
                else:
                    self._begin(self.runs.get(turn))

    def _at_work(self) -> tuple[RunFolder | None, bool]:
        """Settle a worker of ours that has ended, mark one that vanished as interrupted and enforce a requested stop;
        then return the run that is at work, or None, and whether it is this app's."""
        if self._worker:
            run, process, attempt = self._worker
            # False if the run was resumed before this process had ended
            is_current = run.status().attempt == attempt
            if process.poll() is None:
                if is_current:
                    self._escalate(run, process.pid)
                return run, True
            self._worker = None
            if is_current:
                try:
                    self._settle(run, process.returncode)
                except (OSError, GarageError):
                    # a full disk, a locked queue: retried at the next look
                    self._worker = (run, process, attempt)
                    raise
        active = None
        for run, status in self._unsettled():
            if status.state in ACTIVE and self.runs.status(run).state == State.INTERRUPTED:
                self._mark_interrupted(run)
            elif status.state in ACTIVE:
                # a worker that another process or an earlier app started: wait for it
                if status.pid is not None and is_ours(status.pid, run.id):
                    self._escalate(run, status.pid)
                active = active or run
            elif not run.is_of_app and self.runs.status(run).state == State.QUEUED:
                active = active or run  # a running command is about to start it
        if self._watched and (active is None or active.id != self._watched.id):
            self._take_out_of_queue(self._watched)
        self._watched = active if active is not None and active.is_of_app else None
        return active, self._watched is not None

    def _waiting(self, active: RunFolder | None) -> list[str]:
        """Return the ids of the app's runs that wait for their turn, active left out, the longest waiting first. Runs
        that were asked to stop are dropped."""
        waiting = []
        for run, status in self._unsettled():
            if status.state == State.QUEUED and run.is_of_app and not (active and run.id == active.id):
                if run.requested():
                    self._drop(run)
                else:
                    waiting.append(run.id)
        return waiting

    def _unsettled(self) -> list[tuple[RunFolder, Status]]:
        """Return runs with their status that wait or are at work, the longest waiting first. An ended run is read again
        only when its state.json changes."""
        unsettled = []
        for run in self.runs.folders():
            stamp = files.stamp(run.path / "state.json")
            if self._settled.get(run.id) != stamp:
                status = run.status()
                if status.state in BUSY:
                    unsettled.append((run, status))
                elif status.message is None or status.message.key != "run.state_unreadable":
                    # unless unreadable, as while a scanner holds it
                    self._settled[run.id] = stamp
        return sorted(unsettled, key=lambda pair: pair[1].since)

    def _begin(self, run: RunFolder) -> None:
        """Start the run's worker after before_start. A run whose stop was requested is dropped; if nothing can be
        started it fails."""
        if run.requested():
            self._drop(run)
            return
        self._requested_at.pop(run.id, None)
        try:
            self._before_start(run)
            run.add_facts(RunFacts(**this_process()))  # an earlier app may have queued it
            self._worker = (run, self._spawn(self.workspace, run), run.status().attempt)
        except Exception as error:  # noqa: BLE001 - after any error the user must not wait for ever
            log.exception("a worker could not be started")
            reason = getattr(error, "strerror", None) or str(error)
            crashed = Failed(msg("run.cannot_start", reason=reason))
            run.write_status(ending(run.status(), crashed, EndFacts.from_run(run), time.time()))
            self._take_out_of_queue(run)

    def _settle(self, run: RunFolder, exit_code: int) -> None:
        """Write the end of a run whose process has ended, unless the process wrote it itself, and take the run out of
        the queue.

        A run that is still queued has failed, or is dropped if a stop or pause was requested; an active one was
        interrupted.
        """
        self._requested_at.pop(run.id, None)
        status = run.status()
        if status.state == State.QUEUED and run.requested():
            self._drop(run)
        elif status.state == State.QUEUED:
            crashed = Failed(msg("run.never_started", code=str(exit_code)), msg("advice.crashed"))
            run.write_status(ending(status, crashed, EndFacts.from_run(run), time.time()))
        elif status.state in ACTIVE:
            if not run.is_locked():  # else an earlier app had started it already
                self._mark_interrupted(run)
        self._take_out_of_queue(run)

    def _take_out_of_queue(self, run: RunFolder) -> None:
        """Take a run whose worker is gone out of the queue (`Turns.ended`), so that the next one can start; if a person
        paused it while others wait, the queue is held instead. Nothing happens if the run is queued or at work again,
        or the app closes."""
        status = self.runs.status(run)
        if not self._closing.is_set() and status.state not in BUSY:
            self.turns.ended(run, status, [other.id for other in self.runs.waiting() if not other.requested()])

    def _drop(self, run: RunFolder) -> None:
        """Take a run out of the queue without starting it, as `ending` describes: paused if a pause was requested or it
        had begun before, else stopped. An earlier attempt's checkpoints stay."""
        run.write_status(
            ending(run.status(), "pause" if run.requested() == "pause" else "stop", EndFacts.from_run(run), time.time())
        )
        self.queue.forget(run.id)

    def _mark_interrupted(self, run: RunFolder) -> None:
        """Write and log that a run was interrupted, if its state allows that. Raises Timeout while another process has
        it."""
        with run.lock().acquire(timeout=5):
            status = run.status()
            if State.INTERRUPTED in MOVES[status.state]:
                run.write_status(ending(status, "gone", EndFacts.from_run(run), time.time()))
                run.log_event("state", state=State.INTERRUPTED.value)

    def _escalate(self, run: RunFolder, pid: int) -> None:
        """Enforce a requested stop or pause that the worker does not carry out: terminate its process after
        terminate_s, kill it after kill_s, or at once if it has not begun; a worker that saves gets saving_s."""
        if not run.requested():  # or no longer: the run was resumed since
            self._requested_at.pop(run.id, None)
            return
        requested_at = self._requested_at.setdefault(run.id, time.monotonic())
        waited = time.monotonic() - requested_at
        if run.status().stage == "saving" and self._beats_still(run) and waited < self._patience.saving_s:
            return  # a large adapter on a slow disk
        if (
            waited > self._patience.kill_s or run.status().state == State.QUEUED
        ):  # still importing, with nothing to save
            kill_tree(pid)
        elif waited > self._patience.terminate_s:
            with contextlib.suppress(psutil.Error):  # it has just ended
                psutil.Process(pid).terminate()

    def _beats_still(self, run: RunFolder) -> bool:
        """Return whether a new heartbeat was read within fresh_s. Its own time is not used, because the PC's clock may
        jump."""
        now, beat = time.monotonic(), run.heartbeat()
        if self._beats.get(run.id, (None, 0.0))[0] != beat:
            self._beats[run.id] = (beat, now)
        return now - self._beats[run.id][1] < self._patience.fresh_s
