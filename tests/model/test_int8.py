"""A base in 8 bit (LLM.int8): its bytes, its gradients, and packing beside outliers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.data.labels import Encoded
from core.engine import attention, base_model
from core.engine.batches import collate
from core.engine.loss import summed_loss
from core.engine.variants import fused_lora
from core.memory import arithmetic
from core.memory.setup import Setup
from core.models.known import known_models
from tests.kit.adapters import adapted
from tests.kit.trainer import FP32


@pytest.fixture(scope="module")
def int8_base(starter_folder: Path) -> Any:
    """The starter, for its outliers."""
    return base_model.load(starter_folder, FP32, four_bit=False, eight_bit=True)


def test_the_bytes_of_an_int8_base_are_those_of_the_loaded_starter(int8_base: Any) -> None:
    kept = sum(p.nbytes for p in int8_base.parameters())
    kept += sum(scales.nbytes for module in int8_base.modules() if (scales := scales_of(module)) is not None)
    assert arithmetic.weights(known_models()[0].shape, Setup(load_in_8bit=True, base_bytes=4)) == pytest.approx(
        kept, rel=1e-3
    )


def scales_of(layer: Any) -> torch.Tensor | None:
    """They move to the layer's state in its first product."""
    if type(layer).__name__ != "Linear8bitLt":
        return None
    return layer.weight.SCB if layer.state.SCB is None else layer.state.SCB


def test_an_int8_base_is_packed_unless_its_attention_leaks(int8_base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: another first example changes which columns are rounded to 8 bit, so that no base with outliers was ever
    packed."""
    thresholds = [module.state.threshold for module in int8_base.modules() if hasattr(module, "state")]
    packed = attention.packed_sdpa
    try:
        assert attention.enable(int8_base)
        assert (
            thresholds
            and [module.state.threshold for module in int8_base.modules() if hasattr(module, "state")] == thresholds
        )
        int8_base.set_attn_implementation("sdpa")
        monkeypatch.setattr(attention, "packed_sdpa", lambda *states, lengths=None, **more: packed(*states, **more))
        assert not attention.enable(int8_base)
    finally:
        int8_base.set_attn_implementation("sdpa")


def test_int8_gradients_are_those_of_pefts_own_product(int8_base: Any) -> None:
    """On a processor bitsandbytes trains on the dequantised weights; on a card it also rounds what flows through."""
    tuned = adapted(int8_base, target_modules="q_proj,k_proj,v_proj,down_proj").train()
    ids = torch.arange(100, 132).reshape(2, 16).tolist()
    batch = collate([Encoded(row, [True] * 16) for row in ids], 0, FP32.device)

    def gradient() -> tuple[torch.Tensor, torch.Tensor]:
        tuned.zero_grad()
        loss = summed_loss(tuned, batch)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])

    theirs, reference = gradient()
    fused = fused_lora.fuse(tuned)
    assert fused.reason is None
    ours, mine = gradient()
    fused.release()
    tuned.unload()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert torch.nn.functional.cosine_similarity(mine, reference, 0) > 0.99999
