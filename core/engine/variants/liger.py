"""Liger's fused loss, if the library is installed and passes a test on the model's head, and its functions inside a
layer, which core/engine/variants/elementwise tests. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from core.files import is_out_of_memory

# hidden (K, h), weight (V, h), targets (K,) -> summed loss, float32 scalar, differentiable in hidden
Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
TOLERANCE = 0.02  # of the largest gradient: 16-bit products in another order
CARD = "cuda"


def find(weight: torch.Tensor, scale: float, cap: float | None) -> Kernel | None:
    """Return the kernel for heads of this width and dtype on this device, or None."""
    if weight.device.type != CARD:
        return None
    return proven(_liger(scale, cap), weight, scale, cap)


def _liger(scale: float, cap: float | None) -> Kernel | None:
    """Return Liger's loss with this scale and cap; None if it is not installed."""
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
    except ImportError:
        return None

    def kernel(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scaled = hidden * scale if scale != 1.0 else hidden
        loss = liger_fused_linear_cross_entropy(scaled, weight, targets, reduction="sum", softcap=cap)
        return (loss[0] if isinstance(loss, tuple) else loss).float()

    return kernel


def layers(device: torch.device) -> dict[str, Callable[..., Any]]:
    """Return replacements for functions of elementwise on this device, by name; {} if Liger is not installed.

    `silu` and `gelu` (gate, up), `turned` (queries, keys, cos, sin), `normed` (x, weight, eps) for norms that add 1 to
    their weight. Not Liger's plain norm: it also computes a frozen weight's gradient, which torch's kernel does not.
    """
    if device.type != CARD:
        return {}
    try:
        from liger_kernel.transformers import functional as of_liger

        normed, turn = of_liger.liger_rms_norm, of_liger.liger_rope
        return {
            "silu": of_liger.liger_swiglu,
            "gelu": of_liger.liger_geglu,
            "turned": lambda *given: tuple(turn(*given)[:2]),
            "normed": lambda x, weight, eps: normed(x, weight, eps, offset=1.0, casting_mode="gemma", in_place=False),
        }
    except (ImportError, AttributeError):  # a version without one of them
        return {}


def proven(kernel: Kernel | None, weight: torch.Tensor, scale: float, cap: float | None) -> Kernel | None:
    """Return kernel if its loss and gradient on 8 made-up positions equal plain PyTorch's; otherwise None."""
    if kernel is None:
        return None
    chance = torch.Generator().manual_seed(0)
    small = weight[: min(len(weight), 512)].detach()
    hidden = torch.randn(8, weight.shape[1], generator=chance).to(weight).requires_grad_()
    targets = torch.randint(len(small), (8,), generator=chance).to(weight.device)
    logits = functional.linear(hidden, small).float() * scale
    logits = logits if cap is None else torch.tanh(logits / cap) * cap
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    (of_hidden,) = torch.autograd.grad(expected, hidden)
    try:
        loss = kernel(hidden, small, targets)
        (ours,) = torch.autograd.grad(loss, hidden)
    except Exception as error:  # noqa: BLE001 - whatever a foreign kernel or its compiler raises, our own loss is there
        if is_out_of_memory(error):
            raise
        return None
    same_loss = torch.allclose(loss, expected, rtol=TOLERANCE)
    return kernel if same_loss and (ours - of_hidden).abs().max() <= TOLERANCE * of_hidden.abs().max() else None
