"""Reads the rows of a sheet of .xlsx, .xls, .xlsb and .ods, in a process of core.data.reading.workbook.

The first row that is as wide as the table gives the names of the columns; rows above it, such as a title, are reported
as left out. A sheet is held in memory by that process, with at most `reader_process.MAX_MEMORY` bytes.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile
from typing import Any

from core.data.reading import reader_process
from core.data.reading.file_rows import Limits, Problem, RawRow, Readable, Source, column_names, too_big
from core.data.reading.split_names import split_of
from core.data.reading.workbook import LOOKED_AT, TOGETHER
from core.data.shapes import header
from core.data.shapes.left_out import Omission
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

_WIDE = 0.5  # share of the widest row's width
_MAX_NAMED = 8  # other sheets


@dataclass(frozen=True)
class Sheets:
    """The sheets of a workbook (name: hidden), and the one that is read."""

    sheets: dict[str, bool]
    sheet: str | None
    uncalculated: int
    first: tuple[list[str], ...] = ()  # rows; only of `read_head`
    together: str = ""  # the sheets with the same columns; only of `read_head`

    @property
    def chosen_names(self) -> list[str]:
        """Names of the sheets that are read, one after the other: one, or several with the same columns. [""] if no
        sheet is chosen."""
        name = self.sheet or ""
        return [name] if name in self.sheets else name.split(TOGETHER)

    @property
    def choices(self) -> tuple[str, ...]:
        """Names that a person may choose to read: each sheet, and before them, if several are read together by default,
        those joined as one name."""
        return (*((self.together,) if self.together else ()), *self.sheets)

    def notes(self) -> tuple[Message, ...]:
        """Return notes on the sheets that are read, on the others, and on formulas without a value."""
        read = self.chosen_names
        others = [name for name in self.sheets if name not in read]
        shown = [name for name in others if not self.sheets[name]][:_MAX_NAMED]
        hidden = [name for name in others if self.sheets[name]][:_MAX_NAMED]
        notes = [msg("data.note_sheet", sheet=self.sheet, others=shown)] if shown and len(read) == 1 else []
        notes += [msg("data.note_sheets_together", sheets=read[:_MAX_NAMED])] if len(read) > 1 else []
        notes += [msg("data.note_other_sheets", others=shown)] if shown and len(read) > 1 else []
        notes += [msg("data.note_hidden_sheets", sheets=hidden)] if hidden else []
        notes += [msg("data.note_sheet_is_hidden", sheet=self.sheet)] if self.sheets.get(self.sheet or "") else []
        notes += [msg("data.note_uncalculated", count=self.uncalculated)] if self.uncalculated else []
        return tuple(notes)


def read_head(path: Readable, sheet: str | None, limits: Limits) -> Sheets:
    """Return a workbook's sheets, with the first rows of the one that `sheet` names (None: the one that is read by
    default), and in `together` the sheets with the same columns that are read by default; "" if that is only one.

    Raises DataError for no such sheet, no rows, or a file that cannot be read.
    """
    with _open_sheet(path, sheet, limits) as (sheets, lines):
        ahead = takewhile(lambda line: isinstance(line, list), lines)
        sheets = replace(sheets, first=tuple(line[1] or [] for line in islice(ahead, header.LOOKED_AT)))
    by_default = sheets
    # Asked again without the choice: which sheets are read together is decided by the process.
    if sheet and len(sheets.sheets) > 1:
        with _open_sheet(path, None, limits) as (by_default, _):
            pass
    return replace(sheets, together=by_default.sheet or "") if len(by_default.chosen_names) > 1 else sheets


def holds_names(rows: Sequence[list[str]]) -> bool | None:
    """Return True if the first wide row of a sheet holds the names of its columns, False if it is a row of data, None
    if undecided (`header.holds_names` compares it with the rows below). True without rows."""
    at = _names_at(rows, is_row=True)
    return header.holds_names(rows[at], rows[at + 1 :]) if rows else True


def sheet_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of the sheets that are read, numbered consecutively, with problems and omissions; beside a sheet
    "train", rows of one named as validation or test are for validation."""
    row = 0
    with _open_sheet(source.path, source.sheet, limits) as (sheets, lines):
        has_splits = "train" in map(split_of, sheets.chosen_names)
        for name in sheets.chosen_names:
            apart = has_splits and split_of(name) == "validation"
            # a line that announces the next sheet ends the rows of one
            for item in _table_rows(takewhile(lambda line: isinstance(line, list), lines), source, limits):
                if isinstance(item, Omission):
                    yield item
                    continue
                row += 1
                if isinstance(item, RawRow):
                    yield replace(item, row=row, validation=apart)
                else:
                    yield item.model_copy(update={"row": row})


