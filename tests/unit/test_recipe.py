"""A recipe: what cannot be together in one is said when it is read."""

from __future__ import annotations

import pytest
import yaml

from core.errors import RecipeError
from core.messages import LANGUAGES
from core.recipe import Adapter, Recipe

REWARDS = {"judges": [{"kind": "number"}]}


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"adapter": {"method": "qlora", "load_in_8bit": True}}, "two_bases"),
        ({"adapter": {"method": "qlora", "init_lora_weights": "pissa"}}, "pissa_quantised"),
        ({"adapter": {"load_in_8bit": True, "init_lora_weights": "pissa_niter_16"}}, "pissa_quantised"),
        ({"adapter": {"use_dora": True, "init_lora_weights": "pissa"}}, "pissa_dora"),
        ({"adapter": {"r": 200, "init_lora_weights": "pissa"}}, "pissa_rank"),
        ({"train": {"objective": "grpo"}}, "rewards_alone"),
        ({"rewards": REWARDS}, "rewards_alone"),
        ({"rewards": REWARDS, "train": {"objective": "dpo"}}, "rewards_alone"),
        ({"rewards": REWARDS, "train": {"objective": "grpo", "ranks": 2}}, "rewards_ranks"),
        ({"rewards": REWARDS, "train": {"objective": "grpo", "ranks": 2, "fsdp": True}}, "rewards_ranks"),
        ({"rewards": REWARDS, "train": {"objective": "grpo", "offload_layers": 3}}, "rewards_offload"),
        (
            {"rewards": REWARDS, "train": {"objective": "grpo"}, "data": {"source": "x", "train_on": "everything"}},
            "rewards_everything",
        ),
        (
            {
                "rewards": REWARDS | {"beta": 0.1},
                "train": {"objective": "grpo"},
                "adapter": {"init_lora_weights": "pissa"},
            },
            "rewards_pissa",
        ),
    ],
)
def test_what_cannot_be_together_is_said_before_anything_is_loaded(sections: dict, key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({"data": {"source": "x"}} | sections)
    assert [problem["key"] for problem in caught.value.message.params["problems"]] == [f"recipe.{key}"]
    assert all("{" not in caught.value.message.render(language) for language in LANGUAGES)


def test_a_recipe_of_rewards_is_read_as_it_was_written_and_packs_a_prompt_with_an_answer() -> None:
    value = {"data": {"source": "x", "max_length": 100}, "train": {"objective": "grpo"}, "rewards": REWARDS}
    recipe = Recipe.parse(value)
    assert Recipe.parse(yaml.safe_load(recipe.dump())) == recipe and recipe.row_length == 100 + 512
    with pytest.raises(RecipeError, match="judges"):
        Recipe.parse(value | {"rewards": {"judges": []}})


@pytest.mark.parametrize("long_examples", ["cut", "split", "drop"])
def test_with_rewards_rows_that_are_too_long_are_dropped(long_examples: str) -> None:
    """A row that was cut had half an answer to expect; a later piece has no question, which ended the run."""
    value = {"data": {"source": "x", "long_examples": long_examples}, "train": {"objective": "grpo"}}
    assert Recipe.parse(value | {"rewards": REWARDS}).data.long_examples == "drop"
    assert Recipe.parse({"data": value["data"]}).data.long_examples == long_examples


@pytest.mark.parametrize("written", [True, "true"])
def test_init_lora_weights_is_written_as_peft_writes_it(written: object) -> None:
    assert not Adapter(init_lora_weights=written).is_pissa


def test_a_setting_of_an_earlier_version_is_left_out_and_a_misspelt_one_is_refused() -> None:
    """Each run's recipe.yaml has every setting of its version."""
    train = {"max_steps": 3, "torch_compile": True}
    assert Recipe.parse({"data": {"source": "x"}, "train": train}).train.max_steps == 3
    with pytest.raises(RecipeError, match="torch_compiled"):
        Recipe.parse({"data": {"source": "x"}, "train": {"torch_compiled": True}})
