"""A finding of the run doctor: what is wrong, how it shows, and the one remedy."""

from __future__ import annotations

from typing import Any, Literal

from core.messages import Message
from core.recipe import Recipe
from core.values import Frozen

PlanFinding = Literal["few_rows", "duplicates", "leakage", "near_leakage", "other_language", "few_steps", "hot_plan"]
RunFinding = Literal["hot_rate", "overfitting", "plateau", "displaced", "longer", "told_apart"]
LISTED = 5  # pairs of rows


class Diagnosis(Frozen):
    """evidence: what was seen, with its numbers. meaning: why that is bad. remedy: what the button does, in its words.

    fix: what it changes in the recipe (of a run: in that of a new one), by "section.name". action: more_data asks for
    other data, other_model for another base model; stop ends a run that is at work, and keeps its best checkpoint.
    rows: numbers in the file. step: from which on.
    """

    id: PlanFinding | RunFinding
    evidence: Message
    meaning: Message
    remedy: Message
    fix: dict[str, Any] = {}
    action: Literal["more_data", "other_model", "stop"] | None = None
    rows: tuple[int, ...] = ()
    step: int | None = None


def applied(recipe: Recipe, finding: Diagnosis) -> Recipe:
    """recipe with what the finding changes. Raises RecipeError where that cannot be."""
    value = recipe.model_dump(mode="json", exclude_unset=True)
    for name, setting in finding.fix.items():
        section, key = name.split(".")
        value.setdefault(section, {})[key] = setting
    return Recipe.parse(value)


def listed(pairs: list[Message], of: int) -> list[Message | str]:
    return [*pairs, "…"] if of > len(pairs) else [*pairs]
