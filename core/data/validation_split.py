"""The split into training and validation rows, decided by row number and seed. No torch."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from core.data.formats import Example
from core.data.repeats import Repeats
from core.recipe import Recipe

SMALLEST_SPLIT = 20  # rows; below it all are trained


def held(rows: int, eval_fraction: float) -> int:
    """How many are kept apart; of fewer than 20 none."""
    if rows < SMALLEST_SPLIT or eval_fraction <= 0:
        return 0
    return max(2, round(rows * eval_fraction))


def split(rows: int, eval_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for measuring, both in file order. Fewer than 20 rows are all trained."""
    is_held = np.zeros(rows, bool)
    is_held[random.Random(seed).sample(range(rows), held(rows, eval_fraction))] = True
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def parted(count: int, recipe: Recipe, repeats: Repeats | None) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a recipe's rows for training and for validation, without repeated ones where it removes them and
    `repeats` are given."""
    data, seed = recipe.data, recipe.train.seed
    if not data.deduplicate or repeats is None:
        return split(count, data.eval_fraction, seed)
    rows = np.flatnonzero(repeats.first == np.arange(count))
    training, measuring = split(len(rows), data.eval_fraction, seed)
    return rows[training], rows[measuring]


def rows_apart(examples: Sequence[Example], recipe: Recipe) -> np.ndarray:
    """Positions of those that a run of recipe keeps apart for validation."""
    return parted(len(examples), recipe, Repeats.of(examples) if recipe.data.deduplicate else None)[1]
