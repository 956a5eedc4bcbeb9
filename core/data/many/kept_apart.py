"""The split into training and validation rows, decided by row number and seed. No torch."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.data.formats import Example
from core.data.many.columns import AT_ONCE, Column
from core.data.repeats import Repeats
from core.recipe import Recipe

SMALLEST_SPLIT = 20  # rows; below it all are trained


def held(rows: int, eval_fraction: float) -> int:
    """How many are kept apart; of fewer than 20 none."""
    if rows < SMALLEST_SPLIT or eval_fraction <= 0:
        return 0
    return max(2, round(rows * eval_fraction))


def split(rows: int, eval_fraction: float, seed: int, folder: Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for measuring, both in file order. Fewer than 20 rows are all trained. folder:
    core/data/many/columns."""
    is_held, parts = _drawn(rows, held(rows, eval_fraction), random.Random(seed)), []
    for wanted in (False, True):
        column = Column(np.int64, folder)
        for start in range(0, rows, AT_ONCE):
            column.append(np.flatnonzero(is_held[start : start + AT_ONCE] == wanted) + start)
        parts.append(column.read())
    return parts[0], parts[1]


def parted(
    count: int, recipe: Recipe, repeats: Repeats | None, folder: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a recipe's rows for training and for validation, without repeated ones where it removes them and
    `repeats` are given."""
    data, seed = recipe.data, recipe.train.seed
    if not data.deduplicate or repeats is None:
        return split(count, data.eval_fraction, seed, folder)
    rows = np.flatnonzero(repeats.first == np.arange(count))
    training, measuring = split(len(rows), data.eval_fraction, seed)
    return rows[training], rows[measuring]


def rows_apart(examples: Sequence[Example], recipe: Recipe) -> np.ndarray:
    """Positions of those that a run of recipe keeps apart for validation."""
    return parted(len(examples), recipe, Repeats.of(examples) if recipe.data.deduplicate else None)[1]


def _drawn(rows: int, count: int, chance: random.Random) -> np.ndarray:
    """(R,) whether `random.sample` would have drawn it, with one byte a row where that takes up to a hundred."""
    is_drawn = np.zeros(rows, bool)
    if rows <= 21 + (4 ** math.ceil(math.log(count * 3, 4)) if count > 5 else 0):
        pool = array("i", range(rows))
        for drawn in range(count):
            at = chance.randrange(rows - drawn)
            is_drawn[pool[at]], pool[at] = True, pool[rows - drawn - 1]
    else:
        while count:
            at = chance.randrange(rows)
            count -= not is_drawn[at]
            is_drawn[at] = True
    return is_drawn
