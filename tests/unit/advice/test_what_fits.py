"""What is said to fit does, and the next step up does not."""

from __future__ import annotations

import pytest

from core.advice import headroom
from core.memory import arithmetic
from core.memory.setup import Setup
from core.models.known import KnownModel, known_models

QLORA = Setup(method="qlora", r=16, max_length=1024)


def known(model_id: str) -> KnownModel:
    return next(model for model in known_models() if model.id == model_id)


def needed(model: KnownModel, setup: Setup, **changes: object) -> float:
    return arithmetic.estimate(model.shape, setup.model_copy(update=changes)).needed_gib


@pytest.mark.parametrize("free", [6.0, 9.0, 14.0, 22.0])
def test_the_longest_length_fits_and_a_step_more_does_not(free: float) -> None:
    model = max((m for m in known_models() if m.shape.params < 9e9), key=lambda m: m.shape.params)
    found = headroom.longest(model.shape, QLORA, free)
    if found is None:
        assert needed(model, QLORA, max_length=64) > free
        return
    assert needed(model, QLORA, max_length=found) <= free
    if found < model.shape.max_position_embeddings:
        assert needed(model, QLORA, max_length=found + 64) > free


def test_no_length_goes_beyond_what_the_model_reads() -> None:
    model = known("tinyllama-1.1b-chat")
    assert headroom.longest(model.shape, QLORA, 500.0) == 2048


def test_the_largest_rank_fits_and_the_next_does_not() -> None:
    model = known("qwen3-1.7b")
    free = needed(model, QLORA, r=32) + 0.001
    assert headroom.largest_rank(model.shape, QLORA, free) == 32
    assert headroom.largest_rank(model.shape, QLORA, 0.1) is None


def test_the_largest_of_the_family_is_of_the_same_maker() -> None:
    model = known("qwen3-0.6b")
    found = headroom.largest_of_family(model, QLORA, 10.0)
    assert found is not None and found.hub.startswith("Qwen/") and found.shape.model_type == "qwen3"
    assert found.shape.params > model.shape.params
    assert headroom.largest_of_family(model, QLORA, 0.1) is None


def test_the_starter_counts_as_one_of_its_family() -> None:
    found = headroom.largest_of_family(known("starter"), QLORA, 40.0)
    assert found is not None and found.id == "smollm2-1.7b-instruct"
