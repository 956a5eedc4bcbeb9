"""The worker's only way out: state, progress, numbers and events into its run folder, and the person's wish back in.

A watch thread polls control.json. While the worker can save nothing yet (download, load, tokenising) it ends the
process by itself when the main thread does not come back in time, so that Stop works within two seconds in libraries
that cannot be interrupted.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from types import TracebackType

from core.errors import GarageError, StopRequested
from core.run_folder import Progress, RunFolder, Status
from core.states import MOVES, State
from core.text import Text, text

POLL_S = 0.15
GRACE_S = 1.0  # how long the main thread may take to notice a stop while there is nothing to save
HEARTBEAT_S = 2.0
STOPPED_EXIT = 3


class Reporter:
    """Use as a context manager around the worker's life; single writer of state.json while run.lock is held."""

    def __init__(self, run: RunFolder, attempt: int = 1):
        self.run = run
        self._guard = threading.RLock()
        self._status = run.status().model_copy(update={"attempt": attempt, "pid": os.getpid()})
        self._stop = threading.Event()
        self._over = threading.Event()
        self._nothing_to_save = True
        self._written = 0.0
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    # ---- out ------------------------------------------------------------------------------------------------------
    @property
    def status(self) -> Status:
        return self._status

    def _put(self, **changes: object) -> None:
        with self._guard:
            status = self._status.model_copy(update=changes)
            self.run.write_status(status)
            self._status = status
            self._written = time.monotonic()

    def state(self, state: State, message: Text | None = None, advice: Text | None = None, **changes: object) -> None:
        """Raises StopRequested instead of beginning to train when a stop was announced at the last moment."""
        changes |= {"has_adapter": self.run.has_adapter()}
        with self._guard:
            if state == State.RUNNING and self._status.state == State.STOPPING:
                raise StopRequested
            self._put(state=state, since=time.time(), message=message, advice=advice, **changes)
        self.run.log_event("state", state=state.value, message=message)

    def stage(self, stage: str, progress: Progress | None = None) -> None:
        """What is going on now, as catalogue key `stage.<stage>`; written at most five times a second."""
        changed = stage != self._status.stage
        if changed:
            self.run.log_event("stage", stage=stage)
        if changed or time.monotonic() - self._written > 0.2:
            self._put(stage=stage, progress=progress)

    def step(self, step: int, total_steps: int, seconds_left: float | None) -> None:
        with self._guard:
            if time.monotonic() - self._written > 0.2 or step == total_steps:
                self._put(step=step, total_steps=total_steps, seconds_left=seconds_left)
            else:
                self._status = self._status.model_copy(update={"step": step, "total_steps": total_steps})

    def warn(self, message: Text) -> None:
        self.run.log_event("warning", message=message)

    def metrics(self, kind: str, step: int, **numbers: float | int | None) -> None:
        self.run.log_metrics(kind, self._status.attempt, step, **numbers)

    # ---- in -------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Call between sub-steps. Raises StopRequested once the person has asked to stop."""
        if self._stop.is_set():
            raise StopRequested

    def has_something_to_save(self) -> None:
        """From here on a stop is the main thread's to carry out, because the adapter must be kept."""
        self._nothing_to_save = False

    def _watch(self) -> None:
        self._asked_at = self._beat_at = 0.0
        while not self._over.wait(POLL_S):
            try:
                self._look(time.monotonic())
            except (OSError, GarageError):  # a full disk must not end the watch: a stop would never be heard again
                traceback.print_exc()

    def _look(self, now: float) -> None:
        if not self._stop.is_set():
            if self.run.asked() in ("stop", "stop-now"):
                self._asked_at = now
                self._stop.set()
                with self._guard:
                    if State.STOPPING in MOVES[self._status.state]:
                        self.state(State.STOPPING)
        elif self._nothing_to_save and now - self._asked_at > GRACE_S:
            try:
                self.state(State.STOPPED, text("run.stopped_before_training"), progress=None, seconds_left=None)
            finally:
                os._exit(STOPPED_EXIT)
        if now - self._beat_at > HEARTBEAT_S:
            self._beat_at = now
            os.utime(self.run.path / "run.lock")
