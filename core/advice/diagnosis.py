"""A finding of the run doctor: the problem, its evidence, and the one remedy."""

from __future__ import annotations

from typing import Literal

from core.messages import Message
from core.recipe import Recipe
from core.values import Frozen

PlanFinding = Literal["few_rows", "duplicates", "leakage", "near_leakage", "other_language", "few_steps", "hot_plan"]
RunFinding = Literal["hot_rate", "overfitting", "plateau", "displaced", "longer", "told_apart"]
LISTED = 5  # pairs of rows


class Diagnosis(Frozen):
    """A finding of the run doctor.

    evidence: the observation, with its numbers. meaning: why it is bad. remedy: the text of its button. fix: changes of
    the recipe (for a run: of a new one), by "section.name". action: more_data asks for other data, other_model for
    another base model; stop ends an active run and keeps its best checkpoint. rows: numbers in the file. step: the
    first one.
    """

    id: PlanFinding | RunFinding
    evidence: Message
    meaning: Message
    remedy: Message
    fix: dict[str, object] = {}
    action: Literal["more_data", "other_model", "stop"] | None = None
    rows: tuple[int, ...] = ()
    step: int | None = None


def applied(recipe: Recipe, finding: Diagnosis) -> Recipe:
    """Return recipe with the finding's settings (`fix`) in place of its own. Raises RecipeError if they are
    impossible."""
    value = recipe.model_dump(mode="json", exclude_unset=True)
    for name, setting in finding.fix.items():
        section, key = name.split(".")
        value.setdefault(section, {})[key] = setting
    return Recipe.parse(value)


def listed(pairs: list[Message], total: int) -> list[Message | str]:
    """Return pairs, and "…" after them if the total is higher."""
    return [*pairs, "…"] if total > len(pairs) else [*pairs]
