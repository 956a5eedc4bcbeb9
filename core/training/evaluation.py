"""The loss on the validation split. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.data.row_order import packed
from core.data.sets.pieces import lengths_of
from core.engine.step import Rows, Step
from core.progress import Progress
from core.recipe import Recipe
from core.runs.reporter import Reporter

ORDERED_AT_ONCE = 20_000  # rows that are put in order together


class Evaluation:
    """Computes the loss on rows, those of the validation split. Stop and Pause take effect between two batches."""

    def __init__(self, step: Step, rows: Rows, recipe: Recipe, reporter: Reporter):
        self._step, self._rows, self._recipe, self._reporter = step, rows, recipe, reporter

    def measure(self) -> float | None:
        """Return the mean loss over the rows' trained tokens, or over pairs, and report progress; None without a
        validation split. Leaves the model in eval mode, and the step's metrics of pairs are those of this evaluation
        alone."""
        if not self._rows:
            return None
        self._step.tuned.eval()
        self._step.reset_pair_metrics()
        loss_sum, count_sum, done = 0.0, 0, 0
        self._reporter.set_stage("measuring", Progress(done=0, total=len(self._rows), unit="rows"))
        batches = ([self._rows[i] for i in chosen] for chosen in batches_of(self._step, self._rows, self._recipe))
        for rows, loss, count in self._step.evaluate_batches(batches, self._reporter.check):
            loss_sum, count_sum, done = loss_sum + loss, count_sum + count, done + rows
            self._reporter.set_stage("measuring", Progress(done=done, total=len(self._rows), unit="rows"))
        return loss_sum / count_sum

    def metrics(self, loss: float, step: int) -> dict[str, float]:
        """Return the metrics of the last evaluation, whose loss this is, and reset those of pairs. step is not used."""
        return {"eval_loss": loss} | {f"eval_{name}": value for name, value in self._step.take_pair_metrics().items()}

    def rehearse(self) -> None:
        """Evaluate the batch with most padded tokens and discard the result, so that lack of memory shows before the
        training."""
        if self._rows:
            lengths = lengths_of(self._rows)
            self._step.tuned.eval()
            largest = max(
                batches_of(self._step, self._rows, self._recipe),
                key=lambda chosen: max(int(lengths[i]) for i in chosen) * len(chosen),
            )
            self._step.evaluate_batch([self._rows[i] for i in largest], compares=True)


def batches_of(step: Step, rows: Rows, recipe: Recipe) -> Iterator[list[int]]:
    """Yield batches as positions in rows, of similar length or packed, no larger than in training, for which the plan
    has memory; split further if memory ran out before. Rows on disk are read when needed."""
    train, lengths = recipe.train, lengths_of(rows)
    size = min(train.per_device_eval_batch_size, train.per_device_train_batch_size)
    for begin in range(0, len(lengths), ORDERED_AT_ONCE):
        some = range(begin, min(begin + ORDERED_AT_ONCE, len(lengths)))
        if step.packed:
            planned = packed(some, lengths, size * recipe.row_length)
        else:
            order = (np.argsort(np.asarray(lengths[begin : some.stop]), kind="stable") + begin).tolist()
            planned = [order[start : start + size] for start in range(0, len(order), size)]
        for batch in planned:
            yield from step.retreat.parts(batch, lengths)
