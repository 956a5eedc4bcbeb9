"""The goals a person can choose, and what LoRA is and is not good for: presets/goals/<id>.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import yaml

from core.data.findings.row_words import RowWords, Words
from core.data.shapes.roles import words_of
from core.errors import RecipeError
from core.presets import PRESETS
from core.recipe import Format

MAX_ROWS = 2000  # of a set whose goal is looked for
_WORDINGS, _WORDS = 3, 4  # questions for each fact; words of an answer that is no label


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


def goal_shown_by(format: Format, rows: Sequence[tuple[int, Words]]) -> str | None:
    """Return the id of the goal that a data set's rows show: "classification" for rows with labels; the goal that
    learns rows by heart if each answer occurs three times on average and is no short label. None for others, and for
    unlabelled sets of more than MAX_ROWS rows."""
    if format == "text_label":
        return "classification"
    if not 0 < len(rows) <= MAX_ROWS:
        return None
    answers = [RowWords(number, example).answer for number, example in rows]
    words = sum(len(words_of(answer)) for answer in answers)
    repeats = _WORDINGS * len({*answers}) <= len(answers) and words >= _WORDS * len(answers)
    return next(goal.id for goal in goals() if goal.learns_rows) if repeats else None
