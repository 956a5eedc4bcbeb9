"""4-bit weights kept unpacked from a layer's second forward to its backward, where a card has room for one layer of them. Workers only.

With gradient checkpointing a layer is computed twice, and each time and in the backward each of its matrices is unpacked. The second
forward and the backward follow each other: what the first of them unpacked the other takes, and lets go. From so many
rows as UNPACKED_ROWS says bitsandbytes' own product unpacks first too, and with fewer nothing is kept. down_proj, whose product is not made again
(core/engine/fused_lora), is unpacked as before. Any way to save memory that a run takes later ends it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from core.engine import fused_lora
from core.memory import arithmetic


class KeptWeights:
    """Of the layers of step.fused, until `release`; stands among its groups."""

    members: tuple[Any, ...] = ()

    def __init__(self, step: Any):
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
        return bool(self._layers) and not self._retreat.taken

    def _product(self, number: int, base: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            again = torch._C._current_graph_task_id() != -1  # in a backward, which computes a layer again
            plain = base.compute_dtype in (None, x.dtype)
            if not (again and plain and self.is_on and x.numel() >= arithmetic.UNPACKED_ROWS * x.shape[-1]):
                return type(base).forward(base, x)
            weight = self._kept[number] = fused_lora._Member.base_weight(self._layers[number], x.dtype)
            return functional.linear(x, weight, None if base.bias is None else base.bias.to(x.dtype))

        return forward

    def _weight(self, number: int, member: Any) -> Callable[[torch.dtype], torch.Tensor]:
        def base_weight(dtype: torch.dtype) -> torch.Tensor:
            kept = self._kept.pop(number, None)
            return fused_lora._Member.base_weight(member, dtype) if kept is None else kept

        return base_weight

    def forget(self) -> None:
        """What a step that was left half-way had unpacked."""
        self._kept.clear()

    def release(self) -> None:
        self.forget()
        for member in self._layers:
            vars(member.layer.get_base_layer()).pop("forward", None)
            vars(member).pop("base_weight", None)


def keep(step: Any) -> KeptWeights:
    """Begin it for a step whose layers are fused."""
    kept = KeptWeights(step)
    step.fused = replace(step.fused, groups=(*step.fused.groups, kept))
    return kept
