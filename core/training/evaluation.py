"""The loss on the rows kept apart. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.data.labels import Encoded
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
        """Mean over their learned tokens; None where none are kept apart."""
        if not self._rows:
            return None
        self._step.tuned.eval()
        loss_sum, learned, done = 0.0, 0, 0
        for rows in self._batches():
            self._reporter.stage("measuring", Progress(done=done, total=len(self._rows), unit="rows"))
            self._reporter.check()
            done += len(rows)
            loss, count = self._step.measure(rows)
            loss_sum, learned = loss_sum + loss, learned + count
        return loss_sum / learned

    def rehearse(self) -> None:
        """The largest batch, thrown away."""
        if self._rows:
            self._step.tuned.eval()
            self._step.measure(max(self._batches(), key=lambda rows: max(len(row.input_ids) for row in rows) * len(rows)))

    def _batches(self) -> Iterator[list[Encoded]]:
        """One after the other: what lies on disk is read when it is computed."""
        train = self._recipe.train
        size = min(train.per_device_eval_batch_size, train.per_device_train_batch_size)
        lengths = lengths_of(self._rows)
        if self._step.packed:  # no more at once than in training, which the plan has reckoned with
            whole = packed(range(len(lengths)), lengths, size * self._recipe.data.max_length)
        else:
            order = np.argsort(np.asarray(lengths), kind="stable").tolist()
            whole = [order[start : start + size] for start in range(0, len(order), size)]
        for batch in whole:
            yield from self._step.parts([self._rows[i] for i in batch])
