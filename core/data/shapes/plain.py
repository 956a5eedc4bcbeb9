"""What a row says that has texts in the columns of a format and nothing else, in a fifth of the time that a closer look takes. Where anything
is to be said of a row, the closer look (core/data/formats) says it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from core.data.shapes.known import COLUMNS, OPTIONAL
from core.recipe import Format

_PLAIN: dict[Format, tuple[str, ...]] = {  # what a question is made of, in its order, and the answer
    "question_answer": ("context", "question", "answer"),
    "alpaca": ("instruction", "input", "output"),
    "text_label": ("text", "label"),
}


def plain(values: Mapping[str, Any], format: Format) -> tuple[str, str] | None:
    """Question and answer; None: look closer."""
    names = _names(tuple(values), format)
    if names is None:
        return None
    asked, needed, answer = names
    said = values[answer]
    if not isinstance(said, str) or "<" in said or not said.strip():  # a thought begins with a mark
        return None
    parts = [values[name] for name in asked]
    if not all(isinstance(part, str) for part in parts) or not values[needed].strip():
        return None
    return "\n\n".join(part for part in parts if part.strip()), said


@lru_cache(maxsize=256)
def _names(given: tuple[Any, ...], format: Format) -> tuple[tuple[str, ...], str, str] | None:
    """The columns of the question, the one of them that must say something, and the answer; None where a row has others too, or one twice."""
    if format not in _PLAIN or not all(isinstance(name, str) for name in given):
        return None
    names = {name.strip().lower(): name for name in given}
    found = {ours: next((names[alias] for alias in COLUMNS[format][ours] if alias in names), None) for ours in _PLAIN[format]}
    read = {ours: name for ours, name in found.items() if name is not None}
    if not len(read) == len(set(read.values())) == len(given) == len(names) or not found.keys() - OPTIONAL <= read.keys():
        return None
    *asked, answer = read
    return tuple(read[ours] for ours in asked), read[next(ours for ours in asked if ours not in OPTIONAL)], read[answer]
