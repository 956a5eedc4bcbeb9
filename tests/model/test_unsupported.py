"""What is tried on a family and has a substitute: a full or broken device is said as such, and not taken for another
family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine import adapter, attention
from core.engine.loss import Head
from core.engine.variants import elementwise, fused_lora, varlen
from core.recipe import Adapter
from tests.kit.trainer import tiny_base

OF_DEVICE = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
]


def failing(error: Exception, call: int = 1) -> Callable[..., Any]:
    """A hook, or a function, that raises at the given call, counted from 1."""
    calls = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        if len(calls) == call:
            raise error

    return fail


@pytest.mark.parametrize("error", OF_DEVICE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("attempt", "call"),
    [
        (attention.enable, 1),
        (attention.enable, 2),
        (Head.from_model, 1),
        (fused_lora.fuse, 1),
        (elementwise.install, 1),
    ],
    ids=["packing-own", "packing", "head", "fused", "norms"],
)
def test_a_full_or_broken_device_is_no_other_family(
    attempt: Callable[[Any], Any], call: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked like this: rows were padded, or all logits computed, on a card that was nearly full, and nothing was
    said."""
    tuned = adapter.add(tiny_base(), Adapter(r=4), "tiny", None)
    model = tuned.get_base_model()
    fail = failing(error, call)
    model.get_decoder().register_forward_pre_hook(fail)
    monkeypatch.setattr(elementwise, "_outputs_and_gradients", fail)
    with pytest.raises(type(error), match=str(error)[-20:]):
        attempt(tuned if attempt in (fused_lora.fuse, elementwise.install) else model)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape '[2, 3]' is invalid"), KeyError("cache")], ids=["runtime", "key"]
)
def test_another_family_has_the_substitute(error: Exception) -> None:
    model = tiny_base()
    model.get_decoder().register_forward_pre_hook(failing(error))
    assert not attention.enable(model)
    model.get_decoder().register_forward_pre_hook(failing(error))
    assert not Head.from_model(model).alone


def test_a_full_card_is_no_kernel_that_it_lacks() -> None:
    fail = failing(OF_DEVICE[0])
    with pytest.raises(torch.OutOfMemoryError):
        varlen.proven(fail, torch.device("cpu"), torch.float32, (4, 2, 2), 8, None)
    lacks = RuntimeError("No viable backend for varlen_attn.")
    assert varlen.proven(failing(lacks), torch.device("cpu"), torch.float32, (4, 2, 2), 8, None) is None
