"""Reads Word files, PDFs, web pages, books and subtitles as text, in a process of core.data.reading.document_worker.

The text is treated like a .txt: a row is a paragraph, with its heading above it.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import tomllib
from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any

from core.data.reading import reader_process
from core.data.reading.file_rows import Limits, Problem, RawRow, Readable, Source
from core.data.reading.table_rows import Paragraph
from core.data.shapes.left_out import Omission
from core.errors import DataError
from core.messages import msg
from core.presets import PROJECT
from core.values import MIB

SIZE_MB = 5  # download size of the extra


def document_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield a document's paragraphs as rows of text, each heading with the paragraph below it, and omissions. Raises
    DataError without any text, and if reading fails."""
    row, page = 0, 0
    paragraph = Paragraph()
    with contextlib.closing(listen(source.path, source.kind, source.encoding)) as lines:
        for number, line in enumerate(chain(lines, [""]), 1):
            if isinstance(line, dict):
                page = line.get("page", page)
                yield from _omissions(source.path, line)
                continue
            # No empty line follows a heading, so it begins the row of the paragraph below it.
            for _, text, joint in paragraph.end() if not line.strip() else paragraph.add(number, line + "\n"):
                row += 1
                yield RawRow(row, {"text": text}, joint=joint, page=page)
    if not row:
        what = "page_without_text" if source.kind == "html" else "document_without_text"
        raise DataError(f"data.{what}", file=source.path.name)


def _omissions(path: Readable, status: dict[str, Any]) -> Iterator[Omission]:
    """Yield an Omission for each page without text and for each block around the main text that a status line counts;
    nothing for other status lines. Raises DataError if the line reports that reading failed."""
    match status.get("error"):
        case None:
            yield from [Omission("page")] * status.get("pages", 0)
            yield from [Omission("around", "page")] * status.get("around", 0)
        case "missing":
            raise DataError(
                "data.documents_missing", file=path.name, package=status["reason"], command=_command(), size_mb=SIZE_MB
            )
        case "password":
            raise DataError("data.sheet_password", file=path.name)
        case "memory" | "slow":
            raise DataError("data.document_too_large", file=path.name, limit_mib=reader_process.MAX_MEMORY // MIB)
        case _:
            raise DataError(
                "data.broken_document", file=path.name, reason=status.get("reason") or msg("data.sheet_ended")
            )


def _command() -> str:
    """Return the command that installs the packages of the extra `documents`."""
    with open(PROJECT / "pyproject.toml", "rb") as file:
        needs = tomllib.load(file)["project"]["optional-dependencies"]["documents"]
    return shlex.join([sys.executable, "-m", "pip", "install", *needs])


def listen(path: Readable, kind: str, encoding: str) -> Generator[Any]:
    """Yield the lines of text and the status objects of a process that reads a document
    (core.data.reading.document_worker); closing the iterator ends the process. encoding: "" if the kind is no text."""
    return reader_process.listen("core.data.reading.document_worker", path, kind, encoding)
