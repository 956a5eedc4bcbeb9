"""Ask the advice as a person would: what was chosen by the short names, all else left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from core.advice import recommend as advice
from core.advice.case import Advice, Grounds, open_recipe
from core.advice.decisions import SETTINGS, with_settings
from core.advice.goals import Goal
from core.data.facts import DataFacts
from core.memory.budget import Budget
from core.memory.record import Corrections
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe


def recipe_of(goal: Goal | None = None, **chosen: Any) -> Recipe:
    """Return a recipe that sets only goal and `chosen` and leaves all else to the advice. eval_fraction, long_examples:
    settings of its data."""
    recipe = with_settings(
        open_recipe(goal.id if goal else None), **{name: chosen[name] for name in chosen if name in SETTINGS}
    )
    more = {name: value for name, value in chosen.items() if name not in SETTINGS}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=more)})


def recommend(
    shape: ModelShape | None,
    budget: Budget,
    data: DataFacts | None = None,
    goal: Goal | None = None,
    chosen: dict[str, Any] | None = None,
    corrections: Corrections | None = None,
    examples: Callable[[int, str], int] | None = None,
) -> Advice:
    return advice.recommend(recipe_of(goal, **(chosen or {})), Grounds(budget, shape, data, corrections, examples))
