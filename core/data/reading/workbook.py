"""A process that opens a spreadsheet: `python -m core.data.reading.workbook FILE MEMBER SHEET MAX_BYTES`.

It prints JSON lines. The first: {"sheets": [[name, is hidden], ...], "sheet": the one that is read, or several joined
by TOGETHER, null if none has rows, "uncalculated": formulas without a stored value}, or {"error": ..., "reason": ...}.
Then one line for each row that is not empty: [its number in the sheet, [its cells as text]], or [number, null, bytes]
if it is larger than MAX_BYTES; before the rows of a further sheet {"next": its name}. MEMBER: a file in FILE, if that
is a zip. SHEET "": the first visible one with a table of two columns or more, and all others with the same columns;
else the first with a table (two rows), else with a row; visible ones first.

calamine stores a sheet as one rectangle, so two cells far apart can need more memory than there is, which ends its
process; it must not be the app's. Cells give stored values, never the result of a formula or a link to another file; no
macro runs. It imports nothing of ours, because it starts for every reading.
"""

from __future__ import annotations

import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import IO, Any

_DIGITS = 15  # digits that spreadsheets show of a number
_CHUNK = 1 << 20
LOOKED_AT = 30  # rows, among which the names of the columns are searched
TOGETHER = " / "  # between the names of sheets that are read together; no name in Excel has a slash
# XML of a formula without a stored value, as written by programs that do not calculate.
_UNCALCULATED = (b"</f></c>", b"</f><v></v></c>", b"</f><v/></c>", b"</f><v /></c>")


def read_workbook(path: str, member: str, sheet: str, most_bytes: int) -> Iterator[Any]:
    """Yield {"sheets": [(name, is hidden)], "sheet": the one that is read, "uncalculated": formulas without a value},
    then a list for each of its rows, as `_rows`.

    sheet: a name, or "" for a choice by contents. Of several sheets that are read, "sheet" has the names joined by
    TOGETHER, and {"next": name} stands before the rows of each further one. "sheet" is None, and no rows follow, for an
    unknown name and if no sheet has rows. member: the file's name in the zip at path; "" if path is the workbook.
    Errors are yielded: {"error": "password"} or {"error": "broken", "reason"}.
    """
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError

    try:
        with _open(path, member) as file, CalamineWorkbook.from_filelike(file) as book:
            shown = [
                (about.name, not str(about.visible).endswith(".Visible"))
                for about in book.sheets_metadata
                if str(about.typ).endswith(".WorkSheet")
            ]
            chosen = _chosen(book, sheet, shown)
            yield {
                "sheets": shown,
                "sheet": TOGETHER.join(one.name for one in chosen) or None,
                "uncalculated": _uncalculated(path, member),
            }
            for place, one in enumerate(chosen):
                if place:
                    yield {"next": one.name}
                yield from _rows(one, most_bytes)
    except PasswordError:
        yield {"error": "password"}
    except (CalamineError, OSError, zipfile.BadZipFile, zlib.error) as error:
        yield {"error": "broken", "reason": str(error)[:200]}


def _open(path: str, member: str) -> IO[bytes]:
    """Open a file, or one in a zip. member: its name there; "" for the file itself."""
    if not member:
        return open(path, "rb")
    with zipfile.ZipFile(path) as archive:
        return archive.open(member)


def _chosen(book: Any, sheet: str, shown: list[tuple[str, bool]]) -> list[Any]:
    """Return the sheets that are read, one after the other: the named ones ([] if one is missing); else the first table
    with the sheets of the same columns, else the first with rows. A hidden sheet is chosen only if no other has
    rows."""
    is_hidden = dict(shown)
    if sheet:
        names = [sheet] if sheet in is_hidden else sheet.split(TOGETHER)
        return [book.get_sheet_by_name(name) for name in names] if is_hidden.keys() >= set(names) else []
    with_rows: list[Any] = []
    table: list[Any] = []
    columns: frozenset[str] | None = None
    for name, hidden in sorted(shown, key=lambda each: each[1]):  # hidden ones last
        if hidden and (table or with_rows and with_rows[0].height > 1):
            break
        one = book.get_sheet_by_name(name)
        its_columns = _columns(one) if one.height > 1 else None
        if its_columns and (not table or its_columns == columns):
            table, columns = [*table, one], its_columns
        elif one.height and not (with_rows and with_rows[0].height > 1):
            with_rows = [one] if one.height > 1 else [*with_rows, one]
    return table or with_rows[:1]


