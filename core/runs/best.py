"""Early stopping and the best checkpoint, by validation loss or held-out reward. No torch."""

from __future__ import annotations

import math
from typing import Protocol

from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts

MIN_PATIENCE = 3  # measurements; two without improvement may be chance
SHARE = 0.4  # of all measurements, for frequent ones, of which three are soon over


def patience(recipe: Recipe, total_steps: int, eval_every: int, rows: int) -> int:
    """Return how many measurements in a row without a better one end a run: the recipe's setting, else a share of all
    measurements; 0, also without a validation set, disables early stopping.

    rows: size of the validation set.
    """
    setting = recipe.train.early_stopping_patience
    if not rows or setting == 0:
        return 0
    return setting or max(MIN_PATIENCE, math.ceil(SHARE * total_steps / eval_every))


def to_keep(run: RunFolder, recipe: Recipe, best: str | None, since: int) -> str | None:
    """Return the name of the best checkpoint if it should become the run's adapter, or None for the last state.

    None if the recipe keeps the last state, if that checkpoint is gone, or if the last measurement was the best: the
    last state is that one, or has trained a little more since. since: measurements after the best one.
    """
    if not recipe.train.load_best_model_at_end or since == 0:
        return None
    return best if best in [folder.name for folder in run.checkpoints()] else None


class BestSoFar(Protocol):
    """The best evaluation of a run: its loss, or its reward in a training by rewards, and its checkpoint."""

    best_eval_loss: float | None
    best_reward: float | None
    best_checkpoint: str | None


def take_over(best: BestSoFar, value: float, is_reward: bool) -> bool:
    """Take over the value of an evaluation, a reward or a loss, if it is the best so far; return whether it is."""
    before = best.best_reward if is_reward else best.best_eval_loss
    if not math.isfinite(value) or (before is not None and (value <= before if is_reward else value >= before)):
        return False
    if is_reward:
        best.best_reward = value
    else:
        best.best_eval_loss = value
    return True


def facts_of(best: BestSoFar) -> RunFacts:
    """Return what run.json keeps of the best checkpoint."""
    return RunFacts(
        best_checkpoint=best.best_checkpoint, best_eval_loss=best.best_eval_loss, best_reward=best.best_reward
    )


def step_of(checkpoint: str) -> int:
    """Return the step in a checkpoint's name: 120 for checkpoint-000120."""
    return int(checkpoint.rsplit("-", 1)[-1])
