"""Values that pass between rooms: their base, and units of memory."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MIB, GIB = 1 << 20, 1 << 30  # bytes


class Frozen(BaseModel):
    """An immutable value that is written as JSON. Files may hold keys of a later version; they are ignored."""

    model_config = ConfigDict(frozen=True)