def _columns(sheet: Any) -> frozenset[str] | None:
    """Return the names of a table's columns in lower case, None for fewer than two: its first row of words that is at
    least half as wide as its widest, as core.data.reading.spreadsheets takes it."""
    filled = [[cell for cell in cells if str(cell).strip()] for cells in islice(sheet.iter_rows(), LOOKED_AT)]
    widest = max(map(len, filled), default=0)
    names = next((row for row in filled if 2 * len(row) >= widest and all(isinstance(cell, str) for cell in row)), [])
    return frozenset(str(name).strip().lower() for name in names) if len(names) > 1 else None


def _rows(sheet: Any, most_bytes: int) -> Iterator[Any]:
    """Yield [number, cells as text] with merged cells repeated, or [number, None, size] of a row above most_bytes.
    Empty rows are skipped."""
    merged = _Merged(sheet)
    for number, cells in enumerate(sheet.iter_rows(), 1):
        texts = merged.filled(number, [as_text(cell) for cell in cells])
        size = sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)
        if size:  # many sheets have a million empty rows
            yield [number, None, size] if size > most_bytes else [number, texts]


class _Merged:
    """Cells merged over several rows: each row gets the text. A cell over several columns stays in the first."""

    def __init__(self, sheet: Any):
        """Read which cells are merged over several rows, in order."""
        left = sheet.start[1] if sheet.start else 0
        ranges = sheet.merged_cell_ranges or ()
        self._ahead = sorted(
            (
                (first[0] + 1, last[0] + 1, first[1] - left)
                for first, last in ranges
                if last[0] > first[0] and first[1] >= left
            ),
            reverse=True,
        )
        self._open: dict[int, tuple[int, str]] = {}  # column: last row, text

    def filled(self, number: int, texts: list[str]) -> list[str]:
        """Return a row's texts (changed in place) with merged cells repeated in each row that they cover, unless it has
        its own text. Call it for rows in order."""
        while self._ahead and self._ahead[-1][0] <= number:
            first, last, column = self._ahead.pop()
            if first == number and column < len(texts):
                self._open[column] = (last, texts[column])
        for column, (last, text) in list(self._open.items()):
            if number > last:
                del self._open[column]
            else:
                texts[column] = texts[column] or text
        return texts


def as_text(cell: object) -> str:
    """Return a cell as displayed, but in a fixed format for numbers and dates: 3, 0.1, TRUE, 2025-03-12 21:14."""
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        # All numbers are floats: 3 is 3.0, 0.3 may be 0.30000000000000004.
        return str(int(cell)) if cell.is_integer() and abs(cell) < 10**_DIGITS else f"{cell:.{_DIGITS}g}"
    # A datetime is a date too; a day is its midnight.
    if isinstance(cell, datetime):
        if cell.time() == time():
            return cell.date().isoformat()
        return cell.isoformat(" ", "seconds" if cell.second else "minutes")
    if isinstance(cell, date):
        return cell.isoformat()
    if isinstance(cell, time):
        return cell.isoformat("seconds" if cell.second else "minutes")
    if isinstance(cell, timedelta):
        minutes, seconds = divmod(int(cell.total_seconds()), 60)
        return f"{minutes // 60}:{minutes % 60:02}" + (f":{seconds:02}" if seconds else "")
    return str(cell)


def _uncalculated(path: str, member: str) -> int:
    """Count formulas without a value in all sheets of an .xlsx; 0 for other kinds, what was counted so far for a
    damaged one."""
    count = 0
    try:
        with _open(path, member) as file, zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.startswith("xl/worksheets/") and name.endswith(".xml"):
                    with archive.open(name) as part:
                        rest = b""
                        while chunk := part.read(_CHUNK):
                            rest += chunk
                            cut = rest.rfind(b"</c>") + len(b"</c>")
                            if cut >= len(b"</c>"):
                                count += sum(rest.count(ending, 0, cut) for ending in _UNCALCULATED)
                                rest = rest[cut:]
                            # A cell may begin in this chunk and end in the next.
                            rest = rest[-200:]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error):
        # calamine reports the error
        return count
    return count


if __name__ == "__main__":
    for each in read_workbook(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])):
        sys.stdout.write(json.dumps(each) + "\n")
