"""Numbers that stand for something in a list: decides over all rows if they count from 0 or from 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Base = Literal[0, 1]


def number_of(value: object) -> int | None:
    """Return the whole number that a value is: 3, 3.0, "3"; None for anything else, and for a million or more."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e6 else None
    if isinstance(value, int):
        return value if abs(value) < 1_000_000 else None
    text = value.strip() if isinstance(value, str) else ""
    text = text.removesuffix(".0")  # as a spreadsheet writes a number
    return int(text) if len(text) < 7 and text.removeprefix("-").isdecimal() and text.isascii() else None


@dataclass
class Numbering:
    """The numbers of many rows. lowest, highest: of all; has_zero: one is 0; has_last: one is the length of its
    list."""

    lowest: int = 1 << 30
    highest: int = -1
    has_zero: bool = False
    has_last: bool = False

    def add(self, number: int, length: int) -> None:
        """Count a number that points into a list of this length, and note if it is 0 or the length itself."""
        self.lowest, self.highest = min(self.lowest, number), max(self.highest, number)
        self.has_zero |= number == 0
        self.has_last |= number == length

    @property
    def base(self) -> Base | None:
        """0 or 1; None if both are possible, or neither."""
        return None if self.has_zero == self.has_last else 0 if self.has_zero else 1
