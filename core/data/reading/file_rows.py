"""The types of a read file (Source), a row, and a problem with a row, and the limits for every kind of file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.dataset_info import Layout
from core.data.reading.label_names import NO_NAMES, LabelNames
from core.data.reading.suffixes import DOCUMENTS, FileKind
from core.data.shapes.left_out import Omission
from core.errors import DataError
from core.files import JsonObject
from core.messages import Message, msg
from core.recipe import Format
from core.values import MIB, Frozen

if TYPE_CHECKING:
    from core.data.chats.message_columns import MessageColumns


class Limits(Frozen):
    """Limits on the size of a file; all of it can be read on a PC with 8 GiB of memory."""

    bytes: int = Field(2 << 30, description="Largest file, in bytes; Parquet counts unpacked.")
    row_bytes: int = Field(
        4 * MIB, description="Largest row, in bytes of UTF-8 (a JSONL line, a JSON element, a CSV record)."
    )
    depth: int = Field(64, description="Deepest nesting of lists and objects in a row, in levels.")
    rows: int = Field(2_000_000, description="Most rows of a file.")
    columns: int = Field(10_000, description="Most columns of a table.")
    problems: int = Field(1_000, description="Most problems listed; the others are only counted.")


DEFAULT_LIMITS = Limits()


@dataclass(slots=True)
class Row:
    """One row as it stands in the file. number counts from 1; line is the physical line it begins on, if there is
    one."""

    number: int
    values: dict[str, Any]
    line: int | None = None
    omissions: tuple[Omission, ...] = ()  # what its reader left out since the row before
    file: str = ""  # in a dataset of several files: the row's file, and its format
    format: Format | None = None
    validation: bool = False  # it stands in a file of test or validation rows, or is marked as one of them
    flaw: Message | None = None  # why it cannot be trained, where only the file as a whole tells
    joint: str | None = None  # of a paragraph: the text between it and the row before; None where a text begins
    page: int = 0  # of a PDF, from 1


class Problem(Frozen):
    """A problem with one row. row counts from 1 (0: the file itself); an error leaves the row out."""

    row: int
    text: Message
    severity: Literal["error", "warning"] = "error"
    line: int | None = None
    file: str = ""  # in a dataset of several files

    @property
    def sentence(self) -> Message:
        """Return the text of the problem after its row's place: "Row 118 (line 120): ...".

        Names the line if known, and the file in a dataset of several files (an unknown line is then "-"). A problem of
        the file itself (row 0) is returned as its text alone, without a place, even if file or line is known.
        """
        if self.row == 0:
            return self.text
        if self.file:
            return msg("data.at_row_file", row=self.row, file=self.file, line=self.line or "-", problem=self.text)
        if self.line is None:
            return msg("data.at_row", row=self.row, problem=self.text)
        return msg("data.at_row_line", row=self.row, line=self.line, problem=self.text)


class Flaw(Exception):
    """The reason why a row cannot be trained."""

    def __init__(self, key: str, **params: object):
        self.message = msg(key, **params)


class Readable(Protocol):
    """A file, or one inside of an archive or folder."""

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    @property
    def stem(self) -> str: ...

    def open(self, *args: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Source:
    """A file that was probed: its kind, how its bytes become characters, and what was assumed."""

    path: Readable
    kind: FileKind
    bytes: int
    sha256: str
    encoding: str  # a Python codec name; "" for Parquet and spreadsheets
    delimiter: str | None = None
    quoted: bool = True  # False if a quotation mark in a table is a character like any other
    lines: str = ""  # of a text that is no prose: the shape of its lines (core/data/reading/line_rows)
    separator: str = ""  # of flash cards: what stands between the sides
    notes: tuple[Message, ...] = ()
    # Byte offset of the first byte that is not UTF-8; only JSONL is read past it, leaving out the broken lines.
    first_bad_byte: int | None = None
    sheet: str = ""  # the sheet of a spreadsheet that is read
    sheets: tuple[str, ...] = ()  # all sheets of it
    # False if the first row of a table is a row; True if a choice says, or in doubt, that it holds names
    header: bool | None = None
    chat: str = ""  # the app that exported it, a name in core/data/chats/kinds
    message_columns: MessageColumns | None = None  # of a table with one message in each row
    choices: Choices = NO_CHOICES
    parts: tuple[Source, ...] = ()  # of several files
    validation: bool = False  # of several files: its name says that it is not for training
    split_column: str = ""  # of its rows: says which are for validation
    is_marked: bool = False  # a text with turn markers, as core/data/shapes/turn_markers reads it
    layout: Layout | None = None  # its columns according to dataset_info.json
    people: Mapping[str, str] = field(
        default_factory=dict
    )  # names of a chat's people by their ids, if another file has them
    requests: Mapping[str, JsonObject] = field(default_factory=dict)  # of a batch's results: the requests by their ids
    beside: tuple[str, ...] = ()  # of code in a folder: the files of data there
    # The files that it is read from, each with its core.files.stamp before it was read.
    stamps: tuple[tuple[Path, tuple[int, ...]], ...] = ()
    label_names: LabelNames = NO_NAMES  # of classes, where a description of the data has them
    class_names: Mapping[str, Mapping[int, str]] = field(default_factory=dict)  # of the numbers in columns, as decided
    stored_as: str = ""  # the kind of the containing file, if this is a file in an archive

    @property
    def is_prose(self) -> bool:
        """True if the rows are the paragraphs of one running text: a text file or document that is no chat export, has
        no turn markers, and whose lines have no shape of their own (`lines`)."""
        is_other = self.chat or self.lines or self.is_marked or self.message_columns
        return self.kind in ("txt", *DOCUMENTS) and not is_other


def omission_warning(omission: Omission, count: int) -> Problem:
    """Return a warning about the whole file (row 0) that says how many values of this kind were left out and why. It is
    for omissions that belong to no row. count: number of those values."""
    left_out = omission.describe(count)
    return Problem(
        row=0, severity="warning", text=msg("left_out.line", what=left_out.what, count=left_out.count, why=left_out.why)
    )


@dataclass(slots=True)
class RawRow:
    """A row as its reader yields it, not checked yet. row counts from 1, as in Problem."""

    row: int
    value: Any
    line: int | None = None
    omissions: tuple[Omission, ...] = ()
    joint: str | None = None
    validation: bool = False
    page: int = 0


Items = Iterator[RawRow | Problem | Omission]  # what a reader of a kind of file yields


def check_row(raw: RawRow, limits: Limits) -> Row | Problem:
    """Return the reader's row as a Row, or a Problem with the same row number and line if it is no object, is nested
    deeper than limits.depth, or holds text or numbers that JSON and UTF-8 do not allow."""
    if not isinstance(raw.value, dict):
        return Problem(row=raw.row, line=raw.line, text=msg("data.not_an_object", found=type_name(raw.value)))
    flaw = None if is_plain(raw.value) else _flaw(raw.value, limits.depth)
    if flaw is not None:
        return Problem(row=raw.row, line=raw.line, text=flaw)
    return Row(raw.row, raw.value, raw.line, raw.omissions, joint=raw.joint, page=raw.page, validation=raw.validation)


def is_plain(value: Mapping[str, object]) -> bool:
    """Return True if all keys and values of a row are texts (no lists, numbers or null) without NUL and with nothing
    that UTF-8 cannot encode. Such a row needs no further check."""
    for key, item in value.items():
        if type(item) is not str or type(key) is not str or "\0" in item:
            return False
        if not (item.isascii() and key.isascii()) and (lone_surrogate(item) or lone_surrogate(key)):
            return False
    return True


def _flaw(value: dict[str, Any], limit: int) -> Message | None:
    """Return the reason why later steps could not write, hash or tokenize a row (too deep, a lone surrogate, NUL, not
    finite); None without one. No recursion: depth is one of the flaws."""
    # By levels, breadth first: the number of levels is the depth.
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return msg("data.too_deep", limit=limit)
        below: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                for key in container:
                    if isinstance(key, str) and lone_surrogate(key):
                        return msg("data.lone_surrogate", column=key.encode("ascii", "backslashreplace").decode())
                items = container.values()
            else:
                items = container
            for item in items:
                if isinstance(item, str):
                    if lone_surrogate(item):
                        return msg("data.lone_surrogate", column=_column_of(value, item))
                    if "\0" in item:
                        return msg("data.nul")
                elif isinstance(item, dict | list):
                    below.append(item)
                elif isinstance(item, float) and not math.isfinite(item):
                    return msg("data.not_finite", found=str(item))
        level = below
    return None


def lone_surrogate(value: str) -> bool:
    """Return whether a text cannot be encoded as UTF-8."""
    if value.isascii():
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _column_of(row: dict[str, Any], item: str) -> str:
    """Return the column of row that contains item (the same object), however deep, printable; "" if none does."""
    for column, value in row.items():
        # By identity: two columns may hold equal texts.
        stack = [value]
        while stack:
            top = stack.pop()
            if top is item:
                return str(column).encode("ascii", "backslashreplace").decode()
            stack.extend(top.values() if isinstance(top, dict) else top if isinstance(top, list) else ())
    return ""


def type_name(value: object) -> Message:
    """Return the type of a value in everyday words."""
    if value is None:
        return msg("data.type_null")
    for kind, name in ((bool, "bool"), (str, "text"), (int | float, "number"), (list, "list"), (dict, "object")):
        if isinstance(value, kind):
            return msg(f"data.type_{name}")
    return msg("data.type_other", type=type(value).__name__)


def column_names(file: str, cells: list[str], limits: Limits, is_row: bool = False) -> list[str]:
    """Return the names in a table's first row, "column 3" for an empty one, "answer (3)" for one that stands there
    again. is_row: it is a row, and all columns are numbered. Raises DataError for more than limits.columns."""
    names = ["" if is_row else cell.strip() for cell in cells]
    if len(names) > limits.columns:
        raise DataError("data.too_many_columns", file=file, count=len(names), limit=limits.columns)
    before: set[str] = set()
    for position, name in enumerate(names, 1):
        if not name:
            names[position - 1] = f"column {position}"  # pandas writes its index without a name
        elif name.lower() in before:
            names[position - 1] = f"{name} ({position})"
        before.add(name.lower())
    return names


def doubled(names: Sequence[str]) -> dict[str, tuple[str, int, int]]:
    """Return the columns of names that a table has twice, by the number that column_names gave the second one: "answer
    (3)" beside "answer".

    {column: (name in the file, place of the first, place of the second)}, with an entry for each of the two columns;
    places count from 1. {} without any.
    """
    places = {name.lower(): place for place, name in reversed([*enumerate(names, 1)])}
    columns: dict[str, tuple[str, int, int]] = {}
    for name in names:
        # answer (3) is column 3 if an "answer" stands before it.
        match = re.fullmatch(r"(.+) \((\d+)\)", name)
        if match and (first := places.get(match[1].lower(), places[name.lower()])) < min(
            int(match[2]), places[name.lower()]
        ):
            columns = dict.fromkeys((names[first - 1], name), (match[1], first, int(match[2]))) | columns
    return columns


def lines_of(file: io.TextIOWrapper, limit: int) -> Iterator[tuple[int, str | None, int]]:
    """Yield (number, text with its line end, length in characters) of each line of a file, numbers from 1.

    A line of more than limit bytes is skipped and comes as (number, None, length in bytes).
    """
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        size = len(line)
        # No character has more than four bytes: only then is encoding worth its time.
        if size * 4 > limit and (size > limit or len(line.encode("utf-8", "surrogatepass")) > limit):
            size = len(line.encode("utf-8", "surrogatepass"))
            while line and not line.endswith("\n"):
                line = file.readline(limit)
                size += len(line.encode("utf-8", "surrogatepass"))
            yield number, None, size
        else:
            yield number, line, size


def too_big(row: int, line: int | None, size: int, limits: Limits) -> Problem:
    """Return the problem of a row that is larger than limits.row_bytes and is left out. size: in bytes."""
    return Problem(
        row=row,
        line=line,
        text=msg("data.row_too_large", mib=round(size / MIB, 1), limit_mib=round(limits.row_bytes / MIB, 2)),
    )
