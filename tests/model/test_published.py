"""The arithmetic against the dry run for a published model of each family, at its real widths and on no memory."""

from __future__ import annotations

import pytest

from benchmarks import published
from tests.kit import families

IN_THE_GATE = ("qwen3_5", "granitemoehybrid", "gemma3", "ernie4_5")


def test_every_family_has_its_published_model() -> None:
    assert set(published.SHAPES) == set(families.FAMILIES)


@pytest.mark.parametrize("method", ["qlora", pytest.param("lora", marks=pytest.mark.full)])
@pytest.mark.parametrize(
    "family", [name if name in IN_THE_GATE else pytest.param(name, marks=pytest.mark.full) for name in published.SHAPES]
)
def test_arithmetic_and_dry_run_agree_within_5_percent(family: str, method: str) -> None:
    """Granite 4 H Micro was 14 % short, 74 without checkpointing; a dense model is within 0.1."""
    (one,) = published.compare([family], [method])
    assert one.trained[0] == one.trained[1] and abs(one.off) <= 0.05, one


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=pytest.mark.full) for name in ("qwen3_5", "granite4_dense", "falcon_h1")]
)
def test_what_linear_attention_and_state_spaces_keep_is_counted(family: str) -> None:
    (one,) = published.compare([family], ["qlora"], gradient_checkpointing=False)
    assert abs(one.off) <= 0.05, one
