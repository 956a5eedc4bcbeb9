"""The choice of training and validation rows: split, repeats and leaked rows removed, cut to max_steps. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.data.repeats import Repeats
from core.data.row_order import shuffled
from core.data.sets.paragraphs import Paragraphs, shuffled_stretches
from core.data.validation_split import SMALLEST_SPLIT, split_rows
from core.recipe import Recipe


def needed(recipe: Recipe) -> int | None:
    """Return the number of rows that max_steps need; None if epochs decide."""
    train = recipe.train
    if train.max_steps <= 0:
        return None
    return train.max_steps * train.per_device_train_batch_size * train.gradient_accumulation_steps


@dataclass(frozen=True)
class RowSelection:
    """The positions of the training rows and of the validation rows, in reading order.

    If only some are needed, rows are in random order; of texts, stretches of consecutive rows are.

    enough: number of training rows that the steps need, if fewer. repeated: rows left out as duplicates of earlier
    ones. leaked: training rows left out as duplicates or near-duplicates of validation rows.
    """

    training: np.ndarray
    measuring: np.ndarray
    enough: int | None = None
    repeated: int = 0
    leaked: int = 0

    @property
    def needed_training(self) -> np.ndarray:
        """Return the positions of the first `enough` training rows, which the steps need if each row gives one example;
        all training rows if `enough` is None."""
        return self.training[: self.enough]


def choose(
    count: int,
    recipe: Recipe,
    repeats: Repeats | None = None,
    own: np.ndarray | None = None,
    paragraphs: Paragraphs | None = None,
) -> RowSelection:
    """Choose the training and validation rows of a recipe among `count` rows; return them with the numbers of repeated
    and leaked rows left out. repeats: of these rows; used only if the recipe removes duplicates or leaked rows. own: as
    `own_validation` returns it.

    If max_steps need fewer training rows than there are, all of these stay, but in random order (paragraphs in
    stretches), and `enough` is the number needed. Validation rows are then cut to `enough`, or SMALLEST_SPLIT if that
    is more; of paragraphs to as many stretches.
    """
    data, seed, leaked = recipe.data, recipe.train.seed, 0
    training, measuring = split_rows(count, recipe, repeats, own, paragraphs)
    repeated = count - len(training) - len(measuring)
    if data.drop_leaked and repeats is not None:
        is_leaked = np.isin(repeats.first[training], repeats.first[measuring])
        leaked, training = int(is_leaked.sum()), training[~is_leaked]
    if data.drop_near_leaked and repeats is not None and repeats.near is not None:
        is_near = np.isin(repeats.near[training], repeats.near[measuring])
        leaked, training = leaked + int(is_near.sum()), training[~is_near]
    # After repeats and leaks are gone, or a short run might train some of them.
    enough = needed(recipe)
    if enough is None or enough >= len(training):
        return RowSelection(training, measuring, None, repeated, leaked)
    if paragraphs is not None:
        stretch = paragraphs.stretches(data.max_length)
        training, measuring = (shuffled_stretches(rows, stretch, seed) for rows in (training, measuring))
        # As many whole stretches: each makes at least one example.
        last = np.flatnonzero(np.diff(stretch[measuring], prepend=-1))[max(enough, SMALLEST_SPLIT) :][:1]
        return RowSelection(training, measuring[: last[0]] if len(last) else measuring, enough, repeated, leaked)
    training = training[np.asarray(shuffled(len(training), seed, epoch=0))]
    measuring = measuring[np.asarray(shuffled(len(measuring), seed, epoch=0))][: max(enough, SMALLEST_SPLIT)]
    return RowSelection(training, measuring, enough, repeated, leaked)
