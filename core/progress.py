"""How far something is that takes a while: a download, tokenising, saving."""

from __future__ import annotations

from core.values import Frozen


class Progress(Frozen):
    done: float
    total: float
    unit: str  # "bytes", "rows", "steps", "tensors"
