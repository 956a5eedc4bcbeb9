"""The messages of a JSON export, streamed, however large the file is."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from core.data.reading.file_rows import Source
from core.data.reading.json_text import JsonText
from core.errors import DataError

OPENING = 1 << 18  # characters in which an export says what it is
DEEPEST = 100  # levels; an export has ten


def _placed(text: JsonText, place: str = "", path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The path of each value ("messages.item.from_id") with the value, None for a list or an object; one at `place` is
    whole, and nothing below it has a path. Raises what JsonText does, ValueError below DEEPEST."""
    if depth > DEEPEST:
        raise ValueError("too deep")
    if text.peek() not in ("[", "{") or path == place != "":
        yield path, text.value()
        return
    yield path, None
    is_list = text.peek() == "["
    for key in text.items():
        below = "item" if is_list else key
        yield from _placed(text, place, f"{path}.{below}" if path else below, depth + 1)


def keys_in(head: str, is_lines: bool) -> set[str]:
    """Where values stand at the beginning of a JSON text, as paths: "messages.item.from_id"."""
    found: set[str] = set()
    text = JsonText(io.StringIO(head))
    try:
        while text.peek() and (is_lines or not found):
            for path, _ in _placed(text):
                found.add(path)
    except (ValueError, RecursionError):
        # it goes on behind the head, or is broken, which its reader says
        pass
    return found


def objects(source: Source, place: str, thread: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(the last value that stood at `thread`, object) for each object at `place`. Raises DataError where the file is
    broken off."""
    count, of = 0, ""
    with source.path.open(encoding=source.encoding) as file:
        try:
            for path, value in _placed(JsonText(file), place):
                if path == place and isinstance(value, dict):
                    count += 1
                    yield of, value
                elif path == thread and value is not None:
                    of = str(value)
        except (ValueError, RecursionError) as error:
            raise DataError("data.chat_broken_off", file=source.path.name, messages=count) from error


def text_at(value: Any, *names: str) -> str:
    """The first of some fields that holds a text; "" where none does."""
    found = (value.get(name) for name in names) if isinstance(value, dict) else ()
    return next((text.strip() for text in found if isinstance(text, str) and text.strip()), "")
