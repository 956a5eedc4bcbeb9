"""Dates as apps write them: three numbers whose order is inferred, and a 12 or 24 hour clock in several languages."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal

Order = Literal["dmy", "mdy", "ymd"]
Numbers = tuple[int, int, int, int, int, int]  # the three of the date as they stand, hour, minute, second

# What stands for the second half of the day, lower case without dots and blanks; each other word for the first half.
_AFTER_NOON = frozenset(["pm", "p", "下午", "晚上", "中午", "오후", "午後", "م", "μμ", "ch", "du"])
_BEFORE_NOON = frozenset(["am", "a", "上午", "凌晨", "早上", "清晨", "오전", "午前", "ص", "πμ", "sa"])
HALVES = "|".join((
    "[ap][.\u00a0\u202f ]{0,2}m\\.?", "上午", "下午", "凌晨", "早上", "清晨", "中午", "晚上", "오전", "오후", "午前",
    "午後", "[صم]",
))  # fmt: skip


def hour_of(hour: int, half: str | None) -> int:
    """Of 24. half: as it stands, None where there is none."""
    word = "".join(c for c in (half or "").lower() if c.isalpha())
    if word in _AFTER_NOON:
        return 12 if word == "中午" and hour == 12 else hour % 12 + 12
    return hour % 12 if word in _BEFORE_NOON and hour == 12 else hour


def order_of(found: Iterable[tuple[int, int, int]]) -> Order:
    """Day, month and year by what they can be; where both could be, the order in which time runs forward."""
    most = [0, 0, 0]
    backward = {"dmy": 0, "mdy": 0}
    before: tuple[int, int, int] | None = None
    for date in found:
        most = [max(pair) for pair in zip(most, date, strict=True)]
        if before is not None and date != before:
            backward["dmy"] += before[::-1] > date[::-1]
            backward["mdy"] += (before[2], before[0], before[1]) > (date[2], date[0], date[1])
        before = date
    if most[0] > 31:
        return "ymd"
    if most[0] > 12:
        return "dmy"
    if most[1] > 12:
        return "mdy"
    return "mdy" if backward["mdy"] < backward["dmy"] else "dmy"


def seconds(numbers: Numbers, order: Order) -> float | None:
    """Of the clock on the wall; None for a date that cannot be."""
    parts = dict(zip(order, numbers[:3], strict=True))
    year = parts["y"] + 2000 if parts["y"] < 100 else parts["y"]
    try:
        return datetime(year, parts["m"], parts["d"], *numbers[3:], tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def counted(stamp: object, per_second: int = 1) -> float | None:
    """Seconds of a number of them, or of parts of them; None for what is no number, and for one that no clock shows."""
    return stamp / per_second if isinstance(stamp, int | float) and abs(stamp) < 1e18 else None


def iso(written: object) -> float | None:
    """Seconds of what ISO 8601 says; of fractions more digits than Python takes may stand there."""
    if not isinstance(written, str):
        return None
    try:
        return datetime.fromisoformat(written.strip()).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
