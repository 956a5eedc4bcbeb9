"""What is known of a family beyond the usual reaches the plan, with its source."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from core.advice.case import Advice
from core.advice.family import families, family_of
from core.memory.budget import Budget, planned
from core.messages import LANGUAGES
from core.models.known import known_models
from tests.kit.advice import recommend
from tests.unit.advice.test_advice import facts, keys, why
from webui.kit.wording import Wording

SHAPES = {model.id: model.shape for model in known_models()}


def advise(model_id: str, gb: float, **more: Any) -> Advice:
    return recommend(
        SHAPES[model_id], planned(gb, "Linux"), data=facts(rows=5000, tokens=400_000, learned_tokens=9_000), **more
    )


def test_a_family_is_known_once_by_the_type_of_its_text_part() -> None:
    types = [kind for family in families() for kind in family.model_types]
    assert len(types) == len(set(types)) and family_of("qwen3_5_text") and not family_of("llama")
    for family in families():
        assert bool(family.settings_source) == bool(family.r or family.learning_rate), family.title


def test_a_small_model_of_a_known_family_takes_its_familys_learning_rate() -> None:
    advised = advise("qwen3.5-0.8b", 12)
    assert advised.recipe.train.learning_rate == advised.usual_rate == 2e-4 and "Unsloth Studio" in why(
        advised, "learning_rate"
    )
    assert advise("qwen3-0.6b", 12).recipe.train.learning_rate == 1e-3
    # the usual one, which needs no other's word
    assert "Unsloth Studio" not in why(advise("qwen3.5-4b", 24), "learning_rate")
    large = advise("qwen3.8-27b", 32)
    assert large.recipe.train.learning_rate == 1e-4 and "Unsloth Studio" not in why(large, "learning_rate")


def test_the_rank_is_at_least_what_others_take_for_the_family_and_never_above_16() -> None:
    for model_id, taken in (("qwen3.5-4b", "uses 16"), ("ministral-3-3b", "uses 32")):
        advised = advise(model_id, 24)
        assert advised.recipe.adapter.r == 16 and taken in why(advised, "r")
    assert advise("qwen3-4b", 24).recipe.adapter.r == 8


def test_few_rows_still_get_the_smallest_rank() -> None:
    recommended = recommend(
        SHAPES["qwen3.5-4b"], planned(24, "Linux"), data=facts(rows=20, tokens=4000, learned_tokens=2000)
    )
    assert recommended.recipe.adapter.r == 4


def test_lora_comes_before_qlora_where_quantisation_hurts_and_qlora_says_so() -> None:
    assert (
        "warn_family_in_16_bit" not in keys(advise("qwen3.5-4b", 24))
        and advise("qwen3.5-4b", 24).recipe.adapter.method == "lora"
    )
    small = advise("qwen3.5-4b", 8)
    assert small.recipe.adapter.method == "qlora" and "warn_family_in_16_bit" in keys(small)
    assert "warn_family_in_16_bit" not in keys(advise("qwen3-4b", 6))


def test_kernels_that_are_not_installed_are_named_for_a_card_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[str]:
        warnings = (
            warning for warning in advise("qwen3.5-4b", 24).warnings if warning.key == "advise.warn_family_kernels"
        )
        return [package for warning in warnings for package in warning.params["packages"]]

    for module in ("fla", "causal_conv1d"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("core.advice.family.find_spec", lambda name: None)
    assert told() == ["flash-linear-attention", "causal-conv1d"]
    monkeypatch.setattr("core.advice.family.find_spec", lambda name: ModuleType(name) if name == "fla" else None)
    assert told() == ["causal-conv1d"]
    monkeypatch.setattr("core.advice.family.find_spec", ModuleType)
    assert told() == []
    monkeypatch.setattr("core.advice.family.find_spec", lambda name: None)
    assert "warn_family_kernels" not in keys(recommend(SHAPES["qwen3.5-4b"], Budget(kind="cpu", free_gib=64.0)))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sentence_is_whole_in_both_languages(language: str) -> None:
    w = Wording(language)
    for family in families():
        for told in family.note_messages():
            assert w.render(told) and "{" not in w.render(told)
    for model_id in ("qwen3.5-0.8b", "lfm2.5-1.2b", "ministral-3-8b"):
        advised = advise(model_id, 8, chosen={"method": "qlora"})
        assert all(
            "{" not in w.render(text) for text in (*advised.warnings, *(reason.text for reason in advised.reasons))
        )
