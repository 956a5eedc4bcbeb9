"""Pinned RAM, which a GPU reads and writes by itself while the processor goes on, where the system grants it. Workers only."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def empty(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor | None:
    """An uninitialized tensor in pinned RAM, or None if the system refuses it: Windows and WSL pin at most half of the RAM, and
    less for a GPU that is nearly full.

    By torch's own allocation, which takes the error of a refusal away from CUDA when it raises it. A direct `cudaHostRegister`
    leaves it there, and the next kernel of the same thread fails by it (tests/kit/cuda.PlayedRuntime does the same).
    """
    try:
        return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=True)
    except RuntimeError:  # AcceleratorError in new versions of torch
        return None
