"""How long a pause took, from asking to the device being free: measured, and told on the run's card and in its story.

The worker says it first, with its last words; whoever then sees the process go (an app's supervisor, a command) puts
the whole time in its place. Where nobody watches, the worker's number stays.
"""

from __future__ import annotations

import time

from filelock import Timeout

from core import files
from core.messages import Text, text
from core.runs.folder import RunFolder
from core.runs.states import State

MOST_S = 3600.0  # beyond that a clock has jumped


def seconds_since_asked(run: RunFolder) -> float | None:
    """Of the command in control.json; None where nothing was asked, or where the clock has jumped."""
    record = files.read_json(run.path / "control.json")
    asked = record.get("time") if isinstance(record, dict) else None
    seconds = time.time() - asked if isinstance(asked, int | float) else -1.0
    return seconds if 0 <= seconds <= MOST_S else None


def message(run: RunFolder, step: int) -> Text:
    seconds = seconds_since_asked(run)
    return text("run.paused", step=step) if seconds is None else text("pausing.paused", step=step, seconds=f"{seconds:.1f}")


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
                run.log_event("device_free", message=text("pausing.device_free", seconds=told.params["seconds"]))
    except (Timeout, OSError):  # the worker's own number stays
        return
