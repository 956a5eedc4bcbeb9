"""The base class of values that pass between rooms, units of memory, and small arithmetic of what is shown."""

from __future__ import annotations

import math
import unicodedata

from pydantic import BaseModel, ConfigDict

MIB, GIB = 1 << 20, 1 << 30  # bytes


class Frozen(BaseModel):
    """An immutable value that is written as JSON. Files may hold keys of a later version; they are ignored."""

    model_config = ConfigDict(frozen=True)


class Strict(Frozen):
    """Where a key that is not known is a mistake: presets, and what the app makes itself."""

    model_config = ConfigDict(extra="forbid")


def width(text: str) -> int:
    """Columns of a terminal; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, 0.1, ...) that is not below value > 0, for the marks of an
    axis."""
    power = 10 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


Z = 1.96  # of a normal distribution: 95 %


def wilson(wins: float, count: int) -> tuple[float, float]:
    """(low, high) of a share of wins in count > 0, 95 %."""
    share, z2 = wins / count, Z * Z / count
    middle, half = share + z2 / 2, Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (middle - half) / (1 + z2), (middle + half) / (1 + z2)
