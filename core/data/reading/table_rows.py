"""Readers of the rows of CSV, Parquet and plain text."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from core.data.reading.file_rows import Limits, Problem, RawRow, Source, column_names, too_big
from core.data.reading.zips import seekable
from core.data.shapes import turn_markers
from core.data.shapes.left_out import Omission
from core.errors import DataError, reason_of
from core.messages import msg
from core.values import MIB

# A longer paragraph of plain text becomes several rows of some 4,000 tokens, so that they can be shuffled, split into
# training and validation, and shown.
MAX_CHARACTERS = 16_000
ANKI = "#separator:"  # the beginning of its exports
_COMMENT = re.compile(r"#(?:[#!]|\w{1,40}=| [\w ]{1,80}[:=]| \w+ \w+ \w+)")  # above a table, with commas too
_RULER, _TAG_OR_BLANK = re.compile(r"""<hr id=["']?answer["']?\s*/?>"""), re.compile(r"<[^>]*>|\s")
_SIDES, _MAX_CARD_FIELDS = ["Front", "Back"], 3  # cards have two sides, and may have tags
# Ends of a part, best first: the last line, sentence or word that ends in its second half (greedy, up to the given
# end).
_ENDS = tuple(
    re.compile(rf"[\s\S]{{{MAX_CHARACTERS // 2},}}(?:{end})")
    for end in (r"\n", r"[.!?…][\"'”’»)\]]*\s|[。！？][”’」』）]*", r"\s")
)


class _CsvLines:
    """Physical lines for csv.reader, which can continue after a line that is too long."""

    def __init__(self, file: io.TextIOWrapper, limit: int):
        self._file, self._limit, self.number, self.used = file, limit, 0, 0
        self._record: list[str] = []  # the lines of the record that is being read

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        """Return the next line and count its bytes to the record. Raises _LongRecord once the record is longer than the
        limit, after skipping the rest of the line."""
        line = self._file.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.used += len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))
        self._record.append(line)
        if self.used <= self._limit:
            return line
        # In pieces, as the line may be as long as the file.
        while line and not line.endswith(("\n", "\r")):
            line = self._file.readline(self._limit)
            self.used += len(line)
        raise _LongRecord(self.used)

    def records(self, delimiter: str | None, quoted: bool) -> Iterator[tuple[int, list[str] | Exception]]:
        """Yield (first line, cells) of each record; the error in place of cells that cannot be read. Sets csv's limit
        for a cell, in all of the process, to at least this one's."""
        # This limit is process-wide; the csv module has no other way to accept a field above 128 KiB.
        csv.field_size_limit(max(csv.field_size_limit(), self._limit))
        records = csv.reader(
            self, delimiter=delimiter or ",", strict=True, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        )
        while True:
            first_line, self.used = self.number + 1, 0
            self._record.clear()
            try:
                yield first_line, next(records)
            except StopIteration:
                return
            except (csv.Error, _LongRecord) as error:
                yield first_line, error

    def open_quote(self, first_line: int) -> int:
        """Return the line where the last quote of the present record opens; first_line: of the record."""
        text = "".join(self._record).replace('""', "")
        return first_line + text.count("\n", 0, max(0, text.rfind('"')))


class _LongRecord(Exception):
    pass


class _CsvHead:
    """Reads the first records of a table: a title, comments of Anki, the column names.

    names: the columns' names; None until they have been read.
    """

    def __init__(self, source: Source, limits: Limits):
        self._file, self._limits, self._is_row = source.path.name, limits, source.header is False
        self._cards: list[str] = []  # the fields of an export of Anki
        self.is_anki = False
        self.names: list[str] | None = None
        self.cells: list[str] = []  # of the row with the names, if there is one

    def is_title(self, record: list[str]) -> bool:
        """True if a record above the column names is a title (one filled cell, padded with empty cells to the table's
        width) or a comment. False for every record once the names have been read, and in an export of Anki."""
        is_padded = len(record) > 2 and not record[-1].strip() and sum(bool(cell.strip()) for cell in record) == 1
        is_comment = record and (record[0].startswith("# ") and len(record) == 1 or _COMMENT.match(record[0]))
        return self.names is None and not self._cards and bool(is_padded or is_comment)

    def is_blank(self, record: list[str]) -> bool:
        """Remove the empty cells at a record's end beyond the table's columns, with which Excel pads rows, and return
        True if nothing remains. A record of empty cells as wide as the table is a row.

        Before the column names are read, True if all cells are empty.
        """
        if record and record[-1].strip():
            return False
        while record and not record[-1].strip():
            if self._is_row if self.names is None else len(record) <= len(self.names):
                break
            record.pop()
        return not any(cell.strip() for cell in record) and (self.names is None or not record)

    def takes(self, line: int, record: list[str]) -> bool:
        """Return True if a record is part of the head and no row: a line "sep=", settings of Anki, or the column
        names. Sets `names` at the first record after them, also where the columns are only numbered and the record
        is a row."""
        first = record[0].lower()
        if line == 1 and first.startswith(ANKI):
            self.is_anki, self._is_row, self._cards = True, True, [*_SIDES]
            return True
        if self.names is not None or (line == 1 and len(record) == 1 and first.startswith("sep=")):
            return self.names is None
        if not self._cards:
            self.names = column_names(self._file, record, self._limits, self._is_row)
            self.cells = [] if self._is_row else record
            return not self._is_row
        if first.startswith("#"):
            if first.startswith("#columns:"):
                self._cards = [record[0][len("#columns:") :], *record[1:]]
            return True
        if self._cards == _SIDES and len(record) > _MAX_CARD_FIELDS:  # the fields of a note, in an order of its own
            self._cards = []
        names = [*self._cards, *(f"column {place}" for place in range(len(self._cards) + 1, len(record) + 1))]
        self.names = column_names(self._file, names[: len(record)], self._limits)
        return False


