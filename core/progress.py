"""How far something is that takes a while: a download, tokenising, saving."""

from __future__ import annotations

from typing import Protocol

from core.values import Frozen


class Progress(Frozen):
    done: float
    total: float
    unit: str  # "bytes", "rows", "steps", "tensors"


class Check(Protocol):
    """Called often by whoever reads a file, and may raise, which ends it. rows: that were read so far, where they are counted."""

    def __call__(self, rows: int = 0) -> None: ...


def go_on(rows: int = 0) -> None: ...
