"""Numbers in answers: 1,962.5 and 1.962,5, full-width digits, units in English, German and Chinese."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from core.judges.texts import narrow

# name of a dimension -> factor: names. Only what can be converted without a date or a rate has several factors.
_UNITS: dict[str, dict[float, str]] = {
    "length": {
        1e-3: "mm millimetre millimeter millimetres millimeters 毫米",
        1e-2: "cm centimetre centimeter centimetres centimeters zentimeter zentimetern 厘米",
        1: "m metre metres meter meters metern 米",
        1e3: "km kilometre kilometres kilometer kilometers kilometern 公里 千米",
    },
    "mass": {
        1e-3: "mg milligram milligrams milligramm 毫克",
        1: "g gram grams gramm 克",
        1e3: "kg kilo kilos kilogram kilograms kilogramm 公斤 千克",
        1e6: "t tonne tonnes tonnen 吨",
    },
    "time": {
        1: "s sec second seconds sekunde sekunden 秒",
        60: "min minute minutes minuten 分钟",
        3600: "h hour hours stunde stunden 小时",
        86400: "day days tag tage tagen 天",
    },
    "volume": {
        1e-3: "ml millilitre millilitres milliliter milliliters millilitern 毫升",
        1: "l litre litres liter liters litern 升",
    },
    "percent": {1: "% percent prozent 百分之"},
    "EUR": {1: "€ eur euro euros 欧元"},
    "USD": {1: "$ usd dollar dollars 美元"},
    "GBP": {1: "£ gbp pound pounds 英镑"},
    "CNY": {1: "cny rmb yuan 元 人民币"},
    "celsius": {1: "°c celsius 摄氏度"},
    "fahrenheit": {1: "°f fahrenheit 华氏度"},
}
_BY_NAME = {
    name: (dimension, factor)
    for dimension, factors in _UNITS.items()
    for factor, names in factors.items()
    for name in names.split()
}
_TIMES = {"万": 1e4, "亿": 1e8, "thousand": 1e3, "tausend": 1e3, "million": 1e6, "millionen": 1e6, "mio": 1e6}
_BEFORE = ("€", "$", "£", "百分之")


def _any_of(names: Iterable[str]) -> str:
    """Return a pattern for any of the names, the longest first; no letter follows one that ends with a Latin letter."""
    longest_first = sorted(names, key=len, reverse=True)
    is_word = {name: name[-1].isascii() and name[-1].isalpha() for name in longest_first}
    return "|".join(re.escape(name) + (r"(?![^\W\d_])" if is_word[name] else "") for name in longest_first)


_SPACES = "\u0020\u00a0\u2009\u202f"
_NUMBER = re.compile(
    rf"(?P<before>{_any_of(_BEFORE)})?\s?"
    r"(?<![A-Za-z_\d])(?<![A-Za-z\d][.,])"  # no part of a name, a version, or a longer number
    r"(?P<sign>(?<![\w)\]])[-+])?"
    rf"(?P<number>\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?!\d)(?:[.,]\d+)?|\d+(?:[.,']\d+)*|\.\d+)"
    r"(?P<exponent>[eE][-+]?\d+(?!\d)|\s?[×x]\s?10\^-?\d+)?"
    rf"(?:\s*(?P<times>{_any_of(_TIMES)}))?"
    rf"(?:\s*(?P<unit>{_any_of(_BY_NAME)})(?P<compound>/\w+|[²³]|\^\d)?)?",
    re.IGNORECASE,
)
_FULL_WIDTH_COMMA = re.compile(r"(?<![０-９])，|，(?![０-９])")


@dataclass(frozen=True)
class Quantity:
    """A number with its unit. by_decimal: its value for each decimal separator that it can be read with; factor: how
    many of the base unit of its dimension one of its unit is."""

    text: str
    by_decimal: dict[str, float]
    dimension: str = ""
    factor: float = 1.0

    @property
    def is_ambiguous(self) -> bool:
        """True if its value depends on which sign is the decimal separator, as for 1.962."""
        return len(set(self.by_decimal.values())) > 1

    def with_decimal(self, separator: str) -> Quantity:
        """Return it as read with this decimal separator alone; unchanged if it cannot be read so."""
        value = self.by_decimal.get(separator)
        return self if value is None else replace(self, by_decimal={separator: value})


def quantities(text: str) -> list[Quantity]:
    """Return the numbers of a text, in order. A date (1.2.2024) or a version is none; 1,2,3 are three."""
    text = narrow(_FULL_WIDTH_COMMA.sub("; ", text)).replace("−", "-").replace("’", "'")
    return [quantity for match in _NUMBER.finditer(text) for quantity in _read(match)]


def _read(match: re.Match[str]) -> list[Quantity]:
    """Return [the quantity of a match], with sign, power and unit; for digits and commas that are no number, such as
    1,2,3, each of them."""
    number, times = match["number"], _TIMES.get((match["times"] or "").lower(), 1.0)
    if match["exponent"]:
        times *= 10.0 ** max(-300, min(300, int(re.findall(r"-?\d+", match["exponent"])[-1])))
    name = (match["before"] or match["unit"] or "").lower()
    dimension, factor = _BY_NAME.get(name, ("", 1.0))
    if match["compound"]:
        dimension, factor = name + match["compound"].lower(), 1.0
    sign = -1.0 if match["sign"] == "-" else 1.0
    values = {separator: _value(number, separator) for separator in ".,"}
    by_decimal = {separator: sign * value * times for separator, value in values.items() if value is not None}
    if by_decimal:
        return [Quantity(match[0].strip(), by_decimal, dimension, factor)]
    parts = number.split(",") if set(re.findall(r"\D", number)) == {","} else []
    return [Quantity(part, dict.fromkeys(".,", float(part))) for part in parts]


def _value(number: str, decimal: str) -> float | None:
    """Return the value of a number as read with a decimal separator, thousands grouped by the other or a space; None if
    it cannot be."""
    integer, separator, fraction = number.partition(decimal)
    if separator and not fraction.isdigit():
        return None
    thousands = {",": ".", ".": ","}[decimal]
    if not re.fullmatch(rf"\d*|[1-9]\d{{0,2}}(?:[{re.escape(thousands)}'{_SPACES}]\d{{3}})+", integer):
        return None
    value = float(re.sub(r"\D", "", integer or "0") + "." + (fraction or "0"))
    return value if math.isfinite(value) else None


def same(expected: Quantity, given: Quantity, tolerance: float, relative: float, any_reading: bool = False) -> bool:
    """Return whether given is expected within either tolerance (relative: to expected), in a unit of the same
    dimension; a missing unit is no difference. any_reading: also if the two, both ambiguous, are the same in different
    conventions only: 1,962 and 1.962."""
    has_units = bool(expected.dimension and given.dimension)
    if has_units and expected.dimension != given.dimension:
        return False
    scale = given.factor / expected.factor if has_units else 1.0
    must_agree = expected.is_ambiguous and given.is_ambiguous and not any_reading
    return any(
        abs(a - b * scale) <= max(tolerance, relative * abs(a), 1e-9 * max(1.0, abs(a)))
        for x, a in expected.by_decimal.items()
        for y, b in given.by_decimal.items()
        if x == y or not must_agree
    )
