"""The worker's only output: state, progress, metrics and events in its run folder; and its input: commands.

A watch thread polls control.json. While there is nothing to save yet (download, load, tokenizing) it ends the process
itself if the main thread does not respond in time, so that Stop works within two seconds in libraries that cannot be
interrupted.
"""

from __future__ import annotations

import os
import threading
import time

from core.errors import PauseRequested, StopRequested
from core.messages import Message
from core.progress import Progress, RankUse
from core.runs import ended
from core.runs.ended import EndFacts, How
from core.runs.folder import RunFolder, Status
from core.runs.process import Launcher
from core.runs.states import MOVES, State
from core.system.job import Job

GRACE_S = 1.0  # time for the main thread to notice a stop while there is nothing to save
HEARTBEAT_S = 2.0
# exit status of the process, by how its run ended
EXIT = {State.COMPLETED: 0, State.FAILED: 1, State.STOPPED: 3, State.PAUSED: 4}


class Reporter(Job[Status]):
    """The only writer of state.json while run.lock is held."""

    def __init__(self, run: RunFolder, launcher: Launcher | None = None):
        """Begin with the run's stored status and the id of this process; nothing is written before the first state.
        launcher: looked at with each heartbeat."""
        super().__init__(run.status().model_copy(update={"pid": os.getpid()}))
        self.run, self._launcher = run, launcher
        self._stop, self._pause = threading.Event(), threading.Event()
        self._nothing_to_save = True
        self._requested_at = self._beat_at = 0.0

    # ---- out ------------------------------------------------------------------------------------------------------
    def _write(self, status: Status) -> None:
        """Write the status to state.json. Raises RunError for a transition that is not in the table of states."""
        self.run.write_status(status)

    def set_state(
        self, state: State, message: Message | None = None, advice: Message | None = None, **changes: object
    ) -> None:
        """Write a new state with its time and whether the run has an adapter, and log it.

        message and advice replace the old ones, also by None; changes: further fields of Status. Raises StopRequested
        instead, writing nothing, for RUNNING or PAUSED if the state is STOPPING; PauseRequested for RUNNING if it is
        PAUSING.
        """
        changes |= {"has_adapter": self.run.has_adapter()}
        with self._guard:
            if state in (State.RUNNING, State.PAUSED) and self._status.state == State.STOPPING:
                raise StopRequested
            if state == State.RUNNING and self._status.state == State.PAUSING:
                raise PauseRequested
            self._put(state=state, since=time.time(), message=message, advice=advice, **changes)
        self.run.log_event("state", state=state.value, message=message)

    def end(self, how: How) -> int:
        """Write the run's end (core/runs/ended), log it and return the exit status; a stop keeps the newest
        checkpoint's adapter. Raises StopRequested for a pause followed by Stop."""
        if how == "stop":
            self.run.keep_newest_checkpoint()
        with self._guard:
            status = ended.ending(self._status, how, EndFacts.from_run(self.run), time.time())
            if status.state == State.PAUSED and self._status.state == State.STOPPING:
                raise StopRequested
            announced = {State.PAUSED: State.PAUSING, State.STOPPED: State.STOPPING}.get(status.state)
            if announced and status.state not in MOVES[self._status.state]:
                # the command was received, but is not stored yet
                self.set_state(announced)
            self._put(**dict(status))
        self.run.log_event("state", state=status.state.value, message=status.message)
        return EXIT[status.state]

    def set_stage(self, stage: str, progress: Progress | None = None) -> None:
        """Set the current stage, a catalogue key `stage.<stage>`, and its progress; log a new stage as an event."""
        if stage != self._status.stage:
            self.run.log_event("stage", stage=stage)
        self._progress(stage=stage, progress=progress)

    def set_progress(
        self, step: int, total_steps: int, seconds_left: float | None, seconds_total: float | None = None
    ) -> None:
        """Write the progress. seconds_total: of the whole training in this attempt, including seconds_left."""
        self._progress(step=step, total_steps=total_steps, seconds_left=seconds_left, seconds_total=seconds_total)

    def set_awake(self, how: Message) -> None:
        """Note in state.json how the PC is kept awake."""
        self._progress(awake=how)

    def set_ranks(self, in_use: tuple[RankUse, ...]) -> None:
        """Put what each rank has in use into the status; () for a run of one rank."""
        self._progress(ranks=in_use)

    def warn(self, message: Message) -> None:
        """Log a warning event of the run; its state stays as it is."""
        self.run.log_event("warning", message=message)

    def metrics(self, kind: str, step: int, **numbers: float | int | None) -> None:
        """Append a line of numbers of this attempt to metrics.jsonl. kind: train, eval or gpu."""
        self.run.log_metrics(kind, self._status.attempt, step, **numbers)

    # ---- in -------------------------------------------------------------------------------------------------------
    def check(self) -> None:
        """Raise StopRequested or PauseRequested once it was requested; Stop wins. To be called between sub-steps."""
        if self._stop.is_set():
            raise StopRequested
        if self._pause.is_set():
            raise PauseRequested

    @property
    def stop_requested(self) -> bool:
        """Return whether Stop was requested; this one raises nothing, unlike `check`."""
        return self._stop.is_set()

    def has_something_to_save(self) -> None:
        """Note that the adapter must be saved from now on: a requested stop or pause then waits for the main thread,
        where it would otherwise end the process after GRACE_S."""
        self._nothing_to_save = False

    def _poll(self, now: float) -> None:
        """Take over a requested stop or pause, exit if one is not carried out within GRACE_S while nothing is to be
        saved, and touch run.lock as the heartbeat."""
        command = self.run.requested()
        if command == "stop":
            self._receive(self._stop, State.STOPPING, now)
        elif command == "pause":
            self._receive(self._pause, State.PAUSING, now)
        is_requested = self._stop.is_set() or self._pause.is_set()
        if is_requested and self._nothing_to_save and now - self._requested_at > GRACE_S:
            self._exit_now()
        if now - self._beat_at > HEARTBEAT_S:
            self._beat_at = now
            os.utime(self.run.path / "run.lock")
            if self._launcher:
                self._launcher.look()

    def _receive(self, request: threading.Event, state: State, now: float) -> None:
        """Set the event of a stop or pause request and note when it came first; write state as the run's state where
        the table of states allows it now. Called at each poll."""
        if not request.is_set():
            self._requested_at = now
            request.set()
        # Repeated on every poll: a full disk may have prevented storing it.
        with self._guard:
            if state in MOVES[self._status.state]:
                self.set_state(state)

    def _exit_now(self) -> None:
        """Write the end, stopped or paused, and end the process, whatever its main thread is doing: there is nothing to
        lose."""
        stopped = self._stop.is_set()
        try:
            self.end("stop" if stopped else "pause")
        finally:
            os._exit(EXIT[State.STOPPED if stopped else State.PAUSED])
