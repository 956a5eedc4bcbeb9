"""The list of known models says of each what choosing it would say."""

from __future__ import annotations

from core.advice import catalogue
from core.memory import budget
from core.models.known import known_models
from tests.kit.advice import recommend


def test_a_verdict_is_the_one_that_choosing_the_model_gives() -> None:
    planned, least = budget.planned(12, "Linux"), {"micro_batch": 1, "gradient_checkpointing": True}
    for entry in catalogue.entries(planned):
        for method in ("lora", "qlora"):
            advised = recommend(entry.model.shape, planned, chosen=least | {"method": method})
            assert entry.fits[method] == catalogue.Fit(advised.verdict, advised.estimate.needed_gib)


def test_qlora_never_needs_more_than_lora_but_where_its_base_stays_in_16_bit() -> None:
    """A list that said LoRA 3.1 and QLoRA 5.0 GiB compared a plan with checkpointing with one without."""
    for entry in catalogue.entries(budget.planned(6, "Linux")):
        lora, qlora = (entry.fits[method].needed_gib for method in ("lora", "qlora"))
        assert qlora <= lora * 1.02, entry.model.title


def test_verdicts_stay_while_free_memory_trembles() -> None:
    ram = budget.Budget(kind="cpu", free_gib=15.49)
    assert catalogue.entries(ram) is catalogue.entries(ram.model_copy(update={"free_gib": 15.01}))
    assert catalogue.rounded(ram).free_gib == 15.0 and catalogue.rounded(ram.model_copy(update={"free_gib": 0.44})).free_gib == 0.4
    card = budget.planned(8, "Linux")
    assert catalogue.entries(card) is catalogue.entries(card.model_copy(update={"free_gib": card.free_gib + 0.01}))


def test_all_known_models_are_there_and_the_smallest_comes_first() -> None:
    found = catalogue.entries(budget.planned(8, "Windows"))
    assert {entry.model.id for entry in found} == {model.id for model in known_models()}
    sizes = [entry.model.shape.params for entry in found]
    assert sizes == sorted(sizes)


def test_a_larger_card_never_trains_fewer_models() -> None:
    counts = [sum(entry.trains for entry in catalogue.entries(budget.planned(gb, "Linux"))) for gb in (6, 8, 12, 16, 24, 48, 80)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_full_fine_tuning_of_a_7b_model_needs_the_documented_card() -> None:
    """The document: 40 GB and more for full fine-tuning of a 7B model. The arithmetic may ask for more, never be satisfied with less."""
    entry = next(entry for entry in catalogue.entries(budget.planned(24, "Linux")) if entry.model.shape.params > 6e9)
    assert entry.fits["full"].verdict == "does_not_fit"
    roomy = next(e for e in catalogue.entries(budget.planned(80, "Linux")) if e.model.id == entry.model.id)
    assert roomy.fits["full"].verdict in ("fits", "tight")
