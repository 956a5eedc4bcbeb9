"""Base classes of values that pass between rooms, units of memory, and small arithmetic for display."""

from __future__ import annotations

import math
import unicodedata

from pydantic import BaseModel, ConfigDict

MIB, GIB = 1 << 20, 1 << 30  # bytes


class Frozen(BaseModel):
    """An immutable value that is written as JSON. Unknown keys, as of a later version, are ignored."""

    model_config = ConfigDict(frozen=True)


class Strict(Frozen):
    """An immutable value in which an unknown key is an error: presets, and values that the app itself makes."""

    model_config = ConfigDict(extra="forbid")


def width(text: str) -> int:
    """Return the columns of text in a terminal; a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def round_up(value: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, 0.1, ...) not below value > 0, for the marks of an axis."""
    power = 10 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value)


Z = 1.96  # of a normal distribution: 95 %


def wilson(wins: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of a share of wins in count > 0."""
    share, z2 = wins / count, Z * Z / count
    middle, half = share + z2 / 2, Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return (middle - half) / (1 + z2), (middle + half) / (1 + z2)
