"""Parses dates as apps write them: three numbers whose order is inferred, and a 12 or 24 hour clock in several
languages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

Order = Literal["dmy", "mdy", "ymd"]
Numbers = tuple[int, int, int, int, int, int]  # the date's three in their order in the text, then hour, minute, second

# Words for the second half of the day, in lower case without dots and blanks.
_AFTER_NOON = frozenset(["pm", "p", "下午", "晚上", "中午", "오후", "午後", "م", "μμ", "ch", "du"])
_BEFORE_NOON = frozenset(["am", "a", "上午", "凌晨", "早上", "清晨", "오전", "午前", "ص", "πμ", "sa"])
HALVES = "|".join((
    "[ap][.\u00a0\u202f ]{0,2}m\\.?", "上午", "下午", "凌晨", "早上", "清晨", "中午", "晚上", "오전", "오후", "午前",
    "午後", "[صم]",
))  # fmt: skip
# 31/12/2025 9:05 pm, 2025-12-31T21:05:10, 2025년 12월 31일
_WRITTEN = re.compile(
    r"(\d{1,4})(?:[/-]|[년年.] ?)(\d{1,2})(?:[/-]|[월月.] ?)(\d{1,4})[일日.]?,?"
    r"(?:[\sT]+(\d{1,2}):(\d{2})(?::(\d{2}))?(?:[.,]\d+)?\s*([ap]m)?)?",
    re.IGNORECASE,
)


def hour_of(hour: int, half: str | None) -> int:
    """Return the hour from 0 to 23. half: the word beside it in the text for the half of the day (pm, a.m., 下午); with
    None or an unknown word the hour stays as it is."""
    word = "".join(c for c in (half or "").lower() if c.isalpha())
    if word in _AFTER_NOON:
        return hour % 12 + 12
    return hour % 12 if word in _BEFORE_NOON and hour == 12 else hour


def order_of(dates: Iterable[tuple[int, int, int]]) -> Order:
    """Infer the order of day, month and year from their values ("ymd", "dmy" or "mdy"); if "dmy" and "mdy" both fit,
    the one in which time runs backward less often, "dmy" for a tie."""
    most = [0, 0, 0]
    backward = {"dmy": 0, "mdy": 0}
    before: tuple[int, int, int] | None = None
    for numbers in dates:
        most = [max(pair) for pair in zip(most, numbers, strict=True)]
        if before is not None and numbers != before:
            # Compared as year, month, day, under either order.
            backward["dmy"] += before[::-1] > numbers[::-1]
            backward["mdy"] += (before[2], before[0], before[1]) > (numbers[2], numbers[0], numbers[1])
        before = numbers
    # A number above 12 is no month, one above 31 no day.
    if most[0] > 31:
        return "ymd"
    if most[0] > 12:
        return "dmy"
    if most[1] > 12:
        return "mdy"
    return "mdy" if backward["mdy"] < backward["dmy"] else "dmy"


def seconds(numbers: Numbers, order: Order) -> float | None:
    """Return seconds since 1970 of a local time, taken as UTC; None for an impossible date. Years below 100 are of 2000
    on."""
    parts = dict(zip(order, numbers[:3], strict=True))
    year = parts["y"] + 2000 if parts["y"] < 100 else parts["y"]
    try:
        return datetime(year, parts["m"], parts["d"], *numbers[3:], tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def stamp_to_seconds(stamp: object, per_second: int = 1) -> float | None:
    """Return a time stamp in seconds: stamp divided by per_second, which is 1000 for milliseconds. None for what is no
    number, and for one of 1e18 or more."""
    return stamp / per_second if isinstance(stamp, int | float) and abs(stamp) < 1e18 else None


def parse_iso(value: object) -> float | None:
    """Parse ISO 8601 to seconds since 1970, its time zone ignored; None if it is no date. Fractions may have any number
    of digits."""
    if not isinstance(value, str):
        return None
    try:
        return datetime.fromisoformat(value.strip()).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def numbers_in(value: object) -> Numbers | None:
    """Parse "31/12/2025 9:05 pm" to three numbers of the date as written, hour, minute and second; None for any other
    text."""
    match = _WRITTEN.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    first, second, third, hour, minute, second_of, half = match.groups()
    return int(first), int(second), int(third), hour_of(int(hour or 0), half), int(minute or 0), int(second_of or 0)


def moment(value: object, order: Order) -> float | None:
    """Return seconds since 1970 for a date, a number of seconds (or of their thousandths, millionths, billionths), or a
    text: ISO 8601, a date in this order of numbers, or that of an e-mail. None for anything else."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).timestamp()
    if isinstance(value, str) and re.fullmatch(r"\d{9,19}(?:\.\d{1,9})?", value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # In the unit by which it lies between 1973 and 2286: no chat is from other times.
        scale = next((scale for scale in (1, 1e3, 1e6, 1e9) if 1e8 <= value / scale < 1e10), None)
        return value / scale if scale else None
    if (when := parse_iso(value)) is not None:
        return when
    if numbers := numbers_in(value):
        return seconds(numbers, order)
    try:
        return parsedate_to_datetime(value).replace(tzinfo=UTC).timestamp() if isinstance(value, str) else None
    except (ValueError, TypeError, OverflowError):
        return None
