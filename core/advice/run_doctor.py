"""Problems of a plan before it starts. Pure: reads a recipe and facts about the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.advice.case import USUAL_RATE, Advice
from core.advice.decisions import MIN_STEPS
from core.advice.diagnosis import LISTED, Diagnosis, listed
from core.advice.wish import language_name
from core.data.repeats import Repeats
from core.data.row_order import Schedule
from core.data.selection import RowSelection, choose
from core.data.sets.paragraphs import Paragraphs
from core.data.validation_split import SMALLEST_SPLIT
from core.messages import Message, msg
from core.models.known import with_hub_id
from core.recipe import Recipe

if TYPE_CHECKING:
    from core.data.preview import Preview

# warnings of the advice that are findings here
COVERED_WARNINGS = ("advise.warn_few_steps", "advise.warn_few_max_steps")
REPEATED_SHARE = 0.05  # of the rows; a few duplicates do no harm
OF_MANY = ("ru", "ar", "hi")  # recognized by their script, which other languages use too
TOO_HOT = 10  # times the usual rate; the starter still learns well at ten times (tests/curves/warm.json)


@dataclass(frozen=True)
class Planned:
    """A plan to check.

    recipe: complete. rows: usable ones; steps: of the plan; repeats: None if the rows were not compared. number(i): the
    number in its file of the row at position i. language: code of the answers' language, if recognized. own: which rows
    the dataset itself keeps for validation. paragraphs: of texts, if they are joined.
    """

    recipe: Recipe
    rows: int
    steps: int | None
    repeats: Repeats | None = None
    usual_rate: float = USUAL_RATE
    number: Callable[[int], int] = lambda i: i + 1
    language: str | None = None
    own: np.ndarray | None = None
    paragraphs: Paragraphs | None = None

    @classmethod
    def from_advice(cls, recipe: Recipe, advice: Advice, preview: Preview) -> Planned:
        """Return the plan of a recipe that is filled by advice, with its data's preview."""
        numbers = preview.rows
        usual, number = advice.usual_rate, lambda i: numbers[i][0]
        steps, language = advice.planned_steps, preview.language
        own, paragraphs = preview.validation, preview.paragraphs
        return cls(recipe, len(numbers), steps, preview.repeats, usual, number, language, own, paragraphs)

    def chosen(self) -> RowSelection:
        """Return which rows the recipe trains and which it validates with."""
        return choose(self.rows, self.recipe, self.repeats, self.own, self.paragraphs)

    def pairs(self, positions: Iterable[tuple[int, int]], key: str = "run_doctor.pair") -> list[Message]:
        """Return a message for each pair of positions, by the rows' numbers in the file: "row 7 = row 2"."""
        return [msg(key, row=self.number(row), first=self.number(first)) for row, first in positions]


def before(planned: Planned) -> list[Diagnosis]:
    """Return the problems of a plan, in the order of its steps: the data first."""
    rules = (few_rows, duplicates, leakage, near_leakage, other_language, few_steps, hot_plan)
    return [finding for rule in rules if (finding := rule(planned)) is not None]


def few_rows(planned: Planned) -> Diagnosis | None:
    """Return the finding of data (without repeats that are dropped) too small for a validation set: then nothing tells
    learning from memorizing. None if it suffices, or has validation rows of its own."""
    rows = planned.rows
    if planned.repeats is not None and planned.recipe.data.deduplicate:
        rows -= len(planned.repeats.repeated_positions)
    if rows >= SMALLEST_SPLIT or planned.own is not None:
        return None
    return Diagnosis(
        id="few_rows",
        evidence=msg("run_doctor.few_rows", rows=rows, least=SMALLEST_SPLIT),
        meaning=msg("run_doctor.few_rows_means"),
        remedy=msg("run_doctor.few_rows_remedy"),
        action="more_data",
    )


def other_language(planned: Planned) -> Diagnosis | None:
    """Return the finding of answers in a language that the makers of the base model, a known one, do not name.

    None if they name it, if the model is not known, or if the language is unknown; ru, ar and hi count as unknown, as
    they are recognized by a script that other languages use too.
    """
    model = with_hub_id(planned.recipe.model.id)
    language = None if planned.language in OF_MANY else planned.language
    if model is None or language is None or not model.languages or language in model.languages:
        return None
    names = {"language": language_name(language), "model": model.title}
    return Diagnosis(
        id="other_language",
        evidence=msg("run_doctor.other_language", **names),
        meaning=msg("run_doctor.other_language_means", **names),
        remedy=msg("run_doctor.other_language_remedy", **names),
        action="other_model",
    )