def csv_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of a CSV file with their line numbers; titles, comments and repeated headers are omissions. A
    record that cannot be read, or has another width, is a Problem.

    A too wide record fits if cells that begin with a blank are joined to the one before; the first one is a warning.
    Raises DataError without a readable header.
    """
    # Line ends become \n, in cells too: otherwise text from Windows would have other tokens than the same text from
    # elsewhere.
    with source.path.open(encoding=source.encoding) as file:
        lines, head, row, is_joined = _CsvLines(file, limits.row_bytes), _CsvHead(source, limits), 0, False
        for line, record in lines.records(source.delimiter, source.quoted):
            if isinstance(record, Exception):
                if head.names is None:
                    raise DataError("data.csv_broken_header", file=source.path.name, line=line)
                row += 1
                yield _unread(record, row, line, lines, limits)
            elif head.is_title(record):
                yield Omission("above")
            # The first record that is no title gives the names.
            elif not head.is_blank(record) and not head.takes(line, record) and (names := head.names):
                if record == head.cells:
                    yield Omission("header")
                    continue
                row += 1
                is_wide = len(record) > len(names) and source.delimiter in (None, ",")
                # Seen: 284 of 395 riddles left out for a comma.
                if is_wide and len(merged := _with_commas(record)) == len(names):
                    if not is_joined:
                        yield Problem(row=0, line=line, severity="warning", text=msg("data.csv_joined", line=line))
                    record, is_joined = merged, True
                if len(record) == len(names):
                    record = _without_fronts(record) if head.is_anki else record
                    yield RawRow(row, dict(zip(names, record, strict=True)), line)
                else:
                    counts = {"found": len(record), "expected": len(names)}
                    yield Problem(row=row, line=line, text=msg("data.csv_ragged", **counts, columns=names[:20]))
    if head.names is None:
        raise DataError("data.only_whitespace", file=source.path.name)


def _with_commas(cells: Sequence[str]) -> list[str]:
    """Return the cells of a record that was split at commas inside its texts: a cell that begins with a space is joined
    to the cell before it, with the comma between them."""
    return [part.replace("\0", ",") for part in re.split(r"\0(?! )", "\0".join(cells))]


def _without_fronts(cells: list[str]) -> list[str]:
    """Return the fields of an Anki card. Where the part of a field above the "answer" ruler (<hr id=answer>) only
    repeats another field, just the part below the ruler is kept."""
    if not any(map(_RULER.search, cells)):
        return cells
    texts = [_TAG_OR_BLANK.sub("", cell) for cell in cells]
    halves = [(cell, *_RULER.split(cell, maxsplit=1)) for cell in cells]
    return [each[-1].strip() if _TAG_OR_BLANK.sub("", each[1]) in texts else each[0] for each in halves]


def rows_as_wide(source: Source, limits: Limits, quoted: bool) -> int:
    """Return how many rows of a table, the first one included, have as many columns as the first, or two columns if
    that has only one. quoted: False if a quotation mark is a letter like any other."""
    with source.path.open(encoding=source.encoding, errors="replace") as file:
        records = _CsvLines(file, limits.row_bytes).records(source.delimiter, quoted)
        widths = [len(record) for _, record in records if isinstance(record, list)]
    return widths.count(max(2, *widths[:1]))


def _unread(error: Exception, row: int, line: int, lines: _CsvLines, limits: Limits) -> Problem:
    """Return the problem of a record that cannot be read: a quote that never closes (and the lines it takes in), its
    size, or a stray quote."""
    is_long = isinstance(error, _LongRecord) or "field limit" in str(error)
    if "unexpected end" in str(error) or (is_long and lines.number > line):  # only a quote joins lines
        opens = lines.open_quote(line)
        swallowed = msg("data.csv_open_quote", line=opens, last=lines.number, lines=lines.number - opens)
        return Problem(row=row, line=opens, text=swallowed if is_long else msg("data.csv_unclosed_quote"))
    if is_long:
        return too_big(row, line, lines.used, limits)
    return Problem(row=row, line=line, text=msg("data.csv_stray_quote"))


def parquet_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem]:
    """Yield the rows of a Parquet file; a row larger than limits.row_bytes is a Problem. Raises DataError where the
    file is broken, with the row, for too many or doubled columns, and for more than limits.bytes unpacked."""
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with seekable(source.path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
            # A small compressed file may become gigabytes.
            unpacked = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if unpacked > limits.bytes:
                raise DataError(
                    "data.too_large", file=source.path.name, mib=unpacked // MIB, limit_mib=limits.bytes // MIB
                )
            check_columns(file.schema_arrow.names, source, limits)
            for item in batch_rows(file.iter_batches(batch_size=256, use_threads=False), limits):
                row = item.row
                yield item
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError("data.broken_parquet", file=source.path.name, row=row + 1, reason=reason_of(error)) from None


def check_columns(names: Sequence[str], source: Source, limits: Limits) -> None:
    """Raise DataError for more columns than the limit, or two of the same name in any case."""
    lower = [name.lower() for name in names]
    if len(lower) > limits.columns:
        raise DataError("data.too_many_columns", file=source.path.name, count=len(lower), limit=limits.columns)
    if len(set(lower)) < len(lower):
        double = next(name for name in lower if lower.count(name) > 1)
        raise DataError("data.parquet_duplicate_column", file=source.path.name, column=double)


def batch_rows(batches: Iterable[Any], limits: Limits) -> Iterator[RawRow | Problem]:
    """Yield the rows of Arrow record batches, NaN as None; a row above the limit is a Problem."""
    row = 0
    for batch in batches:
        # Only then can a single row be too large; looking at each would take as long as reading them.
        if batch.nbytes > limits.row_bytes:
            pieces: Iterable[Any] = (batch.slice(i, 1) for i in range(batch.num_rows))
        else:
            pieces = (batch,)
        for piece in pieces:
            if (
                piece.num_rows == 1
                and piece.get_total_buffer_size() > limits.row_bytes
                and piece.nbytes > limits.row_bytes
            ):
                row += 1
                yield too_big(row, None, piece.nbytes, limits)
                continue
            for values in piece.to_pylist():
                row += 1
                # pandas writes NaN where a cell is empty
                yield RawRow(row, {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()})


def txt_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield a row for each conversation in a text with turn markers, otherwise for each paragraph: the lines up to a
    blank one, or to the % between the texts of a fortune file. A long paragraph becomes several rows (`Paragraph`)."""
    row = 0
    with source.path.open(encoding=source.encoding) as file:
        if source.is_marked and (style := turn_markers.style_of_file(head := file.read(turn_markers.LOOKED_AT))):
            begin = turn_markers.after_front(head, style)
            head, before = head[begin:], head[:begin].count("\n")
            if begin:
                yield Omission("around", "front")
            file.seek(0)
            file.read(begin)
            lines = iter(partial(file.readline, turn_markers.LARGEST_BLOCK), "")
            for row, (begins, text) in enumerate(turn_markers.conversations(lines, style, head), 1):
                yield RawRow(row, {"text": text}, before + begins)
            return
        paragraph = Paragraph()
        number, continues = 1, False
        while line := file.readline(MAX_CHARACTERS):
            if (line.isspace() or line == turn_markers.END_OF_FORTUNE) and not continues:
                texts = paragraph.end()
            else:
                texts = paragraph.add(number, line)
            for begins, text, joint in texts:
                row += 1
                yield RawRow(row, {"text": text}, begins, joint=joint)
            # A part of a long line ends no paragraph.
            continues = not line.endswith("\n")
            number += not continues
        for begins, text, joint in paragraph.end():
            row += 1
            yield RawRow(row, {"text": text}, begins, joint=joint)


