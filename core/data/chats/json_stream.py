"""Streams the messages of a JSON export of any size."""

from __future__ import annotations

import io
from collections.abc import Iterator

from core.data.reading.file_rows import Source
from core.data.reading.json_text import JsonText
from core.errors import DataError
from core.files import JsonObject

OPENING = 1 << 18  # characters that are enough to recognize an export
DEEPEST = 100  # levels; an export has ten


def _placed(text: JsonText, place: str = "", path: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Yield (path, value) for each value ("messages.item.from_id"), value None for a list or an object. The value at
    `place` is complete, and nothing below it is yielded. Raises what JsonText does, ValueError below DEEPEST levels."""
    # Each path repeats those above: 60 kB of brackets took gigabytes.
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
    """Return the paths of values at the beginning of a JSON text, such as "messages.item.from_id", up to where it is
    cut off or damaged. is_lines: of all its values, otherwise of the first."""
    paths: set[str] = set()
    text = JsonText(io.StringIO(head))
    try:
        while text.peek() and (is_lines or not paths):
            for path, _ in _placed(text):
                paths.add(path)
    except (ValueError, RecursionError):
        # the text continues after the head, or is broken, which its reader reports
        pass
    return paths


def objects(source: Source, place: str, thread: str = "") -> Iterator[tuple[str, JsonObject]]:
    """Yield (the last value at `thread` as text, object) for each object at `place`, both paths like "messages.item".
    Raises DataError if the file ends early or is damaged."""
    count, current_thread = 0, ""
    with source.path.open(encoding=source.encoding) as file:
        try:
            for path, value in _placed(JsonText(file), place):
                if path == place and isinstance(value, dict):
                    count += 1
                    yield current_thread, value
                # A chat's id stands before its messages.
                elif path == thread and value is not None:
                    current_thread = str(value)
        except (ValueError, RecursionError) as error:
            raise DataError("data.chat_broken_off", file=source.path.name, messages=count) from error


def text_at(value: object, *names: str) -> str:
    """Return the first text that is not blank in these fields of a value, stripped; "" without one, or if the
    value is no object."""
    values = (value.get(name) for name in names) if isinstance(value, dict) else ()
    return next((text.strip() for text in values if isinstance(text, str) and text.strip()), "")
