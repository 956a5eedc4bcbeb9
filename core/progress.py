"""Progress of something slow: a download, tokenizing, saving."""

from __future__ import annotations

from typing import Protocol

from core.values import Frozen


class Progress(Frozen):
    done: float
    total: float
    unit: str  # "bytes", "rows", "steps", "tensors"


class RankUse(Frozen):
    """Memory and load of one of several ranks.

    device: its GPU, or the CPU; host: address of its PC if that is another. load_percent: of the GPU, as the driver
    reports it; None for a CPU, or if unreported.
    """

    device: str
    used_bytes: int
    total_bytes: int
    load_percent: int | None = None
    host: str | None = None


class Check(Protocol):
    """Callback of slow operations, such as reading a file, which it may end by raising. rows: read so far, if
    counted."""

    def __call__(self, rows: int = 0) -> None: ...


def go_on(rows: int = 0) -> None:
    """Do nothing: the Check of an operation that is never to be ended."""
