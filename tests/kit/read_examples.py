"""The trainable examples of a file, as an import stores them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from core.data.formats import Example
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.file_rows import Source
from core.data.sets.inspection import inspect_file
from core.recipe import Format


def examples_of(
    path: str | Path | Source, format: Format | None = None, choices: Choices = NO_CHOICES
) -> Iterator[tuple[int, Example]]:
    """Return an iterator of (row number, example) of every trainable row, after the file was read. Raises DataError if
    the file cannot be read or has none."""
    kept: list[tuple[int, str]] = []
    report = inspect_file(path, format, choices=choices, keep=lambda row: kept.extend(row.good()))
    if not kept:
        raise report.refusal(Path(path).name if not isinstance(path, Source) else path.path.name)
    return ((number, Example.from_dict(json.loads(text))) for number, text in kept)
