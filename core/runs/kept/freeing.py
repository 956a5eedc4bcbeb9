"""Deletion of a finished run's checkpoints, and which runs depend on a run."""

from __future__ import annotations

import shutil

from filelock import Timeout

from core import files
from core.errors import BusyError, RunError
from core.files import writing
from core.runs.all import LOCK_S, Runs
from core.runs.folder import RunFolder
from core.runs.states import TERMINAL, may_resume


def spare_bytes(run: RunFolder) -> int:
    """Return the bytes that `drop_checkpoints` would free; 0 if the checkpoints are still needed."""
    if not _is_over(run):
        return 0
    return files.bytes_in(run.path / "checkpoints")


def _is_over(run: RunFolder) -> bool:
    """Return whether a run has ended with an adapter and cannot be resumed."""
    state = run.status().state
    return state in TERMINAL and not may_resume(state) and run.has_adapter()


def drop_checkpoints(run: RunFolder) -> None:
    """Delete the checkpoints of a run that has ended with an adapter and cannot be resumed.

    Raises RunError for any other run, BusyError while a process has it.
    """
    if not _is_over(run):
        raise RunError("run.checkpoints_needed", name=run.name)
    aside = run.path / ".checkpoints.deleted"
    with writing(run.path):
        try:
            with run.lock().acquire(timeout=LOCK_S):
                files.remove_tree(aside)  # left by an interrupted call
                files.rename(run.path / "checkpoints", aside, files.MOMENT_S)
                (run.path / "checkpoints").mkdir()
                shutil.rmtree(aside)
        except Timeout:
            raise BusyError("run.already_training", name=run.name) from None


def continued_by(runs: Runs, run: RunFolder) -> list[str]:
    """Return the names of the runs that continue this one; each has a copy of the adapter that it started from."""
    facts = ((other, other.facts().parent) for other in runs.list())
    return [other.name for other, parent in facts if parent and parent.run == run.id]
