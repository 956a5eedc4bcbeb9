"""A rank's memory and load, measured by itself. Imports torch if it computes on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from core.progress import RankUse
from core.system import gpu
from core.system.gpu import Card
from core.system.machine import this_machine

EVERY_S = 2.0


class UseOfRank:
    """Measures this rank's memory and load. card: the GPU of this process; None: a CPU, or a GPU unknown to the driver.
    reserved: the allocator's bytes and the GPU's total; None: a CPU."""

    def __init__(
        self,
        card: Card | None,
        reserved: Callable[[], tuple[int, int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Note how to measure, and the device's name: the GPU's, else the processor's."""
        self._card, self._reserved, self._clock = card, reserved, clock
        self._device = (card.name if card else None) or (this_machine().cpu if reserved is None else None) or "?"
        self._read_at = float("-inf")

    @classmethod
    def of_this_process(cls, on_card: bool, card: Card | None) -> UseOfRank:
        """Return the measurer of the GPU if on_card (card: its entry of the driver, if any), else of this process's
        RAM."""
        if not on_card:
            return cls(None)
        from torch import cuda

        return cls(card, lambda: (cuda.memory_reserved(0), cuda.mem_get_info()[1]))

    def read(self) -> RankUse | None:
        """Measure this rank's memory in use and in all, and its GPU's load; None if it was measured within EVERY_S, or
        cannot be."""
        if self._clock() - self._read_at < EVERY_S:
            return None
        self._read_at = self._clock()
        try:
            used, total = (
                self._reserved()
                if self._reserved
                else (psutil.Process().memory_info().rss, psutil.virtual_memory().total)
            )
        except (psutil.Error, OSError, RuntimeError):  # torch raises RuntimeError if the driver fails
            return None
        now = gpu.newest(self._card) if self._card else None
        return RankUse(
            device=self._device,
            used_bytes=used,
            total_bytes=total,
            load_percent=now.utilization_percent if now else None,
        )
