"""The known models that fit: for each model and method its verdict and the memory it needs. No torch.

Each verdict is for the least demanding training of the model: one row of 512 tokens at a time with gradient
checkpointing, the rest as core.advice.recommend decides it without data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from core.advice import recommend
from core.advice.case import Grounds, Method, Verdict, open_recipe
from core.advice.decisions import with_settings
from core.memory.budget import Budget
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe


@dataclass(frozen=True)
class Fit:
    """The verdict on a model and a method. needed_gib: with its margin."""

    verdict: Verdict
    needed_gib: float


def rounded(budget: Budget) -> Budget:
    """Return budget with its free memory rounded, as a key for cached verdicts.

    Free memory varies all the time, RAM by more than a GPU's. A GPU's is rounded to 0.1 GiB, RAM (from 1 GiB on) down
    to half a GiB, so that a list is not computed anew, with other verdicts, at each look.
    """
    if budget.free_gib is None:
        return budget
    free = (
        math.floor(budget.free_gib * 2) / 2
        if budget.kind == "cpu" and budget.free_gib >= 1
        else round(budget.free_gib, 1)
    )
    return budget.model_copy(update={"free_gib": free})


@lru_cache(maxsize=8192)  # two methods of all models on two dozen cards
def fit(shape: ModelShape, budget: Budget, method: Method) -> Fit:
    """Return whether a model of this shape can be trained with method in budget, at the least demanding settings, and
    the memory that takes. Cached: models of equal shape share it."""
    _, verdict, needs = recommend.fill_memory_settings(_least_demanding(method), Grounds(budget, shape))
    assert needs is not None  # the shape is known
    return Fit(verdict, needs.needed_gib)


@lru_cache(maxsize=4)
def _least_demanding(method: Method) -> Recipe:
    """Return a recipe with this method, a micro-batch of 1 and checkpointing; all else is open."""
    return with_settings(open_recipe(), method=method, per_device_train_batch_size=1, gradient_checkpointing=True)
