"""Checks and shows the first rows of a Hub dataset before it is downloaded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from core.data.sets.inspection import inspect_file
from core.errors import DataError
from core.hub.sets.about import SetHead

_UNKNOWN = (
    "data.unknown_format",
    "data.nested",
    "data.nested_lists",
    "data.no_text",
    "data.no_answer_column",
    "data.options_without_key",
    "data.every_row",
)


def is_recognized(head: SetHead) -> bool:
    """Return True if the format of the first rows is recognized, so that a person need not choose what the columns are
    for. True also if there are no rows to judge by, or if they cannot be read for another reason than an unknown
    format."""
    if not head.rows:
        return True
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in head.rows)
    # As a file, so that the code for files decides.
    with tempfile.TemporaryDirectory(prefix="lora-garage-head-") as folder:
        path = Path(folder) / "head.jsonl"
        path.write_text(lines, "utf-8", newline="\n")
        try:
            return not inspect_file(path).undecided
        except DataError as error:
            return error.message.key not in _UNKNOWN


def cell(value: object, most: int) -> str:
    """Return a value as one line for a cell of a small table, at most `most` characters with "…" for the rest; "" for
    None."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"
