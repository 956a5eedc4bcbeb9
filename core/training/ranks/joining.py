"""Joins the other ranks of a run: rank 0 connects to them and lets them load the base. No torch at the top."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.models import weights
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.training.ranks.meeting import MEETING, connection_error, is_rank

if TYPE_CHECKING:
    from core.training.ranks.group import Ranks


@contextmanager
def joined(run: RunFolder, reporter: Reporter) -> Iterator[Ranks | None]:
    """Context manager: connect rank 0 to the run's other ranks and yield them; None for a run of one rank. The group is
    ended afterwards. Raises RunError if they do not come."""
    reporter.set_ranks(())  # those of an earlier attempt
    if not is_rank():
        with suppress(OSError):
            (run.path / MEETING).unlink(missing_ok=True)  # of an attempt on several that was killed
        yield None
        return
    import torch

    from core.training.ranks.group import Ranks

    reporter.set_stage("waiting_for_ranks")
    try:
        ranks = Ranks.from_environment(torch.cuda.is_available(), run.path / MEETING)
    except RuntimeError as error:  # torch's: a store or a connection without an answer
        raise connection_error(error) from error
    ranks.report_use, ranks.report_decision = (
        reporter.set_ranks,
        lambda message: run.log_event("decision", message=message),
    )
    try:
        yield ranks
    finally:
        ranks.end()


def shared_step(ranks: Ranks, recipe: Recipe, model_folder: Path, dtype: str, pad_token_id: int) -> dict[str, Any]:
    """Send the recipe, dtype and pad token to the other ranks, which load the base with them, and wait until all have
    these; return {"make_step": ...}, the Trainer's argument that creates a shared step. Raises RunError if library
    versions differ."""
    from core.training.ranks.step import SharedStep

    ranks.meet(recipe=recipe.model_dump(mode="json"), dtype=dtype, pad_token_id=pad_token_id)
    return {"make_step": partial(SharedStep.on, ranks, weights.sampled_fingerprint(model_folder))}
