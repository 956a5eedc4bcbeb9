"""Runs that a crash, a power cut or the end of the app left half-way, and that a person should be asked about.

`<run>/left.json` {"attempt": n}: the person said to leave it (written by the page; holds for that attempt only).
A run that somebody paused on purpose is not asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

from core import files
from core.errors import RunError
from core.messages import Text, text
from core.runs import checkpoints
from core.runs.folder import RunFolder, Status
from core.runs.states import State

NOT_ASKED_BY_A_PERSON = ("close", "alone")  # RunFolder.ask's `by`


@dataclass(frozen=True)
class LeftRun:
    """saved: the step of the newest good checkpoint, 0 where there is none."""

    id: str
    name: str
    step: int
    saved: int

    @property
    def words(self) -> Text:
        if not self.saved:
            return text("left_runs.nothing_saved", name=self.name, step=self.step)
        if self.step <= self.saved:
            return text("left_runs.nothing_lost", name=self.name, saved=self.saved)
        return text("left_runs.some_again", name=self.name, step=self.step, saved=self.saved, lost=self.step - self.saved)


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