def _table_rows(lines: Iterator[Any], source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of one sheet with its row numbers; lines above the names and repeated headers are omissions, a row
    above the limit a Problem, empty rows skipped."""
    first = list(islice(lines, LOOKED_AT))
    is_row = source.header is False
    at = _names_at([line[1] or [] for line in first], is_row)
    for above in first[:at]:
        if any(cell.strip() for cell in above[1] or ()):
            yield Omission("above")
    header_cells = first[at][1] or [] if first else []
    names = column_names(source.path.name, header_cells, limits, is_row)
    for number, cells, *size in chain(first[at + (not is_row) :], lines):
        if cells is None:
            yield too_big(number, number, size[0], limits)
        elif cells == header_cells and not is_row:
            yield Omission("header")
        elif any(cell.strip() for cell in cells):
            # Empty cells of columns without a name are dropped.
            kept = {
                name: cell
                for name, cell, column_name in zip(names, cells, header_cells, strict=False)
                if column_name.strip() or cell.strip()
            }
            yield RawRow(number, kept, number)


def _names_at(rows: Sequence[list[str]], is_row: bool) -> int:
    """Return the position (from 0) of the row that names the columns: the first row of words only that is at least half
    as wide as the widest, else the first of that width; with is_row, the first of that width."""
    filled = [[cell for cell in cells if cell.strip()] for cells in rows]
    widest = max(map(len, filled), default=0)
    wide = [at for at, cells in enumerate(filled) if cells and len(cells) >= _WIDE * widest]
    in_words = (at for at in wide if not any(re.sub("[.:-]", "", cell).isdecimal() for cell in filled[at]))
    return next(in_words if not is_row else iter(wide), wide[0] if wide else 0)


@contextlib.contextmanager
def _open_sheet(path: Readable, sheet: str | None, limits: Limits) -> Iterator[tuple[Sheets, Iterator[Any]]]:
    """Context manager: the sheets and the lines of the chosen ones, from the process that reads, which ends with it.
    sheet None: it chooses. Raises DataError for no such sheet (with the nearest), no rows, or a refusal."""
    with contextlib.closing(listen(path, sheet or "", limits.row_bytes)) as lines:
        head = next(lines, None)
        if not isinstance(head, dict) or "error" in head:
            raise _refusal(path, head or {})
        sheets = Sheets(dict(head["sheets"]), head["sheet"], head["uncalculated"])
        if sheet and sheets.sheet is None:
            # Cutoff 0: the nearest name, however far.
            near = difflib.get_close_matches(sheet, sheets.sheets, 1, 0) or ["-"]
            raise DataError(
                "data.no_such_sheet", file=path.name, sheet=sheet, sheets=[*sheets.sheets][:20], near=near[0]
            )
        if sheets.sheet is None:
            raise DataError("data.no_rows", file=path.name)
        yield sheets, _lines_unless_failed(path, lines)


def _lines_unless_failed(path: Readable, lines: Iterator[object]) -> Iterator[Any]:
    """Yield the lines of rows, and those that announce a sheet. Raises DataError at one that says that it failed."""
    for line in lines:
        if isinstance(line, dict) and "next" not in line:
            raise _refusal(path, line)
        yield line


def _refusal(path: Readable, head: dict[str, str]) -> DataError:
    """Return the error for a process that failed. head: its last line; {} if it ended without one."""
    if head.get("error") in ("memory", "slow"):
        return DataError("data.sheet_too_large", file=path.name, limit_mib=reader_process.MAX_MEMORY // MIB)
    if head.get("error") == "password":
        return DataError("data.sheet_password", file=path.name)
    return DataError("data.broken_sheet", file=path.name, reason=head.get("reason") or msg("data.sheet_ended"))


def listen(path: Readable, sheet: str, most_bytes: int) -> Generator[Any]:
    """Start a process that reads a workbook, and yield the JSON values that it writes (core.data.reading.workbook):
    first an object with the sheets, then a list for each row and an object before each further sheet.

    sheet: "" lets the process choose. most_bytes: a larger row is given by its size only. Closing the iterator ends the
    process.
    """
    return reader_process.listen("core.data.reading.workbook", path, sheet, str(most_bytes))
