"""What a plan says of DoRA, PiSSA and a base in 8 bit."""

from __future__ import annotations

import pytest

from core.advice import plan
from core.advice.plan import Grounds
from core.memory import budget
from core.messages import LANGUAGES
from core.models.known import shape_of_size
from core.recipe import Recipe


@pytest.mark.parametrize("settings", [{"load_in_8bit": True}, {"init_lora_weights": "pissa"}])
def test_what_only_lora_can_do_is_planned_as_lora(settings: dict) -> None:
    small = budget.planned(8, "Linux")  # where a 7B would be QLoRA
    made = plan.make(Recipe.parse({"data": {"source": "x"}, "adapter": settings}), Grounds(small, shape_of_size("7B")))
    (reason,) = [reason for reason in made.advice.reasons if reason.field == "method"]
    assert made.recipe.adapter.method == "lora" and reason.text.key.startswith("plan.lora_")
    Recipe.parse(made.recipe.model_dump(mode="json"))


@pytest.mark.parametrize(("name", "key"), [("use_dora", "advise.dora_costs"), ("load_in_8bit", "advise.int8_saves")])
def test_a_plan_says_what_a_variant_costs_here(name: str, key: str) -> None:
    recipe = Recipe.parse({"data": {"source": "x"}, "adapter": {"method": "lora", name: True}})
    made = plan.make(recipe, Grounds(budget.planned(24, "Linux"), shape_of_size("3B")))
    (reason,) = [reason for reason in made.advice.reasons if reason.field == name]
    numbers = reason.text.params
    assert reason.text.key == key and (numbers["needed"] > numbers["without"]) == (name == "use_dora")
    assert made.advice.estimate.on_card_gib == pytest.approx(numbers["needed"])
    assert all("{" not in reason.text.render(language) for language in LANGUAGES)
