"""The other ranks of a run, as its worker sees them: none, those of this PC, or of several. No torch at the top."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.system.linked import Gathering
from core.training.ranks.helpers import MEETING, Ranks, environments


@contextmanager
def started(recipe: Recipe, run: RunFolder, reporter: Reporter) -> Iterator[Ranks | None]:
    """Start them, so that they import their libraries meanwhile; None for a run of one rank. Waits for the other PCs,
    if the run has any."""
    gathering = Gathering.taken()
    reporter.ranks(())  # those of an earlier attempt
    if gathering is None and recipe.train.ranks == 1:
        with suppress(OSError):
            (run.path / MEETING).unlink(missing_ok=True)  # of an attempt on several that was killed
        yield None
        return
    ranks = Ranks(run.path, run.id)
    if gathering:
        from core.training.ranks.machines import RanksOfMachines

        ranks = RanksOfMachines(run, gathering, reporter)
    ranks.tell = reporter.ranks
    ranks.decided = lambda message: run.log_event("decision", message=message)
    try:
        ranks.begin(environments(run, recipe.train.ranks))
        yield ranks
    finally:
        ranks.close()
