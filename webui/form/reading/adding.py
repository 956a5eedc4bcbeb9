"""Files that a person drops, on Train or on Data, become a dataset of theirs."""

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
    def add(self, paths: Sequence[str], choices: Choices = NO_CHOICES, check: Check = go_on) -> tuple[str | None, Html]:
        """What was dropped, as one set: (its id, ""), or (None, what is wrong with it). choices: of the recipe that
        names the file."""
        given = [Path(path) for path in paths]
        try:
            return self._added(given, choices, check)
        except DataError as error:
            return None, notice(f"{self.w.render(error.message)} {self.w.t('wizard.not_added')}")
        finally:
            for path in given:
                path.unlink(missing_ok=True)  # gradio's own copy; ours is in the store

    def _added(self, given: Sequence[Path], choices: Choices, check: Check) -> tuple[str, Html]:
        """Add the files, without choices that they cannot be read by. Raises DataError."""
        store = self.services.datasets
        try:
            return gathered.add(store, given, choices=choices, check=check).id, Html("")
        except DataError as error:
            if choices.chosen:  # which this file cannot be read by
                added, said = self._added(given, NO_CHOICES, check)
                return added, join([notice(self.w.t("brought.not_so", why=self.w.render(error.message)), "warn"), said])
            raise
