"""The loss on the rows kept apart. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from core.data.many.columns import AT_ONCE
from core.data.row_order import packed
from core.data.sets.pieces import lengths_of
from core.engine.step import Rows, Step
from core.progress import Progress
from core.recipe import Recipe
from core.runs.reporter import Reporter


class Evaluation:
    """rows: kept apart. Stop and Pause are heard between two batches."""

    def __init__(self, step: Step, rows: Rows, recipe: Recipe, reporter: Reporter):
        self._step, self._rows, self._recipe, self._reporter = step, rows, recipe, reporter

    def loss(self) -> float | None:
        """Mean over their learned tokens, or over pairs; None where none are kept apart."""
        if not self._rows:
            return None
        self._step.tuned.eval()
        self._step.told()
        loss_sum, counted, done = 0.0, 0, 0
        for chosen in self._batches():
            self._reporter.stage("measuring", Progress(done=done, total=len(self._rows), unit="rows"))
            self._reporter.check()
            done += len(chosen)
            loss, count = self._measure(chosen)
            loss_sum, counted = loss_sum + loss, counted + count
        return loss_sum / counted

    def rehearse(self) -> None:
        """The largest batch, thrown away."""
        if self._rows:
            lengths = lengths_of(self._rows)
            self._step.tuned.eval()
            self._measure(max(self._batches(), key=lambda chosen: max(int(lengths[i]) for i in chosen) * len(chosen)))

    def _measure(self, chosen: Sequence[int]) -> tuple[float, int]:
        rows = [self._rows[i] for i in chosen]
        return self._step.measure_pairs(rows) if self._step.preference else self._step.measure(rows)

    def _batches(self) -> Iterator[list[int]]:
        return batches_of(self._step, self._rows, self._recipe)


def batches_of(step: Step, rows: Rows, recipe: Recipe) -> Iterator[list[int]]:
    """Positions in rows, no more at once than in training, which the plan has reckoned with; what lies on disk is read when it is
    computed."""
    train, lengths = recipe.train, lengths_of(rows)
    size = min(train.per_device_eval_batch_size, train.per_device_train_batch_size)
    for begin in range(0, len(lengths), AT_ONCE):
        some = range(begin, min(begin + AT_ONCE, len(lengths)))
        if step.packed:
            whole = packed(some, lengths, size * recipe.row_length)
        else:
            order = (np.argsort(np.asarray(lengths[begin : some.stop]), kind="stable") + begin).tolist()
            whole = [order[start : start + size] for start in range(0, len(order), size)]
        for batch in whole:
            yield from step.retreat.parts(batch, lengths)
