"""Early stopping and the best checkpoint, by validation loss. No torch."""

from __future__ import annotations

import math

from core.recipe import Recipe
from core.runs.folder import RunFolder

MIN_PATIENCE = 3  # measurements; two without improvement may be chance
SHARE = 0.4  # of all measurements, for frequent ones, of which three are soon over


def patience(recipe: Recipe, total_steps: int, eval_every: int, rows: int) -> int:
    """Return how many measurements in a row without a better one end a run: the recipe's setting, else a share of all
    measurements; 0 disables early stopping.

    rows: size of the validation set.
    """
    setting = recipe.train.early_stopping_patience
    if not rows or setting == 0:
        return 0
    return setting or max(MIN_PATIENCE, math.ceil(SHARE * total_steps / eval_every))


def to_keep(run: RunFolder, recipe: Recipe, best: str | None, since: int) -> str | None:
    """Return the name of the best checkpoint, if it should become the run's adapter, or None for the last state.

    None if the last measurement was the best: the last state is that one, or has trained a little more since. since:
    measurements after the best one.
    """
    if not recipe.train.load_best_model_at_end or since == 0:
        return None
    return best if best in [folder.name for folder in run.checkpoints()] else None


def step_of(checkpoint: str) -> int:
    return int(checkpoint.rsplit("-", 1)[-1])
