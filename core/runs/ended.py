"""How long a pause took, from asking to the device being free: measured, and told on the run's card and in its story.

The worker says it first, with its last words; whoever then sees the process go (an app's supervisor, a command) puts
the whole time in its place. Where nobody watches, the worker's number stays.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from filelock import Timeout

from core import files
from core.errors import RunError
from core.messages import Message, msg
from core.runs import checkpoints
from core.runs.folder import RunFolder, Status
from core.runs.states import State

MOST_S = 3600.0  # beyond that a clock has jumped


def seconds_since_asked(run: RunFolder) -> float | None:
    """Of the command in control.json; None where nothing was asked, or where the clock has jumped."""
    record = files.read_json(run.path / "control.json")
    asked = record.get("time") if isinstance(record, dict) else None
    seconds = time.time() - asked if isinstance(asked, int | float) else -1.0
    return seconds if 0 <= seconds <= MOST_S else None


def message(run: RunFolder, step: int) -> Message:
    seconds = seconds_since_asked(run)
    return msg("run.paused", step=step) if seconds is None else msg("pausing.paused", step=step, seconds=f"{seconds:.1f}")


def process_is_gone(run: RunFolder) -> None:
    """Call once the worker of a run has ended: where it paused, the device is free only now."""
    status = run.status()
    if status.state != State.PAUSED or status.message is None or status.message.key != "pausing.paused":
        return
    told = message(run, status.step)
    if told.key != status.message.key:
        return
    try:
        with run.lock().acquire(timeout=1):
            if run.status() == status:  # else it was let go on already
                run.write_status(status.model_copy(update={"message": told}))
                run.log_event("device_free", message=msg("pausing.device_free", seconds=told.params["seconds"]))
    except (Timeout, OSError):  # the worker's own number stays
        return


NOT_ASKED_BY_A_PERSON = ("close", "alone")  # RunFolder.ask's `by`


@dataclass(frozen=True)
class LeftRun:
    """saved: the step of the newest good checkpoint, 0 where there is none."""

    id: str
    name: str
    step: int
    saved: int

    @property
    def words(self) -> Message:
        if not self.saved:
            return msg("left_runs.nothing_saved", name=self.name, step=self.step)
        if self.step <= self.saved:
            return msg("left_runs.nothing_lost", name=self.name, saved=self.saved)
        return msg("left_runs.some_again", name=self.name, step=self.step, saved=self.saved, lost=self.step - self.saved)


def left_run(run: RunFolder, status: Status) -> LeftRun | None:
    """run as one to ask about, or None. status: as it really is (Runs.status)."""
    if not _is_left(run, status):
        return None
    good = [folder for folder in run.checkpoints() if checkpoints.is_good(folder)]
    return LeftRun(run.id, run.name, _reached(run, status), int(good[-1].name[-6:]) if good else 0)


def _is_left(run: RunFolder, status: Status) -> bool:
    if status.state == State.PAUSED:
        record = files.read_json(run.path / "control.json")
        if not isinstance(record, dict) or record.get("by") not in NOT_ASKED_BY_A_PERSON:
            return False
    elif status.state != State.INTERRUPTED:
        return False
    dismissed = files.read_json(run.path / "left.json")
    return not isinstance(dismissed, dict) or dismissed.get("attempt") != status.attempt


def _reached(run: RunFolder, status: Status) -> int:
    """state.json is written five times a second at most; metrics.jsonl has every step."""
    size = (run.path / "metrics.jsonl").stat().st_size if (run.path / "metrics.jsonl").exists() else 0
    lines = run.metrics(max(0, size - (8 << 10))).records
    steps = [line["step"] for line in lines if line.get("kind") == "train" and isinstance(line.get("step"), int)]
    return max([status.step, *steps[-1:]])


def leave(run: RunFolder) -> None:
    """Do not ask about this attempt again. Raises RunError where that cannot be written."""
    try:
        files.replace_json(run.path / "left.json", {"v": 1, "attempt": run.status().attempt})
    except OSError as error:
        raise RunError("left_runs.cannot_leave", name=run.name, reason=error.strerror or error) from error
