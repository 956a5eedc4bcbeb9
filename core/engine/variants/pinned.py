"""Pinned RAM, which a GPU reads and writes by itself while the processor continues, where the system grants it. Workers
only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

ALIGNED = 512  # bytes; the alignment of torch's allocator, more than any kernel needs


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
    """Return an uninitialized tensor in pinned RAM, or None if the system refuses it: Windows and WSL pin at most half
    of the RAM, and less for a GPU that is nearly full.

    torch's own allocation is used, which clears the error of a refusal from CUDA when it raises it. A direct
    `cudaHostRegister` leaves it there, and the next kernel of the same thread fails by it (tests/kit/cuda.PlayedRuntime
    does the same).
    """
    try:
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=True)
    except RuntimeError:  # AcceleratorError in new versions of torch
        return None


def sent(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Copy tensors from RAM to device, all in one copy that the processor does not wait for; return the copies, for a
    CPU the tensors themselves.

    They share one pinned buffer, which need not outlive this call: torch's allocator of pinned RAM notes the copy and
    reuses the buffer only when the copy is done. If the system refuses to pin it, the copy is done when this returns.
    """
    if device.type == "cpu":
        return list(tensors)
    starts = [0, *accumulate(aligned(each.nbytes) for each in tensors)]
    buffer = empty((starts[-1],), torch.uint8)
    # Other memory may be freed before the copy is done.
    waits = buffer is None
    buffer = torch.empty(starts[-1], dtype=torch.uint8) if buffer is None else buffer
    for start, each in zip(starts, tensors, strict=False):
        within(buffer, start, each).copy_(each)
    there = buffer.to(device, non_blocking=not waits)
    return [within(there, start, each) for start, each in zip(starts, tensors, strict=False)]


def aligned(size: int) -> int:
    """Return size rounded up to a multiple of ALIGNED."""
    return -(-size // ALIGNED) * ALIGNED


def within(buffer: torch.Tensor, start: int, like: torch.Tensor) -> torch.Tensor:
    """View buffer, of bytes, from byte start as a tensor of like's shape and dtype."""
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)