def duplicates(planned: Planned) -> Diagnosis | None:
    """Return the finding of rows that repeat earlier ones, word for word or nearly. None if they are few, are left out
    anyway, or the rows were not compared."""
    repeats = planned.repeats
    if repeats is None or planned.recipe.data.deduplicate:
        return None
    later = repeats.repeated_positions
    if len(later) < max(2, REPEATED_SHARE * len(repeats)):
        return None
    first, exact = later[:LISTED], int(repeats.exact[later].sum())
    return Diagnosis(
        id="duplicates",
        evidence=msg(
            "run_doctor.duplicates",
            count=len(later),
            rows=len(repeats),
            percent=round(100 * len(later) / len(repeats)),
            how=msg("run_doctor.word_for_word") if exact == len(later) else msg("run_doctor.nearly", exact=exact),
            pairs=listed(planned.pairs((int(i), int(repeats.first[i])) for i in first), len(later)),
        ),
        meaning=msg("run_doctor.duplicates_means"),
        remedy=msg("run_doctor.duplicates_remedy", left=len(repeats) - len(later)),
        fix={"data.deduplicate": True},
        rows=tuple(planned.number(int(i)) for i in first),
    )


def leakage(planned: Planned) -> Diagnosis | None:
    """Return the finding of training rows that equal a validation row, in this recipe's own split and steps; None if
    there are none, or the rows were not compared."""
    repeats = planned.repeats
    if repeats is None:
        return None
    chosen = planned.chosen()
    measured = {int(repeats.first[i]): i for i in chosen.measuring.tolist()}
    leaks = [
        (i, measured[first]) for i in chosen.needed_training.tolist() if (first := int(repeats.first[i])) in measured
    ]
    if not leaks:
        return None
    return Diagnosis(
        id="leakage",
        evidence=msg(
            "run_doctor.leakage",
            leaked=len({measured_row for _, measured_row in leaks}),
            measured=len(chosen.measuring),
            pairs=listed(planned.pairs(sorted(leaks)[:LISTED]), len(leaks)),
        ),
        meaning=msg("run_doctor.leakage_means"),
        remedy=msg("run_doctor.leakage_remedy", count=len(leaks)),
        fix={"data.drop_leaked": True},
        rows=tuple(planned.number(i) for i, _ in sorted(leaks)[:LISTED]),
    )


def near_leakage(planned: Planned) -> Diagnosis | None:
    """Return the finding of training rows that nearly equal a validation row, or None; equal ones are left to
    `leakage`."""
    repeats = planned.repeats
    if repeats is None or repeats.near is None:
        return None
    chosen = planned.chosen()
    same = set(repeats.first[chosen.measuring].tolist())
    measured = dict(zip(repeats.near[chosen.measuring].tolist(), chosen.measuring.tolist(), strict=True))
    read = [(i, int(repeats.near[i])) for i in chosen.needed_training.tolist() if int(repeats.first[i]) not in same]
    leaks = sorted((i, measured[near]) for i, near in read if near in measured)
    if not leaks:
        return None
    return Diagnosis(
        id="near_leakage",
        evidence=msg(
            "run_doctor.near_leakage",
            leaked=len({measured_row for _, measured_row in leaks}),
            measured=len(chosen.measuring),
            pairs=listed(planned.pairs(leaks[:LISTED], "run_doctor.near_pair"), len(leaks)),
        ),
        meaning=msg("run_doctor.leakage_means"),
        remedy=msg("run_doctor.leakage_remedy", count=len(leaks)),
        fix={"data.drop_near_leaked": True},
        rows=tuple(planned.number(i) for i, _ in leaks[:LISTED]),
    )


def few_steps(planned: Planned) -> Diagnosis | None:
    """Return the finding of a plan of fewer than MIN_STEPS optimizer steps, with the epochs that give enough; None for
    enough or an unknown number."""
    steps, train = planned.steps, planned.recipe.train
    if steps is None or steps >= MIN_STEPS:
        return None
    trained = max(1, len(planned.chosen().training))
    batch = (train.per_device_train_batch_size, train.gradient_accumulation_steps)
    in_an_epoch = Schedule((0,) * trained, *batch, 1.0, -1, 0).steps_per_epoch
    epochs = max(train.num_train_epochs, math.ceil(MIN_STEPS / in_an_epoch))
    fix: dict[str, object] = {"train.num_train_epochs": epochs}
    if train.max_steps > 0:
        fix["train.max_steps"] = -1
    return Diagnosis(
        id="few_steps",
        evidence=msg("run_doctor.few_steps", steps=steps, rows=trained, together=math.prod(batch), least=MIN_STEPS),
        meaning=msg("run_doctor.few_steps_means"),
        remedy=msg("run_doctor.few_steps_remedy", epochs=epochs, steps=math.ceil(in_an_epoch * epochs)),
        fix=fix,
    )


def hot_plan(planned: Planned) -> Diagnosis | None:
    """Return the finding of a learning rate above TOO_HOT times the usual one, or None."""
    rate, usual = planned.recipe.train.learning_rate, planned.usual_rate
    if rate <= TOO_HOT * usual:
        return None
    return Diagnosis(
        id="hot_plan",
        evidence=msg("run_doctor.hot_plan", rate=rate, usual=usual, times=round(rate / usual)),
        meaning=msg("run_doctor.hot_plan_means"),
        remedy=msg("run_doctor.rate_remedy", rate=usual),
        fix={"train.learning_rate": usual},
    )
