"""The split into training and validation rows, decided by row number and seed. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from core.data.formats import Example
from core.data.repeats import Repeats
from core.recipe import Recipe

SMALLEST_SPLIT = 20  # rows; below it all are trained
FEW_PAIRS = 50  # with fewer, a preference is mostly memorized


def validation_count(rows: int, eval_fraction: float) -> int:
    """Number of validation rows among so many; 0 of fewer than SMALLEST_SPLIT."""
    if rows < SMALLEST_SPLIT or eval_fraction <= 0:
        return 0
    return max(2, round(rows * eval_fraction))


def split(rows: int, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of training rows and of validation rows, both in file order."""
    is_held = np.zeros(rows, bool)
    is_held[random.Random(seed).sample(range(rows), validation_count(rows, eval_fraction))] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def split_rows(count: int, recipe: Recipe, repeats: Repeats | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of a recipe's training rows and validation rows.

    repeats: of these rows; with them and `deduplicate`, rows that repeat an earlier one are in neither part.
    """
    data, seed = recipe.data, recipe.train.seed
    if not data.deduplicate or repeats is None:
        return split(count, data.eval_fraction, seed)
    rows = np.flatnonzero(repeats.first == np.arange(count))
    training, measuring = split(len(rows), data.eval_fraction, seed)
    return rows[training], rows[measuring]


def validation_rows(examples: Sequence[Example], recipe: Recipe) -> np.ndarray:
    """Return the positions of the rows that a run of this recipe validates on."""
    return split_rows(len(examples), recipe, Repeats.find(examples) if recipe.data.deduplicate else None)[1]
