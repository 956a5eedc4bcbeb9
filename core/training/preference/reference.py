"""The reference of DPO and KTO: the log-probabilities of all answers under the model before the first step. Imports
torch: workers only.

reference.npy, (P, 2) float32: chosen and rejected, of the training pairs followed by the validation pairs. Only the
worker writes it, before its first step, all or nothing. Computed once, by a forward over all pairs; a run that
continues another one has that one's adapter as its reference.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from core import files
from core.data.labels import Encoded
from core.data.sets.pieces import learned_of, lengths_of
from core.engine.loss import token_losses
from core.engine.step import Rows, Step
from core.engine.variants.preference import log_probabilities
from core.errors import RunError
from core.progress import Progress
from core.recipe import Recipe
from core.runs.reporter import Reporter
from core.training.evaluation import batches_of


class Referenced(Sequence[Encoded]):
    """Pairs with their reference log-probabilities, (P, 2), 0 until computed."""

    def __init__(self, rows: Sequence[Encoded]):
        self.rows, self.lengths, self.learned = rows, lengths_of(rows), learned_of(rows)
        self.log_probabilities = np.zeros((len(rows), 2), np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no caller takes a slice
        """Return the pair with its reference log-probabilities."""
        chosen, rejected = self.log_probabilities[index].tolist()
        return replace(self.rows[index], reference=(chosen, rejected))


def fill_reference(
    parts: Sequence[Referenced], step: Step, recipe: Recipe, reporter: Reporter, has_learned: bool
) -> None:
    """Fill each part's log_probabilities: from the file of an earlier attempt, or computed now and written to it. Stop
    and Pause take effect between batches. Raises RunError if the file is unusable and the adapter has_learned
    already."""
    path, done, total = reporter.run.path / "reference.npy", 0, sum(map(len, parts))
    values = _read(path, total)
    if values is None:
        if has_learned:
            raise RunError("run.no_reference", file=path.name)
        step.tuned.eval()
        for part in parts:
            for chosen in batches_of(step, part, recipe):
                reporter.set_stage("reference", Progress(done=done, total=total, unit="rows"))
                reporter.check()
                part.log_probabilities[chosen] = np.reshape(
                    log_probabilities_of(step, [part[i] for i in chosen]), (-1, 2)
                )
                done += len(chosen)
        kept = io.BytesIO()
        np.save(kept, np.concatenate([part.log_probabilities for part in parts]))
        files.replace(path, kept.getvalue())
        return
    for part in parts:
        part.log_probabilities[:] = values[done : done + len(part)]
        done += len(part)


@torch.no_grad()
def log_probabilities_of(step: Step, rows: Rows) -> list[float]:
    """Return the log-probabilities of the answers of pairs, chosen and rejected in turn, without gradients."""
    step.computing = rows
    batch = step.batch(rows)
    values: list[float] = log_probabilities(token_losses(step.tuned, batch, step.head), batch).tolist()
    step.computing = ()
    return values


def _read(path: Path, total: int) -> np.ndarray | None:
    """Return the stored log-probabilities of a file, (total, 2); None if it is missing or damaged, or holds another
    number of rows. The values are not compared with the data."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # missing or damaged
        return None
    return values if values.shape == (total, 2) else None
