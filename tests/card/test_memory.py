"""The real caching allocator on the null card, in a short form of tests/card/sweep.py: peaks that were kept, and rows
of every length."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.models.known import known_models
from tests.card.card import NullCard
from tests.card.sweep import ALLOCATOR, OnCard, config_of, fitted, on_ragged_rows
from tests.kit.allocator_points import LENGTHS, read, rows_of

STEPS = 200


@pytest.fixture(scope="module")
def process() -> Iterator[OnCard]:
    process = OnCard(NullCard())
    yield process
    process.close()


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_allocator_needs_what_it_needed(process: OnCard, method: str) -> None:
    """What tests/unit/memory/test_allocator_points.py holds the estimate against is what this torch and these libraries
    do."""
    model = next(each for each in known_models() if each.id == "qwen3-0.6b")
    kept = {(p.rows, p.checkpointing, p.tokens): p.mib for p in read() if (p.model, p.method) == (model.id, method)}
    cases = [(packing, True, rows_of(LENGTHS[-1], packing)) for packing in (True, False)]
    answers = list(process.answers(task="sweep", config=config_of(model), is_whole=False, method=method, cases=cases))
    points = {(p.rows, p.checkpointing, p.tokens): p.mib for p in fitted(model.id, method, answers)}
    assert len(points) == 2
    for case, mib in points.items():
        assert mib == pytest.approx(kept[case], rel=0.01), case


@pytest.mark.parametrize("system", ALLOCATOR)
def test_rows_of_every_length_neither_fail_nor_grow(system: str) -> None:
    answers = [each for each in on_ragged_rows(NullCard(), system, STEPS) if "step" in each]
    assert answers[-1]["step"] == STEPS and not answers[-1]["failed"], answers
    first, second = answers[: len(answers) // 2], answers[len(answers) // 2 :]
    assert max(each["held"] for each in second) <= max(each["held"] for each in first)
    assert max(each["reserved"] for each in second) <= 1.02 * max(each["reserved"] for each in first)
    assert all(each["reserved"] <= 1.12 * each["allocated"] for each in answers), answers
