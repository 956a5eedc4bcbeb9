"""Reads the rows of a table of an SQLite database, in a process of core.data.reading.database_worker.

A table is chosen like the sheet of a workbook; without a choice, the one with the most rows.
"""

from __future__ import annotations

import contextlib
import difflib
import json
from collections.abc import Generator, Iterator
from typing import Any

from core.data.reading import reader_process
from core.data.reading.file_rows import Limits, Problem, RawRow, Readable, Source, too_big
from core.data.reading.table_rows import check_columns
from core.data.shapes.left_out import Omission
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

_MAX_NAMED = 8  # other tables


def read_tables(path: Readable, table: str | None, limits: Limits) -> tuple[str, tuple[str, ...], tuple[Message, ...]]:
    """Return the table that is read, the names to choose from (tables and views with rows, and the table itself), and a
    note if there are others.

    table None: the one with the most rows; a view only if no table has any. Raises DataError for no such table, no
    rows, or a file that cannot be read.
    """
    with _open_table(path, table, limits) as (tables, chosen, _):
        others = [
            name if is_view else msg("data.counted", name=name, count=rows)
            for name, is_view, rows in tables
            if rows and name != chosen
        ]
        notes = (msg("data.note_table", table=chosen, others=others[:_MAX_NAMED]),) if others else ()
        return chosen, tuple(name for name, _, rows in tables if rows or name == chosen), notes


def database_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of a table, JSON in cells decoded. A row above the limit is a Problem; columns of raw bytes are
    omissions. Raises DataError."""
    with _open_table(source.path, source.sheet, limits) as (_, _, lines):
        for number, values, more in lines:
            if values is None:
                yield too_big(number, None, more, limits)
                continue
            if number == 1:
                check_columns([*values], source, limits)
            yield RawRow(number, _with_objects(values), omissions=tuple(Omission("column", name) for name in more))


def _with_objects(values: dict[str, Any]) -> dict[str, Any]:
    """Return a row with JSON texts decoded; the fields of an object stand beside the other columns, unless two would
    have one name and different values."""
    decoded = {name: _decoded(cell) if isinstance(cell, str) else cell for name, cell in values.items()}
    for name, fields in [(name, cell) for name, cell in decoded.items() if isinstance(cell, dict)]:
        others = {other: cell for other, cell in decoded.items() if other != name}
        if all(others.get(field, value) == value for field, value in fields.items()):
            decoded = others | fields
    return decoded


def _decoded(cell: str) -> object:
    """Return a filled object or list for a text that is one in JSON; any other text as it is."""
    if not cell.startswith(("{", "[")):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    return value if isinstance(value, dict | list) and value else cell


@contextlib.contextmanager
def _open_table(
    path: Readable, table: str | None, limits: Limits
) -> Iterator[tuple[list[tuple[str, bool, int]], str, Iterator[Any]]]:
    """Context manager: (tables as (name, is_view, rows), chosen table, lines of its rows) from the process that reads,
    which ends with it. table None: it chooses. Raises DataError for no such table (with the nearest), no rows, or a
    refusal."""
    with contextlib.closing(listen(path, table or "", limits.row_bytes)) as lines:
        head = next(lines, None)
        if not isinstance(head, dict) or "error" in head:
            raise _refusal(path, head or {})
        tables, chosen = [tuple(each) for each in head["tables"]], head["table"]
        if table and chosen is None:
            names = [name for name, _, _ in tables]
            # Cutoff 0: the nearest name, however far.
            near = difflib.get_close_matches(table, names, 1, 0) or ["-"]
            raise DataError("data.no_such_table", file=path.name, table=table, tables=names[:20], near=near[0])
        if chosen is None:
            raise DataError("data.no_rows", file=path.name)
        yield tables, chosen, _lines_unless_failed(path, lines)


def _lines_unless_failed(path: Readable, lines: Iterator[object]) -> Iterator[Any]:
    """Yield the lines of rows. Raises DataError at an object, by which the process says that it failed."""
    for line in lines:
        if isinstance(line, dict):
            raise _refusal(path, line)
        yield line


def _refusal(path: Readable, head: dict[str, str]) -> DataError:
    """Return the error for a process that failed. head: its last line; {} if it ended without one."""
    if head.get("error") == "open":
        return DataError("data.database_open", file=path.name)
    if head.get("error") in ("memory", "slow"):
        return DataError("data.database_too_large", file=path.name, limit_mib=reader_process.MAX_MEMORY // MIB)
    return DataError("data.broken_database", file=path.name, reason=head.get("reason") or msg("data.sheet_ended"))


def listen(path: Readable, table: str, most_bytes: int) -> Generator[Any]:
    """Start a process that reads a table of an SQLite database, and yield the JSON values that it writes
    (core.data.reading.database_worker): first an object with the tables, then a list for each row.

    table: "" lets the process choose one. most_bytes: a larger row is given by its size only. Closing the iterator ends
    the process.
    """
    return reader_process.listen("core.data.reading.database_worker", path, table, str(most_bytes))
