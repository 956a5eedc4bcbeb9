"""4-bit weights that stay dequantized from a layer's second forward to its backward, if the GPU has room for one layer;
and their scales in fp32, if it has room for those. Workers only.

With gradient checkpointing, each matrix of a layer is dequantized in both forwards and in the backward. The second
forward and the backward follow each other, so the backward reuses what the forward dequantized, and frees it. Below
UNPACKED_ROWS rows bitsandbytes does not dequantize for its product, and nothing is kept. down_proj, whose product is
not recomputed (core/engine/variants/fused_lora), is dequantized as before. It ends when a run has to save memory in any
way.

QLoRA's scales are quantized too (double quantization), and each use of a matrix first dequantizes them, in two small
kernels. Dequantized once for all, the values are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn import functional

from core.engine.variants import fused_lora
from core.files import is_out_of_memory
from core.memory import layers

if TYPE_CHECKING:
    from bitsandbytes.functional import QuantState


Kept = TypeVar("Kept")


class KeptWeights:
    """Keeps the weights of step.fused's layers, until `release`. It is one of step.fused's groups."""

    members: tuple[fused_lora._Member, ...] = ()

    def __init__(self, step: Any):
        """Replace the forward of each fused 4-bit base layer, and the fused layer's source of its weight."""
        self._retreat = step.retreat
        self._kept: dict[int, torch.Tensor] = {}
        plain = [member for group in step.fused.groups for member in group.members]
        self._layers = [member for member in plain if fused_lora._is_bits(member.layer, 4)]
        for number, member in enumerate(self._layers):
            base = member.layer.get_base_layer()
            base.forward = self._product(number, base)
            member.base_weight = self._weight(number, member)

    @property
    def is_on(self) -> bool:
        return bool(self._layers) and not self._retreat.reductions

    def _product(self, number: int, base: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return a forward for the base layer that, during a recomputation in the backward, keeps the weight it
        dequantizes for the gradient; at other times, with few rows or if switched off it is bitsandbytes' own."""

        def forward(x: torch.Tensor) -> torch.Tensor:
            again = torch._C._current_graph_task_id() != -1  # in a backward, which recomputes a layer
            # Otherwise bitsandbytes computes in another type than x's, and its own forward has to do it.
            plain = base.compute_dtype in (None, x.dtype)
            if not (again and plain and self.is_on and x.numel() >= layers.UNPACKED_ROWS * x.shape[-1]):
                return type(base).forward(base, x)
            weight = self._kept[number] = fused_lora._Member.base_weight(self._layers[number], x.dtype)
            return functional.linear(x, weight, None if base.bias is None else base.bias.to(x.dtype))

        return forward

    def _weight(self, number: int, member: fused_lora._Member) -> Callable[[torch.dtype], torch.Tensor]:
        """Return a function of dtype that removes and returns the kept weight, or dequantizes it if there is none."""

        def base_weight(dtype: torch.dtype) -> torch.Tensor:
            # Taken out, not only read: it is freed when this product is done, before the next layer is recomputed.
            kept = self._kept.pop(number, None)
            return fused_lora._Member.base_weight(member, dtype) if kept is None else kept

        return base_weight

    def forget(self) -> None:
        """Drop what an interrupted step had dequantized."""
        self._kept.clear()

    def release(self) -> None:
        self.forget()
        for member in self._layers:
            vars(member.layer.get_base_layer()).pop("forward", None)
            vars(member).pop("base_weight", None)


class KeptScales:
    """Keeps the scales of all 4-bit weights in fp32, until `forget`, which an interrupted step calls; the 8-bit ones
    are in RAM meanwhile. It is one of step.fused's groups."""

    members: tuple[fused_lora._Member, ...] = ()

    def __init__(self, step: Any):
        """Dequantize the nested scales of all 4-bit weights to fp32 in place; if the GPU's memory is not enough, all
        get their own back and training goes on without."""
        from bitsandbytes.functional import dequantize_blockwise

        self._own: list[tuple[QuantState, torch.Tensor, torch.device]] = []
        states = (getattr(getattr(module, "weight", None), "quant_state", None) for module in step.tuned.modules())
        try:
            for state in states:
                if state is not None and state.nested:
                    # Noted before it is changed, so that `forget` also undoes a loop that ran out of memory.
                    self._own.append((state, state.absmax.cpu(), state.absmax.device))
                    state.absmax = dequantize_blockwise(state.absmax, state.state2).add_(state.offset)
                    state.nested = False
        except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types
            self.forget()
            if not is_out_of_memory(error):
                raise

    @property
    def is_on(self) -> bool:
        return bool(self._own)

    def forget(self) -> None:
        """Return the scales to 8 bits."""
        while self._own:
            state, absmax, device = self._own.pop()
            state.absmax, state.nested = absmax.to(device), True

    release = forget


def keep(step: Any) -> KeptWeights:
    """Keep the weights of a step whose layers are fused."""
    return _added(step, KeptWeights(step))


def keep_scales(step: Any) -> KeptScales:
    """Keep the scales of a step whose layers are fused."""
    return _added(step, KeptScales(step))


def _added(step: Any, kept: Kept) -> Kept:
    step.fused = replace(step.fused, groups=(*step.fused.groups, kept))
    return kept
