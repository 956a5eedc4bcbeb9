"""The judges of a training by rewards, as a recipe lists them."""

from __future__ import annotations

from typing import Any

import pytest

from core.advice.plan import resolve
from core.errors import RecipeError
from core.judges import weighted
from core.messages import LANGUAGES
from core.recipe import Recipe

SERVER = {"kind": "model", "url": "http://localhost:1234/v1", "model": "any"}


@pytest.mark.parametrize(
    ("judge", "key"),
    [
        ({"kind": "taste"}, "rewards.bad_judge"),
        ({"kind": "number", "weight": -1}, "rewards.bad_judge"),
        ({"kind": "number", "decimals": 1}, "rewards.bad_judge"),
        ({"kind": "person"}, "rewards.no_rule"),
        (SERVER, "rewards.no_rule"),
    ],
)
def test_a_judge_that_cannot_judge_every_drawn_answer_is_refused_by_its_number(judge: dict[str, Any], key: str) -> None:
    """A model behind a server was refused only after the base had been loaded."""
    with pytest.raises(RecipeError) as error:
        weighted.read([{"kind": "exact"}, judge])
    message = error.value.message
    assert message.key == key and message.params["number"] == 2
    assert all("{number}" not in message.render(language) for language in LANGUAGES)


def test_judges_of_content_and_of_form_are_told_apart() -> None:
    given = [
        {"kind": "exact"}, {"kind": "number"}, {"kind": "contains"}, {"kind": "contains", "any_of": ["a"]},
        {"kind": "regex", "pattern": "a"}, {"kind": "length"}, {"kind": "language"}, {"kind": "similarity"},
    ]  # fmt: skip
    assert [each.reads_content for each in weighted.read(given)] == [True] * 3 + [False] * 4 + [True]


def test_judges_of_form_alone_get_a_beta_from_the_plan_unless_one_is_chosen() -> None:
    def beta(*judges: dict[str, Any], adapter: dict[str, Any] | None = None, **rewards: Any) -> float:
        given = {"data": {"source": "mine"}, "train": {"objective": "grpo"}, "adapter": adapter or {}}
        recipe = resolve(Recipe.parse(given | {"rewards": {"judges": judges} | rewards}), "mine", has_card=False)
        assert recipe.rewards and Recipe.parse(recipe.model_dump(mode="json")) == recipe
        return recipe.rewards.beta

    short, label = {"kind": "length", "most": 8}, {"kind": "label", "labels": ["a", "b"]}
    assert beta(short) == beta(short, {"kind": "regex", "pattern": "a"}) == 0.1
    assert beta(short, label) == beta(short, beta=0) == 0.0 and beta(short, beta=0.5) == 0.5
    assert beta(short, adapter={"init_lora_weights": "pissa"}) == 0.0, "with which no beta goes"
