"""The arithmetic against the dry run for a published model of each family, at its real widths and on no memory."""

from __future__ import annotations

import pytest

from benchmarks import published
from core.memory.arithmetic import estimate
from core.memory.setup import Setup
from core.models.known import known_models
from core.trial.dry_run import dry_run
from core.trial.dry_runs import Question
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
    "family",
    [
        pytest.param(name, marks=pytest.mark.full)
        for name in ("qwen3_5", "granite4_dense", "falcon_h1", "gemma4_unified")
    ],
)
def test_what_linear_attention_and_state_spaces_keep_is_counted(family: str) -> None:
    (one,) = published.compare([family], ["qlora"], gradient_checkpointing=False)
    assert abs(one.off) <= 0.05, one


@pytest.mark.full
def test_heads_that_are_wider_in_some_layers_are_counted() -> None:
    """Gemma 4 12B was 16 % short at 4 rows of 2,048 tokens."""
    (one,) = published.compare(["gemma4_unified"], ["qlora"], max_length=2048, per_device_train_batch_size=4)
    assert abs(one.off) <= 0.02, one


@pytest.mark.parametrize("model_id", ["gemma-4-e2b", pytest.param("gemma-4-e4b", marks=pytest.mark.full)])
def test_what_embeddings_in_every_layer_give_a_long_text_is_counted(model_id: str) -> None:
    """With the embedding itself in RAM, the arithmetic was 18 % short of E2B at 4,096 tokens: its rows, and its wider
    MLP."""
    [known] = [model for model in known_models() if model.id == model_id]
    assert known.config is not None
    setup = Setup(method="qlora", max_length=4096)
    dry = dry_run(Question(config=known.config, setup=setup)).estimate
    assert estimate(known.shape, setup).allocated_gib == pytest.approx(dry.allocated_gib, rel=0.03)
