"""The messages of a JSON export, streamed, however large the file is."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import ijson

from core.data.reading.rows import Source
from core.errors import DataError

OPENING = 1 << 18  # characters in which an export says what it is
DEEPEST = 200  # levels; an export has ten
# characters: with each part that is read of a text ijson looks at it from its beginning, of 100 MB for minutes
AT_ONCE = 4 << 20


# ijson 3.6's yajl2_c ends the whole process at an integer of more digits than Python's int() takes, 4,300 (seen
# 2026-11).
_LONG_NUMBER = re.compile(r"\d{4000}")


class _Utf8:
    """A text file as the bytes that ijson wants. Raises ValueError where a number is too long to be one."""

    def __init__(self, file: io.TextIOBase):
        self._file, self._tail = file, ""

    def read(self, size: int = -1) -> bytes:
        text = self._file.read(size)
        if _LONG_NUMBER.search(self._tail + text):
            raise ValueError("a number of more than 4,000 digits")
        self._tail = (self._tail + text)[-4000:]
        return text.encode("utf-8", "replace")


def _placed(file: _Utf8, **how: Any) -> Iterator[tuple[str, str, Any]]:
    """As ijson.parse, which keeps the whole path of each level: of 60,000 brackets gigabytes. Raises ValueError below
    DEEPEST."""
    path = [""]
    for event, value in ijson.basic_parse(file, **how):
        if event in ("end_map", "end_array"):
            path.pop()
        elif event == "map_key":
            path[-1] = f"{path[-2]}.{value}" if path[-2] else value
        yield path[-2 if event == "map_key" else -1], event, value
        if event in ("start_map", "start_array"):
            path.append("" if event == "start_map" else f"{path[-1]}.item" if path[-1] else "item")
            if len(path) > DEEPEST:
                raise ValueError("too deep")


def keys_in(head: str, is_lines: bool) -> set[str]:
    """Where values stand at the beginning of a JSON text, as paths: "messages.item.from_id"."""
    found: set[str] = set()
    try:
        for prefix, event, _ in _placed(_Utf8(io.StringIO(head)), multiple_values=is_lines):
            if event not in ("map_key", "end_map", "end_array"):
                found.add(prefix)
    except (ijson.JSONError, ValueError, ArithmeticError):
        # it goes on behind the head, or is broken, which its reader says
        pass
    return found


def objects(source: Source, place: str, thread: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(the last value that stood at `thread`, object) for each object at `place`. Raises DataError where the file is
    broken off."""
    count, of = 0, ""
    builder = None
    with source.path.open(encoding=source.encoding, newline="") as file:
        try:
            for prefix, event, value in _placed(_Utf8(file), buf_size=AT_ONCE, use_float=True):
                if builder is None and prefix == place and event == "start_map":
                    builder = ijson.ObjectBuilder()
                elif builder is None and thread and prefix == thread:
                    of = str(value)
                if builder is not None:
                    builder.event(event, value)
                    if prefix == place and event == "end_map":
                        count += 1
                        yield of, builder.value
                        builder = None
        except (ijson.JSONError, ValueError) as error:
            raise DataError("data.chat_broken_off", file=source.path.name, messages=count) from error


def text_at(value: Any, *names: str) -> str:
    """The first of some fields that holds a text; "" where none does."""
    found = (value.get(name) for name in names) if isinstance(value, dict) else ()
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")
