"""What a rank has in use, measured by itself. Imports torch where it computes on a card."""

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
    """card: that this process computes on; None: a processor, or a card that the driver does not name. reserved: bytes of the allocator on a card, and
    what the card has; None: a processor."""

    def __init__(
        self, card: Card | None, reserved: Callable[[], tuple[int, int]] | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self._card, self._reserved, self._clock = card, reserved, clock
        self._device = (card.name if card else None) or (this_machine().cpu if reserved is None else None) or "?"
        self._looked_at = float("-inf")

    @classmethod
    def here(cls, on_card: bool, card: Card | None) -> UseOfRank:
        if not on_card:
            return cls(None)
        from torch import cuda

        return cls(card, lambda: (cuda.memory_reserved(0), cuda.mem_get_info()[1]))

    def look(self) -> RankUse | None:
        """At most one each EVERY_S, between them None; and where it cannot be asked."""
        if self._clock() - self._looked_at < EVERY_S:
            return None
        self._looked_at = self._clock()
        try:
            used, total = (
                self._reserved() if self._reserved else (psutil.Process().memory_info().rss, psutil.virtual_memory().total)
            )
        except (psutil.Error, OSError, RuntimeError):  # torch raises RuntimeError where the driver has given up
            return None
        now = gpu.newest(self._card) if self._card else None
        return RankUse(
            device=self._device, used_bytes=used, total_bytes=total, load_percent=now.utilization_percent if now else None
        )
