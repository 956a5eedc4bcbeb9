"""A card that is none: torch.cuda's own questions answered by a caching allocator of a few lines, as Linux or as Windows drives it.

What is reserved shrinks only by `empty_cache`, or by a refusal. On Linux a full card refuses; on Windows (WDDM) and WSL the driver
gives RAM instead, so that nothing refuses but a fraction that was set. Tensors stay the processor's: `use` says what a step needs.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from core.system.gpu import Card, Nvidia
from core.system.machine import Machine
from core.values import GIB


class FakeCuda:
    """Sizes in GiB. others: what other programs hold of total; spills: whether the driver gives RAM in place of a full card; context: of
    CUDA itself, from the moment that cuBLAS is asked for."""

    def __init__(self, total: float = 8.0, others: float = 1.0, spills: bool = True, context: float = 0.0):
        self.total, self.others, self.spills = total, others, spills
        self.held = self.reserved = self.peak = 0.0
        self.context, self.begun = context, False
        self.fraction = 1.0
        self.refused = 0

    def machine(self, system: str = "Windows") -> Machine:
        """As NVML sees it now."""
        used = self.others + self.reserved + (self.context if self.begun else 0.0)
        card = Card(
            index=0, name="RTX", uuid="GPU-1", total_bytes=int(self.total * GIB), free_bytes=int(max(0.0, self.total - used) * GIB),
            used_bytes=int(min(self.total, used) * GIB),
        )  # fmt: skip
        return Machine(system=system, nvidia=Nvidia(driver="580", cards=(card,)))

    def use(self, size: float) -> None:
        """Take so much, and give it back to the allocator. Raises torch's OutOfMemoryError."""
        most = self.total * self.fraction
        if not self.spills:
            most = min(most, self.total - self.others)
        if self.held + size > most:
            self.reserved = self.held  # cached blocks are given back before it is refused
            self.refused += 1
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size:.2f} GiB")
        self.reserved = max(self.reserved, self.held + size)
        self.peak = max(self.peak, self.reserved)

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """For torch.cuda."""
        names = (
            "empty_cache", "reset_peak_memory_stats", "max_memory_reserved", "max_memory_allocated", "memory_reserved", "mem_get_info",
            "synchronize", "get_device_properties", "set_per_process_memory_fraction",
            "current_blas_handle", "memory_allocated", "get_per_process_memory_fraction",
        )  # fmt: skip
        for name in names:
            patch.setattr(torch.cuda, name, getattr(self, name))

    # ---- torch.cuda's -----------------------------------------------------------------------------------------------
    def empty_cache(self) -> None:
        self.reserved = self.held

    def reset_peak_memory_stats(self) -> None:
        self.peak = self.reserved

    def max_memory_reserved(self) -> int:
        return int(self.peak * GIB)

    max_memory_allocated = max_memory_reserved

    def memory_allocated(self, device: object = 0) -> int:
        return int(self.held * GIB)

    def get_per_process_memory_fraction(self, device: object = 0) -> float:
        return self.fraction

    def memory_reserved(self, device: object = 0) -> int:
        return int(self.reserved * GIB)

    def mem_get_info(self, device: object = 0) -> tuple[int, int]:
        return int(max(0.0, self.total - self.others - self.reserved) * GIB), int(self.total * GIB)

    def current_blas_handle(self) -> int:
        self.begun = True
        return 0

    def synchronize(self, device: object = None) -> None: ...

    def get_device_properties(self, device: object) -> SimpleNamespace:
        return SimpleNamespace(uuid="1")

    def set_per_process_memory_fraction(self, fraction: float, device: object = 0) -> None:
        self.fraction = fraction
