"""Reads an SQLite database: `python -m core.data.reading.database_worker FILE MEMBER TABLE MAX_BYTES`.

It prints JSON lines. The first: {"tables": [[name, is a view, rows], ...], "table": the one that is read, null if none
has rows}, or {"error": ..., "reason": ...}. Then a line for each row: [its number, {column: value}, [columns of
bytes]], or [number, null, bytes] if it is larger than MAX_BYTES. MEMBER: a file in FILE, if that is a zip. TABLE "":
the table with the most rows; a view only if no table has any.

The file is opened read-only, and no statement but SELECT is allowed, in views too. A view can compute without end or
use up the memory, and a hostile file can end the process; it must not be the app's. It imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAX_TABLES = 1000
_MAX_BYTES = 256 << 20  # of a database in a zip
_VIEW_STEPS = 50_000_000  # of SQLite's machine, in which a view may say how many rows it has
_ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
# Functions that a view may use to fill the memory, read files or load code.
_REFUSED = {"load_extension", "zeroblob", "randomblob", "readfile", "writefile", "edit", "fts3_tokenizer"}


def read_database(path: str, member: str, table: str, most_bytes: int) -> Iterator[Any]:
    """Yield {"tables": [(name, is a view, rows)], "table": the one that is read}, then a list for each of its rows, as
    `_rows`.

    table: a name, or "" for the table with the most rows (a view only if no table has any). "table" is None, and no
    rows follow, for an unknown name and if nothing has rows. member: the file's name in the zip at path; "" if path is
    the database. Errors are yielded: {"error": "open"} if a program has rows that are not yet in the file, {"error":
    "broken", "reason"} for any other.
    """
    try:
        # Rows in this log are not in the file yet, and an immutable database is opened without it.
        if not member and os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal"):
            yield {"error": "open"}
            return
        database = _open(path, member, most_bytes)
        tables = list(_tables(database))
        known = {name: is_view for name, is_view, _ in tables}
        full = [(name, is_view, rows) for name, is_view, rows in tables if rows]
        chosen = table if table in known else None
        if not table and full:
            # A table before a view, then the most rows.
            chosen = min(full, key=lambda each: (each[1], -each[2], each[0]))[0]
        yield {"tables": tables, "table": chosen}
        if chosen is not None:
            yield from _rows(database, chosen, most_bytes)
    except (sqlite3.Error, OSError, zipfile.BadZipFile, ValueError, OverflowError) as error:
        yield {"error": "broken", "reason": str(error)[:200]}


def _open(path: str, member: str, most_bytes: int) -> sqlite3.Connection:
    """Open a database for reading only, one in a zip in memory (ValueError above _MAX_BYTES). It may attach nothing and
    run no code of its schema."""
    if member:
        database = sqlite3.connect(":memory:")
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES >> 20} MiB in a zip")
        database.deserialize(content)
    else:
        # Immutable: SQLite then takes no lock, and writes nothing beside the file.
        database = sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True)
    # Bytes that are no UTF-8 cost characters, not the file.
    database.text_factory = lambda raw: raw.decode("utf-8", "replace")
    for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1"):
        database.execute(f"pragma {pragma}")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(2 * most_bytes, 1 << 20))
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    return database


def _authorize(action: int, argument: str | None, name: str | None, *_: Any) -> int:
    """Return sqlite3.SQLITE_OK if SQLite wants to read or to call a function that is not refused, else SQLITE_DENY. It
    is the connection's authorizer callback."""
    allowed = action in _ALLOWED and not (action == sqlite3.SQLITE_FUNCTION and (name or "").lower() in _REFUSED)
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _tables(database: sqlite3.Connection) -> Iterator[tuple[str, bool, int]]:
    """Yield (name, is a view, number of rows) of each table and view, at most _MAX_TABLES, without virtual ones and
    those of SQLite. From the first one on, the connection only allows reading.

    For a view the number is 1 if it has any rows. It is 0 for a table or view that fails, or a view that is too slow.
    """
    kinds = database.execute("select name, type from pragma_table_list where schema = 'main'").fetchmany(_MAX_TABLES)
    # After the list of tables, whose pragma it would refuse.
    database.set_authorizer(_authorize)
    for name, kind in sorted(kinds):
        if kind not in ("table", "view") or name.startswith("sqlite_"):
            continue
        counting = (
            f"select 1 from {_quoted(name)} limit 1" if kind == "view" else f"select count(*) from {_quoted(name)}"
        )
        steps = [0]

        def too_long(steps: list[int] = steps) -> bool:
            """Count 100,000 further steps of SQLite and return True, which aborts the statement, above _VIEW_STEPS."""
            steps[0] += 100_000
            return steps[0] > _VIEW_STEPS

        database.set_progress_handler(too_long if kind == "view" else None, 100_000)
        try:
            count = database.execute(counting).fetchone()
        except sqlite3.Error:  # a view of what is not there, or that is refused: it is listed as empty
            count = None
        database.set_progress_handler(None, 0)
        yield name, kind == "view", count[0] if count else 0


def _rows(database: sqlite3.Connection, table: str, most_bytes: int) -> Iterator[Any]:
    """Yield [number, values, columns of bytes (whose values are None)], or [number, None, size] of a row above
    most_bytes."""
    rows = database.execute(f"select * from {_quoted(table)}")  # noqa: S608 - the name is one of its tables, quoted
    names = [column[0] for column in rows.description]
    for number, cells in enumerate(rows, 1):
        # Before a huge row is copied into JSON.
        size = sum(len(cell.encode()) if isinstance(cell, str) else len(cell) if isinstance(cell, bytes) else 8
            for cell in cells)  # fmt: skip
        if size > most_bytes:
            yield [number, None, size]
            continue
        raw = [name for name, cell in zip(names, cells, strict=True) if isinstance(cell, bytes)]
        values = {name: None if name in raw else cell for name, cell in zip(names, cells, strict=True)}
        yield [number, values, raw]


def _quoted(name: str) -> str:
    """Return a table's name in double quotes, as SQL needs it, with quotes inside it doubled."""
    return '"' + name.replace('"', '""') + '"'


if __name__ == "__main__":
    for each in read_database(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])):
        sys.stdout.write(json.dumps(each) + "\n")
