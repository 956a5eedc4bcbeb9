"""The goals a person can choose, and what LoRA is and is not good for: presets/goals/<id>.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import yaml

from core.errors import RecipeError
from core.presets import PRESETS


@dataclass(frozen=True)
class Goal:
    """Contents of presets/goals/<id>.yaml: what a model should become better at. Sentences by language.

    suitable: whether LoRA suits it; if not, `instead` names a better way. r_floor: smallest recommended rank.
    learns_rows: the training rows themselves are to be remembered, so the loss on rows that are kept out, which rises
    meanwhile, neither ends a run nor chooses its checkpoint. sample: the data set that shows it. example: one row by
    language, as question and answer. source: section of the document.
    """

    id: str
    order: int
    title: dict[str, str]
    description: dict[str, str]
    why: dict[str, str]
    suitable: bool
    r_floor: int
    source: str
    example: dict[str, dict[str, str]]
    learns_rows: bool = False
    sample: str | None = None
    instead: dict[str, str] | None = None


@lru_cache(maxsize=1)
def goals() -> tuple[Goal, ...]:
    """Return all goals, in the order in which they are offered."""
    files = (PRESETS / "goals").glob("*.yaml")
    all_goals = [Goal(id=file.stem, **yaml.safe_load(file.read_text("utf-8"))) for file in files]
    return tuple(sorted(all_goals, key=lambda goal: goal.order))


def goal_of(goal_id: str) -> Goal:
    """Return the goal with this id. Raises RecipeError that lists the existing ones."""
    if match := next((goal for goal in goals() if goal.id == goal_id), None):
        return match
    raise RecipeError("advise.no_such_goal", found=goal_id[:60], goals=[known.id for known in goals()])
