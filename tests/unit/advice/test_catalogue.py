"""What is said of a known model on a list is what choosing it would say."""

from __future__ import annotations

from core.advice import catalogue
from core.advice.catalogue import Fit
from core.memory import budget
from core.memory.budget import Budget
from core.models.known import KnownModel, known_models
from tests.kit.advice import recommend

METHODS = ("lora", "qlora")


def fits(model: KnownModel, there: Budget) -> dict[str, Fit]:
    return {method: catalogue.fit(model.shape, catalogue.rounded(there), method) for method in METHODS}


def test_a_verdict_is_the_one_that_choosing_the_model_gives() -> None:
    planned, least = budget.planned(12, "Linux"), {"per_device_train_batch_size": 1, "gradient_checkpointing": True}
    for model in known_models():
        for method, fit in fits(model, planned).items():
            advised = recommend(model.shape, planned, chosen=least | {"method": method})
            assert fit == Fit(advised.verdict, advised.estimate.needed_gib)


def test_qlora_never_needs_more_than_lora_but_where_its_base_stays_in_16_bit() -> None:
    """A list that said LoRA 3.1 and QLoRA 5.0 GiB compared a plan with checkpointing with one without."""
    for model in known_models():
        needs = fits(model, budget.planned(6, "Linux"))
        assert needs["qlora"].needed_gib <= needs["lora"].needed_gib * 1.02, model.title


def test_verdicts_stay_while_free_memory_trembles() -> None:
    ram, card, model = budget.Budget(kind="cpu", free_gib=15.49), budget.planned(8, "Linux"), known_models()[0]
    assert fits(model, ram)["lora"] is fits(model, ram.model_copy(update={"free_gib": 15.01}))["lora"]
    assert (
        catalogue.rounded(ram).free_gib == 15.0
        and catalogue.rounded(ram.model_copy(update={"free_gib": 0.44})).free_gib == 0.4
    )
    assert fits(model, card)["lora"] is fits(model, card.model_copy(update={"free_gib": card.free_gib + 0.01}))["lora"]


def test_a_larger_card_never_trains_fewer_models() -> None:
    cards = [budget.planned(gb, "Linux") for gb in (6, 8, 12, 16, 24, 48, 80)]
    counts = [
        sum(any(fit.verdict in ("fits", "tight") for fit in fits(model, card).values()) for model in known_models())
        for card in cards
    ]
    assert counts == sorted(counts) and counts[0] < counts[-1]
