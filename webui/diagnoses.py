"""What the run doctor finds in the curves of runs, for all pages: worked out anew when there is a new number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core import run_doctor
from core.errors import GarageError
from core.recipe import Recipe
from core.run_doctor import Finding
from core.states import BUSY
from webui.curves import Curves
from webui.moment import RunView


@dataclass
class Diagnoses:
    """What is found in the curves of runs, kept until there is a new number."""

    curves: Curves
    _kept: dict[str, tuple[Any, Finding | None]] = field(default_factory=dict)

    def of(self, view: RunView | None) -> Finding | None:
        if view is None or view.recipe is None:
            return None
        try:
            return self.curves.apart.submit(self._of, view, view.recipe).result()
        except (GarageError, OSError):
            return None

    def _of(self, view: RunView, recipe: Recipe) -> Finding | None:
        """Raises GarageError or OSError where there is no such run any more."""
        run_id, at_work = view.row.id, view.row.status.state in BUSY
        stamp = (self.curves.stamp(run_id), at_work)
        kept = self._kept.get(run_id)
        if kept is None or kept[0] != stamp:
            series = self.curves.series(run_id, run_doctor.measured_rows(view.facts))
            found = run_doctor.of_run(recipe, series, at_work, run_doctor.usual_rate(view.facts))
            kept = self._kept[run_id] = (stamp, found[0] if found else None)
        return kept[1]
