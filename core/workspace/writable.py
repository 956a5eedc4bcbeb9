"""Checks that the workspace is writable: with a real file at the start, later repeatedly without one.

A folder becomes unwritable during use when a USB drive or a network share disconnects, when a disk with errors is
remounted read-only, or when a sync tool changes the permissions.
"""

from __future__ import annotations

import os
import threading
import time

from core import files
from core.errors import RecipeError
from core.messages import Message, msg
from core.workspace.folder import Workspace

CHECK_S = 3.0


def require(workspace: Workspace) -> None:
    """Raise RecipeError, before anything begins, if workspace or one of its folders is not writable."""
    for folder in (workspace.root, workspace.runs, workspace.datasets, workspace.models, workspace.exports):
        if reason := files.unwritable_reason(folder):
            raise RecipeError("workspace.cannot_make", folder=folder, reason=reason)


class WriteWatch:
    """Checks the workspace at most every CHECK_S, for all pages. On POSIX it asks the system and writes nothing."""

    def __init__(self, workspace: Workspace):
        self._root = workspace.root
        self._guard = threading.Lock()
        self._looked_at = float("-inf")
        self._problem: Message | None = None

    @property
    def problem(self) -> Message | None:
        """The reason why the workspace cannot be written, checked again if CHECK_S old; None if it can."""
        with self._guard:
            if time.monotonic() - self._looked_at > CHECK_S:
                self._problem, self._looked_at = self._problem_now(), time.monotonic()
            return self._problem

    def _problem_now(self) -> Message | None:
        """Return why the workspace cannot be written now, by trying it on Windows; None if it can."""
        if os.name != "nt" and os.access(self._root, os.W_OK | os.X_OK):
            return None
        reason = files.unwritable_reason(self._root)
        return msg("writable.lost", folder=self._root, reason=reason) if reason else None
