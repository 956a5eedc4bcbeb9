"""Reads Jupyter notebooks: each explanation with the code that follows it, otherwise all cells as one text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from core.data.reading.file_rows import Limits, Problem, RawRow, Source
from core.data.shapes.left_out import Omission
from core.errors import DataError, reason_of
from core.values import MIB

MAX_BYTES = 64 * MIB  # a notebook is read as one; its pictures are in it
_MIN_PAIRS = 2  # of an explanation and its code


def notebook_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield each text with the code below it as question and answer, other cells and outputs as omissions; in a
    notebook with few such pairs, each cell as text."""
    cells, outputs = _cells(source)
    # An explanation may fill several cells.
    parts = [(kind, "\n\n".join(text for _, text in group)) for kind, group in groupby(cells, key=lambda cell: cell[0])]
    pairs = [
        (text, code)
        for (kind, text), (following, code) in zip(parts, parts[1:], strict=False)
        if (kind, following) == ("markdown", "code")
    ]
    yield from [Omission("around", "outputs")] * outputs
    if len(pairs) < _MIN_PAIRS:
        for row, (_, text) in enumerate(cells, 1):
            yield RawRow(row, {"text": text}, joint="\n\n" if row > 1 else None)
        return
    yield from [Omission("around", "cells")] * (len(parts) - 2 * len(pairs))
    for row, (text, code) in enumerate(pairs, 1):
        yield RawRow(row, {"question": text, "answer": code})


def _cells(source: Source) -> tuple[list[tuple[str, str]], int]:
    """Return the kind and text of each filled cell of text or code, and the number of cells with outputs. Raises
    DataError for a file that is too large or no notebook."""
    if source.bytes > MAX_BYTES:
        mib = source.bytes // MIB
        raise DataError("data.too_large", file=source.path.name, mib=mib, limit_mib=MAX_BYTES // MIB)
    try:
        with source.path.open(encoding=source.encoding) as file:
            notebook = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DataError("data.broken_notebook", file=source.path.name, reason=reason_of(error)) from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise DataError("data.broken_notebook", file=source.path.name, reason="cells")
    known = [cell for cell in cells if isinstance(cell, dict) and cell.get("cell_type") in ("markdown", "code")]
    texts = [(str(cell["cell_type"]), _text_of(cell.get("source")).strip("\n")) for cell in known]
    return [(kind, text) for kind, text in texts if text.strip()], sum(bool(cell.get("outputs")) for cell in known)


def _text_of(value: Any) -> str:
    """Return the text of a cell, which is stored as one text or as its lines."""
    return "".join(line for line in (value if isinstance(value, list) else [value]) if isinstance(line, str))
