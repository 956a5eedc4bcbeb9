"""JSON answers, compared field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from core.judges.texts import comparable

_FENCE = re.compile(r"```(?:json)?[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


def parse(text: str) -> tuple[object, bool]:
    """Return the JSON value of a text, which may be in a code fence or follow other text, and whether other text is
    around it. Raises ValueError without such a value."""
    text = text.strip()
    fences = list(_FENCE.finditer(text))
    if len(fences) == 1:
        return _loads(fences[0][1]), fences[0][0] != text
    try:
        return _loads(text), False
    except ValueError:
        begin = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
        if begin < 0:
            raise
        try:
            return _DECODER.raw_decode(text[begin:])[0], True
        except RecursionError:
            raise ValueError("too deep") from None


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (path, value) for the innermost values of a JSON value, items of lists counted from 1; strings as the exact
    judge compares them."""
    children = list(
        value.items() if isinstance(value, dict) else enumerate(value, 1) if isinstance(value, list) else ()
    )
    for name, child in children:
        yield from leaves(child, f"{path}.{name}" if path else str(name))
    if not children:
        yield path, comparable(value) if isinstance(value, str) else value


def equal(a: object, b: object) -> bool:
    """Return whether two leaves are equal; true is not 1."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _loads(text: str) -> object:
    """Return a text's JSON. Raises ValueError, also for one that is nested too deeply."""
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("too deep") from None


def _no_constant(name: str) -> object:
    """Raise ValueError for NaN and Infinity, which Python's JSON reader accepts."""
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
