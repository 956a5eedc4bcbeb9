"""Adds dropped files, on Train or on Data, as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.data.reading.choices import NO_CHOICES, Choices
from core.data.sets import gathered
from core.errors import DataError
from core.progress import Check, go_on
from webui.kit.html import Html, join, notice
from webui.kit.panel import Panel


class Adding(Panel):
    """Adds dropped files as a dataset; without widgets."""

    def add(self, paths: Sequence[str], choices: Choices = NO_CHOICES, check: Check = go_on) -> tuple[str | None, Html]:
        """Add the files as one dataset and delete gradio's copies. Return (its id, a notice or ""), or (None, the
        error). choices: of the recipe that names the file."""
        files = [Path(path) for path in paths]
        try:
            return self._added(files, choices, check)
        except DataError as error:
            return None, notice(f"{self.w.render(error.message)} {self.w.t('wizard.not_added')}")
        finally:
            for path in files:
                path.unlink(missing_ok=True)  # gradio's copy; ours is in the store

    def _added(self, files: Sequence[Path], choices: Choices, check: Check) -> tuple[str, Html]:
        """Add the files as one dataset and return its id and a notice or "". If they cannot be read by the choices, add
        them without, with a warning. Raises DataError."""
        store = self.services.datasets
        try:
            return gathered.add(store, files, choices=choices, check=check).id, Html("")
        except DataError as error:
            if choices.chosen:  # the file may be unreadable with these choices
                added, message = self._added(files, NO_CHOICES, check)
                return added, join(
                    [notice(self.w.t("brought.not_so", why=self.w.render(error.message)), "warn"), message]
                )
            raise
