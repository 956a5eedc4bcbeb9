"""The card of a plan: its words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.advice import plan
from core.advice.plan import Grounds
from core.memory.budget import Budget
from core.messages import msg
from core.models.known import known_models
from core.recipe import Recipe
from core.trial import pace
from webui.form import plan_view
from webui.form.planner import FormResult
from webui.kit.wording import Wording

QWEN = next(model for model in known_models() if model.id == "qwen3-4b")


def result(there: Budget, **train: int) -> FormResult:
    recipe = Recipe.parse(
        {"name": "x", "model": {"id": QWEN.hub}, "data": {"source": "sample:pirate_answers"}, "train": train}
    )
    return FormResult(plan.make(recipe, Grounds(there, QWEN.shape)), None, QWEN.shape)


@pytest.mark.parametrize(("language", "sentence"), [("en", "2 GPUs together"), ("zh", "2 张显卡一起训练")])
def test_a_plan_for_several_cards_says_how_many_and_which_is_the_smallest(language: str, sentence: str) -> None:
    both = Budget(kind="card", name="RTX 4090", sold_gb=12.0, free_gib=11.0, ranks=2, smallest="RTX 3060")
    drawn = plan_view.card(result(both), Wording(language))
    assert sentence in drawn and "RTX 3060" in drawn and "RTX 4090" not in drawn
    assert sentence not in plan_view.card(result(both.model_copy(update={"ranks": 1})), Wording(language))


def test_a_plan_with_offloaded_layers_says_on_its_card_what_they_need_and_take() -> None:
    card = Budget(kind="card", name="RTX 3060", sold_gb=12.0, free_gib=11.0, ram_gib=50.0)
    drawn = plan_view.card(result(card, offload_layers=10), Wording("en"))
    assert "10 of" in drawn and "50.0 GiB are free" in drawn and "over PCIe" in drawn
    assert "over PCIe" not in plan_view.card(result(card), Wording("en"))


def test_the_time_of_offloaded_layers_is_the_longer_of_copies_and_computing_unless_a_run_has_had_both() -> None:
    sources = msg("pace.computed"), msg("pace.from_run", run="Tiny")
    timed, ran = (pace.Pace(tokens_per_second=100.0, source=source) for source in sources)
    assert [pace.with_bus(60.0, timed, bus) for bus in (None, 20.0, 90.0)] == [60.0, 60.0, 90.0]
    assert pace.with_bus(60.0, ran, 90.0) == 60.0


def test_a_plan_that_is_only_tight_is_not_said_to_need_more_than_there_is() -> None:
    """Seen: "7.8 of 7.3 GiB, tight"."""
    estimate = SimpleNamespace(needed_gib=7.8, on_card_gib=7.1)

    def line(verdict: str, free: float) -> str:
        return plan_view.verdict_line(
            SimpleNamespace(verdict=verdict, estimate=estimate, budget=Budget(kind="cpu", free_gib=free)), Wording("en")
        )

    assert line("tight", 7.3) == "tight: 7.1 of 7.3 GiB without the margin"
    assert line("tight", 8.0) == "tight: 7.8 of 8.0 GiB", "by the documented table"
    assert line("does_not_fit", 7.0) == "does not fit: 7.8 of 7.0 GiB"


def test_each_setting_is_one_line_with_its_value_and_unfolds_its_reason() -> None:
    shown = result(Budget(kind="card", name="RTX 3060", sold_gb=12.0, free_gib=11.0)).plan
    assert shown
    advice = shown.advice
    drawn = plan_view.reasons(advice, Wording("en"))
    assert f"<summary>Rank (r)<b>{advice.recipe.adapter.r}</b></summary><p>" in drawn
    assert drawn.count('name="plan-reason"') == len(advice.reasons)  # of one name: one is open at a time
