"""Reads the rows of a data file: JSON, JSONL, CSV, Parquet, spreadsheets, plain text; numbered and checked.

`probe` reads the file once (hash, encoding, real kind), `read_rows` streams it. Nothing is executed and nothing assumed
silently: an assumption is a note, an error in one row is a Problem and reading continues, an error of the file is a
DataError. Memory stays at a few rows for any size of file (measured: 15 MiB for 43 MB of JSONL, CSV, text or JSON).
core/data/formats defines what a row means. Cost: 43 MB of JSONL, 100,000 rows, in 0.6 s (2 cores, 2026-11-25).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from core.data.chats.chat_rows import chat_rows
from core.data.chats.message_rows import conversation_rows
from core.data.reading.boilerplate import without_boilerplate
from core.data.reading.faq import with_questions
from core.data.reading.file_rows import (
    DEFAULT_LIMITS,
    Items,
    Limits,
    Problem,
    RawRow,
    Row,
    Source,
    check_row,
    is_plain,
    omission_warning,
)
from core.data.reading.line_rows import line_rows
from core.data.reading.raw_rows import READERS, converted
from core.data.reading.sniff import os_errors_as_data_errors, probe
from core.data.reading.suffixes import MARKDOWN
from core.data.shapes.left_out import Omission
from core.errors import DataError


def read_rows(path: str | Path | Source, limits: Limits = DEFAULT_LIMITS) -> Iterator[Row | Problem]:
    """Yield the rows of a file in order, a Problem in place of each that cannot be read; prose without what stands
    around it, pages of questions as pairs. path: a file, or the Source that probe() made of it. Raises DataError if the
    file cannot be read, possibly after some rows (a JSON array that is broken in its middle, a file with more than
    limits.rows rows)."""
    source = path if isinstance(path, Source) else probe(path, limits)
    with os_errors_as_data_errors(source.path):
        try:
            items = _reader_of(source)(source, limits)
            if source.is_prose and source.choices.join_paragraphs is not False:
                is_markdown = source.path.suffix.lower() in MARKDOWN
                items = without_boilerplate(items, is_markdown)
                items = with_questions(items) if is_markdown or source.kind == "html" else items
            yield from _with_omissions(items, source, limits)
        except UnicodeDecodeError as error:
            raise DataError(
                "data.bad_encoding", file=source.path.name, byte=error.start, encoding=source.encoding.upper()
            ) from None


def _reader_of(source: Source) -> Callable[[Source, Limits], Items]:
    """Return the reader of a source: by the shape of its lines, its chat, its columns of messages, else by its kind."""
    if source.lines:
        return line_rows
    if source.chat:
        return chat_rows
    if source.message_columns:
        return conversation_rows
    return READERS[source.kind]


def _with_omissions(items: Items, source: Source, limits: Limits) -> Iterator[Row | Problem]:
    """Turn a reader's items into checked rows and problems: each row gets the omissions that came before it, the last
    row also those after it. If no row is left to take the last ones, they become warnings.

    Raises DataError for more than limits.rows rows.
    """
    # Each row is held back by one: what is left out after the last belongs to it.
    waiting: Row | None = None
    omissions: tuple[Omission, ...] = ()
    for item in items:
        if isinstance(item, Omission):
            omissions += (item,)
            continue
        if item.row > limits.rows:
            raise DataError("data.too_many_rows", file=source.path.name, limit=limits.rows)
        if not isinstance(item, RawRow):
            row: Row | Problem = item
        elif not (source.layout or source.class_names) and type(item.value) is dict and is_plain(item.value):
            # Most rows need no conversion and no check.
            row = Row(
                item.row, item.value, item.line, item.omissions,
                joint=item.joint, page=item.page, validation=item.validation,
            )  # fmt: skip
        else:
            row = check_row(converted(item, source), limits)
        if waiting:
            yield waiting
            waiting = None
        if isinstance(row, Problem):
            yield row
        else:
            waiting, omissions = replace(row, omissions=omissions + row.omissions) if omissions else row, ()
    if waiting:
        yield replace(waiting, omissions=waiting.omissions + omissions) if omissions else waiting
    else:
        yield from (omission_warning(omission, count) for omission, count in Counter(omissions).items())
