"""How far something is that takes a while: a download, tokenising, saving."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Progress(BaseModel):
    model_config = ConfigDict(frozen=True)
    done: float
    total: float
    unit: str  # "bytes", "rows", "steps", "tensors"
