"""The run doctor's findings about runs, for all pages; computed again when a run has a new number."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.advice import curve_doctor
from core.advice.diagnosis import Diagnosis
from core.errors import GarageError
from core.recipe import Recipe
from core.runs.states import BUSY
from webui.state.curves import Curves
from webui.state.snapshot import RunView


@dataclass
class Diagnoses:
    """The run doctor's first finding for each run, cached until the run has a new number."""

    curves: Curves
    _kept: dict[str, tuple[object, Diagnosis | None]] = field(default_factory=dict)

    def diagnose(self, view: RunView | None) -> Diagnosis | None:
        """Return the doctor's first finding on a run, computed again only if its files changed. None without one,
        without a run, or if its files are unreadable."""
        if view is None or view.recipe is None:
            return None
        try:
            stamp = self._stamp(view)
            cached = self._kept.get(view.row.id)
            if cached is None or cached[0] != stamp:
                return self.curves.whole_curves.submit(self._compute, view, view.recipe).result()
        except (GarageError, OSError):
            return None
        return cached[1]

    def _stamp(self, view: RunView) -> tuple[tuple[int, int, int], bool]:
        """Return a value that changes when the finding may."""
        return (self.curves.stamp(view.row.id), view.row.status.state in BUSY)

    def _compute(self, view: RunView, recipe: Recipe) -> Diagnosis | None:
        """Return the finding, computed unless another thread just did. Raises GarageError or OSError if the run is
        gone."""
        run_id, stamp = view.row.id, self._stamp(view)
        cached = self._kept.get(run_id)
        if cached is None or cached[0] != stamp:
            series = self.curves.series(run_id, view.facts.rows_measured or 0)
            findings = curve_doctor.of_run(recipe, series, stamp[1], view.facts.planned.usual_rate)
            cached = self._kept[run_id] = (stamp, findings[0] if findings else None)
        return cached[1]
