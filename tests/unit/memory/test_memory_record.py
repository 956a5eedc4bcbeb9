"""What earlier runs measured corrects the next estimate: of the same PC and model, visibly, until it is cleared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.advice import remedies
from core.advice.case import Case
from core.advice.decisions import planned_steps, with_settings
from core.memory import arithmetic, budget
from core.memory.budget import Budget
from core.memory.documented import vram_table
from core.memory.record import Correction, Corrections, MemoryRecord, Rig
from core.memory.setup import Setup
from core.models.known import shape_of_size, typical_shapes
from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.values import GIB
from core.workspace.folder import Workspace
from tests.kit.advice import recipe_of, recommend

CARD = Card(index=0, name="NVIDIA GeForce RTX 4060", uuid="GPU-1", total_bytes=8 * GIB, free_bytes=7 * GIB)
MACHINE = Machine(system="Linux", cpu="A processor", nvidia=Nvidia(driver="580.1", cards=(CARD,)))
RIG = Rig.from_machine(MACHINE, CARD)
SHAPE = typical_shapes()["7B"]


@pytest.fixture
def record(tmp_path: Path) -> MemoryRecord:
    return MemoryRecord(Workspace.open(tmp_path / "workspace"))


def test_the_median_of_this_models_runs_corrects_and_each_run_counts_once(record: MemoryRecord) -> None:
    for run, measured in (("a", 2.0), ("a", 1.0), ("b", 1.04), ("c", 1.2)):  # a was paused and probed again
        record.add(run, RIG, "starter", "lora", 1.0, measured)
    corrections = record.corrections(RIG, "starter").for_method("lora")
    assert (corrections.factor, corrections.runs) == (pytest.approx(1.04), 3)


def test_another_card_driver_or_stack_is_another_record(record: MemoryRecord) -> None:
    record.add("a", RIG, "starter", "lora", 1.0, 1.5)
    for other in (
        {"driver": "581.0"},
        {"device": "NVIDIA GeForce RTX 3060"},
        {"system": "Plan 9"},
        {"stack": "torch 3"},
    ):
        assert record.corrections(RIG.model_copy(update=other), "starter") == Corrections()
    assert Rig.from_machine(MACHINE, None) != RIG and "arithmetic" in RIG.stack and "torch 2" in RIG.stack


def test_another_model_may_only_make_an_estimate_more_careful(record: MemoryRecord) -> None:
    record.add("a", RIG, "starter", "lora", 10.0, 8.0)
    assert record.corrections(RIG, "owner/other").for_method("qlora") is None
    assert record.corrections(RIG, "starter").for_method("lora").factor == pytest.approx(0.8)
    record.add("b", RIG, "starter", "qlora", 10.0, 16.0)
    assert record.corrections(RIG, "owner/other").for_method("lora").factor == pytest.approx(1.2)


def test_what_a_small_model_needed_besides_does_not_grow_with_a_large_one(record: MemoryRecord) -> None:
    """Seen: three runs of the starter at 1.59 times their 0.7 GiB made 14 GiB of the 9 of a model of 8.5B."""
    record.add("a", RIG, "starter", "lora", 0.7, 1.113)
    corrections = record.corrections(RIG, "starter")
    assert (
        corrections.for_method("lora").factor == corrections.for_method("qlora").factor == pytest.approx(1.59)
    )  # by another method too
    assert corrections.for_another_model == Corrections() == record.corrections(RIG, "owner/other")
    record.add("b", RIG, "owner/one", "lora", 2.0, 2.2)
    corrections = record.corrections(RIG, "starter")
    assert corrections.for_method("lora").factor == pytest.approx(1.59) and corrections.for_another_model.for_method(
        "lora"
    ).factor == pytest.approx(1.1)
    assert record.corrections(RIG, "owner/other").for_method("qlora").factor == pytest.approx(1.1)


def test_lines_that_make_no_sense_are_passed_over(record: MemoryRecord) -> None:
    record.add("a", RIG, "starter", "lora", 1.0, 90.0)
    record.add("b", RIG, "starter", "lora", 0.0, 1.0)
    record.add("c", RIG, "starter", "lora", 1.0, 1.1)
    with open(record.file, "ab") as file:
        file.write(b"not json\n[1]\n" + b'{"rig": {}}\n' + b'{"unfinished')
    assert record.corrections(RIG, "starter").for_method("lora") == Correction(factor=1.1, runs=1)


def test_a_corrected_estimate_still_adds_up_and_can_turn_the_verdict() -> None:
    budget = Budget(kind="card", sold_gb=16, free_gib=7.0)
    plain = recommend(SHAPE, budget, chosen={"method": "qlora", "max_length": 512, "per_device_train_batch_size": 1})
    known = Corrections({"qlora": Correction(factor=1.3, runs=3)})
    corrected = recommend(
        SHAPE,
        budget,
        chosen={"method": "qlora", "max_length": 512, "per_device_train_batch_size": 1},
        corrections=known,
    )
    assert plain.correction is None and corrected.correction.runs == 3
    assert sum(corrected.estimate.terms.values()) == pytest.approx(corrected.estimate.on_card_gib)
    r, optim = corrected.recipe.adapter.r, corrected.recipe.train.optim
    same = arithmetic.estimate(
        SHAPE, Setup(method="qlora", r=r, max_length=512, gradient_checkpointing=True, optim=optim)
    )
    assert corrected.recipe.train.gradient_checkpointing and corrected.estimate.on_card_gib == pytest.approx(
        1.3 * same.on_card_gib
    )
    tight = Budget(kind="card", sold_gb=16, free_gib=same.needed_gib * 1.05)
    verdicts = [
        recommend(SHAPE, tight, chosen={"method": "qlora", "max_length": 512}, corrections=each).verdict
        for each in (None, known)
    ]
    assert verdicts == ["fits", "does_not_fit"]


# ---- what would fit ------------------------------------------------------------------------------


def case(free_gib: float, kind: str = "card", factor: float = 1.0) -> Case:
    budget = Budget(kind=kind, sold_gb=24 if kind == "card" else None, free_gib=free_gib)
    return Case(SHAPE, budget, None, None, vram_table(), 0.05, remedies.measured_corrections(factor))


DRAFT = recipe_of(
    method="lora",
    max_length=2048,
    optim="paged_adamw_8bit",
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    gradient_checkpointing=False,
)


@pytest.mark.parametrize("factor", [1.0, 1.25])
@pytest.mark.parametrize("free_gib", [4.0, 6.0, 9.0, 17.0, 22.0, 40.0])
def test_every_way_that_is_named_fits_and_changes_something(free_gib: float, factor: float) -> None:
    situation = case(free_gib, factor=factor)
    assert not situation.fits(DRAFT)
    remedies_found = remedies.ways(situation, DRAFT, [100] * 90 + [2048] * 10)
    assert remedies_found and len(remedies_found) <= remedies.MAX_WAYS
    for way in remedies_found:
        assert way.draft != DRAFT and (way.model or situation.fits(way.draft)), way.text
        assert {way.text.render(language) for language in ("en", "zh")} and "{" not in str(way.text)


def test_fewer_at_once_keeps_what_a_step_learns_from() -> None:
    way = remedies.fewer_at_once(case(40.0), DRAFT)
    train = way.draft.train
    assert (
        train.per_device_train_batch_size * train.gradient_accumulation_steps == 8
        and train.per_device_train_batch_size < 4
    )


def test_a_shorter_length_says_what_it_cuts_and_is_the_longest_that_fits() -> None:
    situation = case(20.0)
    way = remedies.shorter(situation, DRAFT, [100, 1000, 2048, 2000])
    longest = way.draft.data.max_length
    longer = with_settings(way.draft, max_length=longest + 64)
    assert situation.fits(way.draft) and not situation.fits(longer)
    assert way.text.params["cut"] == sum(n > longest for n in (100, 1000, 2048, 2000))


def test_a_smaller_model_is_estimated_with_the_factor_that_was_measured() -> None:
    plain, measured = (remedies.smaller_model(case(6.0, factor=factor), DRAFT) for factor in (1.0, 1.6))
    assert plain and (measured is None or measured.model != plain.model)


def test_where_no_single_saving_is_enough_all_are_named_together() -> None:
    [together, *_] = remedies.ways(case(6.0), DRAFT, [2048])
    assert together.text.key == "would_fit.everything" and together.draft.train.per_device_train_batch_size == 1
    assert together.draft.adapter.method == "qlora" and together.draft.train.gradient_checkpointing


def test_where_not_even_all_savings_are_enough_layers_are_offloaded_as_far_as_the_ram_goes() -> None:
    large, draft = (
        shape_of_size("70B"),
        recipe_of(
            method="qlora",
            max_length=512,
            optim="adamw_8bit",
            per_device_train_batch_size=4,
            gradient_accumulation_steps=1,
        ),
    )
    for ram_gib, is_named in ((None, True), (60.0, True), (20.0, False)):
        situation = replace(case(23.0), shape=large)
        situation = replace(situation, budget=situation.budget.model_copy(update={"ram_gib": ram_gib}))
        ways = {way.text.key: way for way in remedies.ways(situation, draft, [500])}
        assert ("would_fit.offload" in ways) == is_named
        if is_named:
            less = ways["would_fit.offload"].draft
            assert situation.fits(less) and not situation.fits(
                with_settings(less, offload_layers=less.train.offload_layers - 1)
            )
            assert less.train.per_device_train_batch_size * less.train.gradient_accumulation_steps == 4


def test_where_one_card_is_too_small_whatever_is_saved_two_equal_ones_hold_the_base_together() -> None:
    """As the plan offers it. Where each has less than its part needs, or a run on several holds it together already, it
    is not named."""
    large = shape_of_size("33B")
    draft = recipe_of(
        method="qlora", max_length=512, optim="adamw_8bit", per_device_train_batch_size=2, gradient_accumulation_steps=3
    )
    for free_gib, cards, is_named in ((14.0, 1, True), (14.0, 0, False), (6.0, 1, False)):
        situation = case(15.0)
        sizes = {"ram_gib": 64.0, "equal_cards": cards, "equal_free_gib": free_gib}
        situation = replace(situation, shape=large, budget=situation.budget.model_copy(update=sizes))
        ways = {way.text.key: way for way in remedies.ways(situation, draft, [500])}
        assert ("would_fit.fsdp" in ways) == is_named
        if is_named:
            train = ways["would_fit.fsdp"].draft.train
            assert (train.ranks, train.fsdp, train.per_device_train_batch_size, train.gradient_accumulation_steps) == (
                2,
                True,
                1,
                6,
            )
            assert all("fsdp" in ways["would_fit.fsdp"].text.render(language) for language in ("en", "zh", "de"))
            assert "would_fit.fsdp" not in {
                way.text.key for way in remedies.ways(situation, ways["would_fit.fsdp"].draft, [500])
            }


def test_on_a_processor_qlora_is_no_way_out() -> None:
    draft = recipe_of(
        method="lora", max_length=512, optim="adamw_torch", per_device_train_batch_size=2, gradient_checkpointing=True
    )
    assert remedies.in_four_bit(case(8.0, "cpu"), draft) is None


# ---- steps of rows that are split ----------------------------------------------------------------


def test_planned_steps_count_the_pieces_that_long_rows_are_split_into() -> None:
    from core.data.facts import DataFacts

    data = DataFacts(rows=100, tokens=100_000, learned_tokens=50_000, median_length=1000, p99_length=1000, longest=1000)
    chosen = {
        "max_length": 256,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1.0,
        "eval_fraction": 0.0,
        "long_examples": "split",
    }
    unsplit = recommend(SHAPE, budget.planned(24, "Linux"), data, chosen=chosen)
    pieces = recommend(
        SHAPE, budget.planned(24, "Linux"), data, chosen=chosen, examples=lambda length, how, overlap: 4 * 100
    )
    assert (unsplit.planned_steps, pieces.planned_steps) == (25, 100)
    assert planned_steps(Case(SHAPE, budget.planned(24, "Linux"), data, None, vram_table(), 0.0), DRAFT) is not None
