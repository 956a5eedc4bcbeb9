"""Activation offloading: the tensors that layers save for the backward are kept in RAM instead of on the GPU. Imports
torch: workers only.

Each large tensor that autograd saves is copied to pinned RAM and back when its layer's backward needs it; weights,
which are on the GPU anyway, and small tensors stay. With gradient checkpointing these are only the layers' inputs. The
copies cost time (twice tokens x layers x hidden size x 2 bytes per step over PCIe); on a CPU offloading is useless.
Once the system refuses to pin more, ordinary RAM is used, which is slower.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.engine.variants import pinned

SMALLEST_BYTES = 1 << 20  # below it a copy costs more than it saves


@dataclass(frozen=True)
class _Aside:
    copy: torch.Tensor
    device: torch.device


class Offload(torch.autograd.graph.saved_tensors_hooks):
    """The context around forward and backward. moved_bytes: offloaded so far."""

    def __init__(self, model: torch.nn.Module, pin_memory: bool = True):
        """Prepare a context for this model, whose weights are never copied. pin_memory: whether the copies go to pinned
        RAM, which a GPU reads by itself, until the system refuses one."""
        super().__init__(self._put_aside, self._fetch)
        self.moved_bytes = 0
        self._pin, self._device = pin_memory, next(model.parameters()).device
        # By their storage, for what autograd saves are often views: transposed, or a row of experts.
        self._weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def __enter__(self) -> Offload:  # torch's returns None
        """Enter the context and return it, where torch's own returns None. With pinned RAM the GPU's queued work is
        awaited first, so that the RAM of the last micro-batch can be reused."""
        if self._pin and self._device.type != "cpu":
            # otherwise pinned RAM that the last micro-batch still reads is not reused
            torch.get_device_module(self._device).current_stream(self._device).synchronize()
        super().__enter__()
        return self

    def _put_aside(self, tensor: torch.Tensor) -> torch.Tensor | _Aside:
        """Copy a saved tensor to RAM, pinned if possible, add its size to moved_bytes and return the copy; return small
        tensors and the model's weights as they are."""
        size = tensor.numel() * tensor.element_size()
        # Weights are on the GPU in any case; copying them would only cost time.
        if size < SMALLEST_BYTES or tensor.untyped_storage().data_ptr() in self._weights:
            return tensor
        copy = pinned.empty(tensor.size(), tensor.dtype) if self._pin else None
        if copy is None:
            self._pin, copy = False, torch.empty(tensor.size(), dtype=tensor.dtype, device="cpu")
        # What the GPU does next with tensor or copy is queued after this, and torch keeps the pinned RAM until then.
        copy.copy_(tensor, non_blocking=self._pin)
        self.moved_bytes += size
        return _Aside(copy, tensor.device)

    def _fetch(self, kept: torch.Tensor | _Aside) -> torch.Tensor:
        """Return a saved tensor for the backward: copied back to its device, or as it is if `_put_aside` left it."""
        return kept.copy.to(kept.device, non_blocking=self._pin) if isinstance(kept, _Aside) else kept
