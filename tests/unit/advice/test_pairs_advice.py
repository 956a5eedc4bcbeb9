"""What the advice says of pairs: how many are enough, how fast and how often to learn of them, and what they need."""

from __future__ import annotations

from typing import Any

import pytest

from core.advice import plan
from core.advice.case import Grounds
from core.advice.plan import Plan
from core.data.facts import DataFacts
from core.memory.budget import planned
from core.memory.setup import Setup
from core.models.known import shape_of_size
from core.recipe import Recipe


def made(pairs: int = 400, continues: bool = False, **train: Any) -> Plan:
    data = DataFacts(
        rows=pairs, tokens=400 * pairs, learned_tokens=200 * pairs, median_length=200, p99_length=371, longest=380
    )
    recipe = Recipe.parse({"data": {"source": "x"}, "train": {"objective": "dpo"} | train})
    return plan.make(recipe, Grounds(planned(24, "Linux"), shape_of_size("3B"), data, continues=continues))


def sentences_of(found: Plan, *fields: str) -> str:
    sentences = [*(reason.text for reason in found.advice.reasons if reason.field in fields), *found.advice.warnings]
    return " ".join(map(str, sentences))


@pytest.mark.parametrize(("pairs", "epochs"), [(20, 3.0), (199, 3.0), (200, 1.0)])
def test_pairs_are_learned_slowly_and_seldom_and_few_are_said(pairs: int, epochs: float) -> None:
    pair_plan, as_answers = made(pairs), made(pairs, objective="sft")
    train = pair_plan.recipe.train
    assert (train.num_train_epochs, train.beta) == (epochs, 0.1) and as_answers.recipe.train.beta is None
    assert train.learning_rate == pytest.approx(pair_plan.advice.usual_rate) and train.learning_rate == pytest.approx(
        2e-5
    )
    assert f"{pairs:,} pairs" in sentences_of(pair_plan, "num_train_epochs") and "tenth" in sentences_of(
        pair_plan, "learning_rate"
    )
    assert (f"Only {pairs} pairs" in sentences_of(pair_plan)) == (pairs < 50) and "pairs" not in sentences_of(
        as_answers
    )


@pytest.mark.parametrize(
    ("train", "is_said"),
    [({}, True), ({"sft_weight": 0.2}, False), ({"objective": "orpo"}, False), ({"objective": "simpo"}, True)],
)
def test_that_the_answers_are_to_be_learned_first_is_said_where_nothing_else_does(
    train: dict[str, Any], is_said: bool
) -> None:
    """It was said of a run that continues its sft run, too."""
    assert ("Train on the better answers first" in sentences_of(made(**train))) == is_said
    assert "Train on the better answers first" not in sentences_of(made(continues=True, **train))


def test_a_pair_needs_what_two_examples_need_and_is_one_row_of_a_step() -> None:
    chosen = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_train_epochs": 1}
    pairs, answers = made(**chosen), made(**chosen, objective="sft")
    assert pairs.advice.planned_steps == answers.advice.planned_steps == 48  # 380 of 400 rows are trained, 8 a step
    of_pairs, of_answers = (Setup.from_recipe(found.recipe, "card") for found in (pairs, answers))
    assert (of_pairs.tokens, of_pairs.learned) == (2 * of_answers.tokens, 2 * of_answers.learned)
    assert pairs.recipe.row_length == 2 * pairs.recipe.data.max_length


@pytest.mark.parametrize(
    ("objective", "at_once", "a_step"), [("dpo", 2, 8), ("simpo", 2, 8), ("kto", 4, 8), ("sft", 8, 8)]
)
def test_two_pairs_at_once_are_four_examples(objective: str, at_once: int, a_step: int) -> None:
    """Four were, eight examples, which took as long and more memory; kto's KL term is a mean over its micro-batch, and
    keeps four. Short rows of sft are eight at once on a card since they are counted in tokens."""
    train = made(objective=objective).recipe.train
    assert train.per_device_train_batch_size == at_once and train.gradient_accumulation_steps == a_step // at_once
