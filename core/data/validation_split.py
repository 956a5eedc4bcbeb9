"""The split into training and validation rows: the dataset's own, or by row number and seed. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.data.formats import Example
from core.data.repeats import Repeats
from core.data.sets.paragraphs import Paragraphs
from core.data.sets.stored_rows import Examples, Rows
from core.recipe import Recipe

SMALLEST_SPLIT = 20  # rows; of fewer all are trained
FEW_PAIRS = 50  # with fewer, a preference is mostly memorized


def validation_count(rows: int, eval_fraction: float) -> int:
    """Number of validation rows among so many, at least 2; 0 of fewer than SMALLEST_SPLIT, or for a share of 0."""
    if rows < SMALLEST_SPLIT or eval_fraction <= 0:
        return 0
    return max(2, round(rows * eval_fraction))


def split(rows: int, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw validation rows at random, by the seed alone, and return the positions of the training rows and of the
    validation rows, both in file order. Their number is that of `validation_count`."""
    is_held = np.zeros(rows, bool)
    is_held[random.Random(seed).sample(range(rows), validation_count(rows, eval_fraction))] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def own_validation(rows: Sequence[Any]) -> np.ndarray | None:
    """Return flags (N,), True for each row that the dataset itself keeps for validation. Return None if it keeps none,
    or if rows are not those of a stored dataset: the recipe then decides the split."""
    stored = rows.rows if isinstance(rows, Examples) else rows
    return stored.validation() if isinstance(stored, Rows) else None


def paragraphs_of(rows: Sequence[Any]) -> Paragraphs | None:
    """Return which rows continue the text of the row before; None if none does, or if they are not to be joined."""
    stored = rows.rows if isinstance(rows, Examples) else rows
    return stored.paragraphs() if isinstance(stored, Rows) else None


def split_rows(
    count: int,
    recipe: Recipe,
    repeats: Repeats | None,
    own: np.ndarray | None = None,
    paragraphs: Paragraphs | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of a recipe's training rows and validation rows.

    repeats: of these rows; with them and `deduplicate`, rows that repeat an earlier one are in neither part. own: as
    `own_validation` returns it; then `eval_fraction` takes no others, and of a training and a validation row that are
    the same the validation row stays. paragraphs: as `paragraphs_of` returns it; then stretches of text are drawn, so
    that the rest can be joined.
    """
    data, seed = recipe.data, recipe.train.seed
    if own is not None:
        training, measuring = np.flatnonzero(~own), np.flatnonzero(own)
        if data.deduplicate and repeats is not None:
            # Of repeats the first row each, in the order of the file, which unique alone would not keep.
            measuring = measuring[np.sort(np.unique(repeats.first[measuring], return_index=True)[1])]
            training = training[~np.isin(repeats.first[training], repeats.first[measuring])]
            training = training[np.sort(np.unique(repeats.first[training], return_index=True)[1])]
        return training, measuring
    if paragraphs is not None:
        stretch = paragraphs.stretches(data.max_length)
        # Stretches are drawn, not paragraphs: a single one between trained ones would be known from its neighbours.
        _, held = split(int(stretch[-1]) + 1, data.eval_fraction, seed)
        is_held = np.isin(stretch, held)
        is_chosen = repeats.first == np.arange(count) if data.deduplicate and repeats else np.ones(count, bool)
        return np.flatnonzero(is_chosen & ~is_held), np.flatnonzero(is_chosen & is_held)
    if not data.deduplicate or repeats is None:
        return split(count, data.eval_fraction, seed)
    rows = np.flatnonzero(repeats.first == np.arange(count))
    training, measuring = split(len(rows), data.eval_fraction, seed)
    return rows[training], rows[measuring]


def validation_rows(examples: Sequence[Example], recipe: Recipe) -> np.ndarray:
    """Return the positions of the rows that a run of this recipe validates on."""
    return training_and_validation(examples, recipe)[1]


def training_and_validation(examples: Sequence[Example], recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the rows that a run of this recipe trains on, and of those that it validates on.

    With `deduplicate`, rows that repeat an earlier one are in neither. Rows that the run leaves out later (leaked ones,
    or more than its steps need; core/data/selection) still count as trained.
    """
    repeats = Repeats.find(examples) if recipe.data.deduplicate else None
    return split_rows(len(examples), recipe, repeats, own_validation(examples), paragraphs_of(examples))
