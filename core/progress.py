"""Progress of something slow: a download, tokenizing, saving."""

from __future__ import annotations

from typing import Protocol

from core.values import Frozen


class Progress(Frozen):
    done: float
    total: float
    unit: str  # "bytes", "rows", "steps", "tensors"


class RankUse(Frozen):
    """What one of several ranks has in use. device: its card, or the processor; host: address of its PC where that is
    another. load_percent: of the card, as the driver says; None of a processor, and where it is not told."""

    device: str
    used_bytes: int
    total_bytes: int
    load_percent: int | None = None
    host: str | None = None


class Check(Protocol):
    """Called often by whoever reads a file, and may raise, which ends it. rows: that were read so far, where they are
    counted."""

    def __call__(self, rows: int = 0) -> None: ...


def go_on(rows: int = 0) -> None: ...