class Paragraph:
    """Lines of a paragraph, joined; text over MAX_CHARACTERS is returned in parts that end with a line, a sentence or
    a word.

    Each text comes with its first line and what stood between it and the text before (None for the first).
    """

    def __init__(self) -> None:
        self._text, self._begins = "", 0
        self._joint: str | None = None

    def add(self, number: int, line: str) -> Iterator[tuple[int, str, str | None]]:
        """Add a line, and yield (first line, text, joint) of each part that is complete with it: text beyond
        MAX_CHARACTERS is divided. Mostly nothing is complete before `end`.

        The line is added only when the result is iterated. joint: the text between this part and the one before; None
        for the first.
        """
        self._begins = self._begins or number
        for begin in range(0, len(line), MAX_CHARACTERS):  # the rest is copied for each part
            self._text += line[begin : begin + MAX_CHARACTERS]
            while len(self._text) > MAX_CHARACTERS:
                end = next(
                    (m.end() for pattern in _ENDS if (m := pattern.match(self._text, 0, MAX_CHARACTERS))),
                    MAX_CHARACTERS,
                )
                part, self._text = self._text[:end], self._text[end:]
                yield self._begins, part.strip("\n"), self._joint
                self._begins += part.count("\n")
                self._joint = "\n" if part.endswith("\n") else ""

    def end(self) -> Iterator[tuple[int, str, str | None]]:
        """Yield the rest of the paragraph as (first line, text, joint), unless it is blank, and begin another
        paragraph, which is joined to this one by an empty line. It happens only when the result is iterated."""
        begins, text, self._begins, self._text = self._begins, self._text.strip("\n"), 0, ""
        if text.strip():
            yield begins, text, self._joint
            self._joint = "\n\n"
