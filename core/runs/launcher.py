"""Whoever started a run, seen from its worker: an app or a command that may end without a word while the run goes on.

run.json names it (launcher_pid, launcher_started). A worker is alone once that process is gone and no app owns the
workspace; an app that starts later finds the worker and watches it, and the worker is not alone any more.
"""

from __future__ import annotations

from core.messages import msg
from core.runs.folder import RunFolder
from core.system import processes
from core.workspace import owner, preferences
from core.workspace.folder import Workspace


class Launcher:
    """Asked by the reporter's watch with each heartbeat, never by the training itself."""

    def __init__(self, run: RunFolder, workspace: Workspace):
        self._run, self._workspace = run, workspace
        facts = run.facts()
        self._process = (facts.launcher_pid, facts.launcher_started)
        self._alone = False

    def look(self) -> None:
        """Write down that the worker is alone now, or is not any more; alone, it pauses where the person chose so."""
        alone = not processes.process_lives(*self._process) and not owner.app_lives(self._workspace)
        if alone == self._alone:
            return
        self._alone = alone
        if not alone:
            self._run.log_event("launcher", message=msg("launcher.back"))
            return
        choice = preferences.read(self._workspace).when_alone
        self._run.log_event("launcher", message=msg(f"launcher.alone_{choice}", pid=self._process[0]))
        if choice == "pause":
            self._run.ask("pause", by="alone")
