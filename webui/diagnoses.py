"""What the run doctor finds in the curves of runs, for all pages: worked out anew when there is a new number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from core import run_doctor
from core.errors import GarageError
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
        at_work = view.row.status.state in BUSY
        try:
            series = self.curves.series(view.row.id, run_doctor.measured_rows(view.facts))
        except (GarageError, OSError):
            return None
        stamp = (len(series.steps), series.steps[-1:].sum(), len(series.eval_steps), at_work)
        kept = self._kept.get(view.row.id)
        if kept is None or kept[0] != stamp:
            found = run_doctor.of_run(view.recipe, series, at_work, run_doctor.usual_rate(view.facts))
            kept = self._kept[view.row.id] = (stamp, found[0] if found else None)
        return kept[1]
