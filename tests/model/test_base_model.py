"""A base as it is loaded: repositories that are quantised already, and types that its numbers do not fit into."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.engine import base_model
from tests.kit.trainer import FP32, tiny_base

IDS = torch.arange(5, 21)[None]


@pytest.fixture(scope="module")
def in_4_bit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model, and the same saved in 4 bit that computes in bfloat16, as unsloth's repositories are."""
    plain, quantised = (tmp_path_factory.mktemp(name) for name in ("plain", "in-4-bit"))
    tiny_base().save_pretrained(plain)
    AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=base_model.nf4(torch.bfloat16), device_map={"": "cpu"}
    ).save_pretrained(quantised)
    return plain, quantised


def test_a_repository_in_4_bit_computes_in_our_type(in_4_bit: tuple[Path, Path]) -> None:
    """Seen in the code: its own bfloat16 won, many times slower on an RTX 20; and on a processor the trap of its weights stayed open."""
    plain, quantised = in_4_bit
    ours, theirs = base_model.load(plain, FP32, four_bit=True), base_model.load(quantised, FP32, four_bit=False)
    layer = theirs.model.layers[0].mlp.down_proj
    assert (layer.compute_dtype, layer.weight.quant_state.dtype) == (torch.float32, torch.float32)
    assert not layer.support_avx512bf16_for_cpu
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-6)
