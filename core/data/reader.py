"""Rows out of a data file that somebody dropped in: JSON, JSONL, CSV, Parquet, plain text; numbered and checked.

`probe` reads the file once (hash, encoding, what it really is), `read_rows` streams it. Nothing is executed, nothing
is guessed silently: what was assumed is a note, what is wrong with one row is a Problem and reading goes on, what is
wrong with the file is a DataError. Memory stays at a few rows whatever the file's size (measured: 15 MiB for 43 MB of
JSONL, CSV or text; 60 MiB as one JSON array, which is streamed element by element).
What it does not do: know what a row means (data_formats does).
Cost: 43 MB of JSONL, 100,000 rows, in 0.6 s (2 cores, 2026-11-25).
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.errors import DataError
from core.messages import Text, text

Kind = Literal["json", "jsonl", "csv", "parquet", "txt"]
SUFFIXES: dict[str, Kind] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "txt",
    ".md": "txt",
}
MIB = 1 << 20
_CHUNK = MIB
_HEAD = 64 << 10
_DELIMITERS = (",", ";", "\t")
# A list under one of these is a conversation, so the object around it is a row and no wrapper of rows.
_CONVERSATIONS = {"messages", "conversations", "conversation"}
_WRAPPERS = {"data", "train", "rows", "examples", "items", "records", "dataset"}

# What people drop in by mistake, by its first bytes; the sentence is `data.is_<name>`.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\xd0\xcf\x11\xe0", "office"),
    (b"%PDF", "pdf"),
    (b"MZ", "program"),
    (b"\x7fELF", "program"),
    (b"\x1f\x8b", "compressed"),
    (b"\x28\xb5\x2f\xfd", "compressed"),
    (b"7z\xbc\xaf", "compressed"),
    (b"Rar!", "compressed"),
    (b"BZh", "compressed"),
    (b"\x80\x02", "pickle"),
    (b"\x80\x03", "pickle"),
    (b"\x80\x04", "pickle"),
    (b"\x80\x05", "pickle"),
    (b"ARROW1", "arrow"),
    (b"SQLite format 3", "database"),
    (b"\x89PNG", "picture"),
    (b"\xff\xd8\xff", "picture"),
    (b"GIF8", "picture"),
    (b"GGUF", "model"),
    (b"version https://git-lfs", "lfs"),
)


class Limits(BaseModel):
    """How much of a file is taken; all of it can be read on a PC with 8 GiB of memory."""

    model_config = ConfigDict(frozen=True)

    bytes: int = Field(2 << 30, description="Largest file, in bytes; Parquet counts unpacked.")
    row_bytes: int = Field(4 * MIB, description="Largest row, in bytes of UTF-8 (a JSONL line, a JSON element, a CSV record).")
    depth: int = Field(64, description="Deepest nesting of lists and objects in a row, in levels.")
    rows: int = Field(2_000_000, description="Most rows of a file.")
    problems: int = Field(1_000, description="Most problems listed; the others are only counted.")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it stands in the file. number counts from 1; line is the physical line it begins on, where it has one."""

    number: int
    values: dict[str, Any]
    line: int | None = None


class Problem(BaseModel):
    """What is wrong with one row. row counts from 1 (0: the file as a whole); an error leaves the row out."""

    model_config = ConfigDict(frozen=True)

    row: int
    text: Text
    severity: Literal["error", "warning"] = "error"
    line: int | None = None

    @property
    def sentence(self) -> Text:
        """The text with its place: "Row 118 (line 120): ..."."""
        if self.row == 0:
            return self.text
        if self.line is None:
            return text("data.at_row", row=self.row, problem=self.text)
        return text("data.at_row_line", row=self.row, line=self.line, problem=self.text)


@dataclass(frozen=True)
class Source:
    """A file that was looked at: what it is, how its bytes become characters, and what was assumed."""

    path: Path
    kind: Kind
    bytes: int
    sha256: str
    encoding: str  # a Python codec name; "" for Parquet
    delimiter: str | None = None
    notes: tuple[Text, ...] = ()
    # Byte offset of the first byte that is not UTF-8; only JSONL is read past it, leaving out the broken lines.
    first_bad_byte: int | None = field(default=None)


# --- looking at the file ---------------------------------------------------------------------------------------------


def probe(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> Source:
    """Read the whole file once and say what it is. Raises DataError for a file with no rows in it that can be read."""
    path = Path(path)
    with _translated(path):
        size = _size(path, limits)
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        _refuse_what_is_not_data(path, head)
        if head.startswith(b"PAR1"):
            return Source(path, "parquet", size, _sha256(path), "")
        encoding = _encoding_by_first_bytes(path, head)
        sha256, first_bad, blank = _scan(path, encoding)
        if blank:
            raise DataError("data.only_whitespace", file=path.name)
        notes: list[Text] = []
        if first_bad is not None and encoding == "utf-8" and _reads_as_chinese(path):
            encoding, first_bad = "gb18030", None
            notes.append(text("data.note_gb18030"))
        elif encoding in ("utf-16", "utf-32"):
            notes.append(text("data.note_encoding", encoding=encoding.upper()))
        kind = _kind(path, encoding, limits)
        if first_bad is not None and not (kind == "jsonl" and encoding.startswith("utf-8")):
            raise DataError("data.bad_encoding", file=path.name, byte=first_bad, encoding=encoding.upper())
        delimiter = None
        if kind == "csv":
            delimiter = _delimiter(path, encoding)
            if delimiter != ",":
                notes.append(text("data.note_delimiter", delimiter=text(f"data.delimiter_{_DELIMITERS.index(delimiter)}")))
        if kind == "txt":
            notes.append(text("data.note_paragraphs"))
        if path.suffix.lower() in SUFFIXES and SUFFIXES[path.suffix.lower()] != kind:
            notes.append(text("data.note_kind", suffix=path.suffix.lower(), kind=kind.upper()))
    return Source(path, kind, size, sha256, encoding, delimiter, tuple(notes), first_bad)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """The operating system's refusals, in a sentence."""
    name = path.name[:200] or str(path)[:200]
    try:
        yield
    except FileNotFoundError:
        raise DataError("data.missing_file", file=name) from None
    except IsADirectoryError:
        raise DataError("data.not_a_file", file=name) from None
    except OSError as error:
        raise DataError("data.cannot_read", file=name, reason=error.strerror or str(error)) from error


def _size(path: Path, limits: Limits) -> int:
    try:
        size = path.stat().st_size
        is_file = path.is_file()
    except ValueError:  # a NUL in the name
        raise DataError("data.missing_file", file=path.name.replace("\0", "")[:200]) from None
    if not is_file:  # a folder, a pipe, a device without end
        raise DataError("data.not_a_file", file=path.name or str(path))
    if size == 0:
        raise DataError("data.empty_file", file=path.name)
    if size > limits.bytes:
        raise DataError("data.too_large", file=path.name, mib=size // MIB, limit_mib=limits.bytes // MIB)
    return size


def _refuse_what_is_not_data(path: Path, head: bytes) -> None:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            if magic in (b"MZ", b"BZh") and b"\0" not in head:  # a text may begin so
                continue
            if name == "zip" and path.suffix.lower() in (".xlsx", ".xlsm", ".docx", ".ods"):
                name = "office"
            raise DataError(f"data.is_{name}", file=path.name)
    if re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html)\b", head, re.IGNORECASE):
        raise DataError("data.is_web_page", file=path.name)


def _encoding_by_first_bytes(path: Path, head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    nuls = head.count(0)
    if nuls * 4 > len(head) and max(head[0::2].count(0), head[1::2].count(0)) * 10 > nuls * 9 and len(head) > 3:
        raise DataError("data.utf16_without_bom", file=path.name)
    if nuls * 10 > len(head):
        raise DataError("data.is_binary", file=path.name, byte=head.index(0))
    return "utf-8"


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    return digest.hexdigest()


def _scan(path: Path, encoding: str) -> tuple[str, int | None, bool]:
    """sha256, byte offset of the first byte that does not decode (None: all do), and whether all of it is white space."""
    digest, blank, first_bad, position = hashlib.sha256(), True, None, 0
    # Plain utf-8 also where there is a BOM, since utf-8-sig counts its offsets from after it.
    decoder = codecs.getincrementaldecoder("utf-8" if encoding == "utf-8-sig" else encoding)()
    chunks = _chunks(path)
    while True:
        chunk = next(chunks, b"")
        digest.update(chunk)
        if first_bad is None:
            held = len(decoder.getstate()[0])
            try:
                characters = decoder.decode(chunk, final=not chunk)
                blank = blank and not characters.strip("\ufeff\0 \t\r\n\x0b\x0c\u3000\xa0")
            except UnicodeDecodeError as error:
                first_bad, blank = position - held + error.start, False
        position += len(chunk)
        if not chunk:
            return digest.hexdigest(), first_bad, blank


def _reads_as_chinese(path: Path) -> bool:
    """True where the file is GB18030 (what Excel and Notepad write on a Chinese Windows) rather than damaged UTF-8.

    Text in it consists nearly wholly of GB2312's everyday characters (first byte 0xB0-0xD7; punctuation 0xA1-0xA3);
    UTF-8 or Western text read as GB18030 gives rare ones.
    """
    decoder = codecs.getincrementaldecoder("gb18030")()
    everyday = others = 0
    try:
        for chunk in _chunks(path):
            characters = decoder.decode(chunk)
            if everyday + others > 200_000:  # enough to know; the rest has only to decode
                continue
            for character in characters:
                if character.isascii():
                    continue
                raw = character.encode("gb18030")
                if len(raw) == 2 and (0xB0 <= raw[0] <= 0xD7 or 0xA1 <= raw[0] <= 0xA3) and raw[1] >= 0xA1:
                    everyday += 1
                else:
                    others += 1
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return everyday >= 2 and everyday >= 4 * others


def _open(path: Path, encoding: str, newline: str | None = None, errors: str = "strict") -> io.TextIOWrapper:
    return open(path, encoding=encoding, newline=newline, errors=errors)


def _kind(path: Path, encoding: str, limits: Limits) -> Kind:
    """By content where that is clear, by the file's suffix otherwise."""
    by_suffix = SUFFIXES.get(path.suffix.lower())
    if by_suffix == "csv":
        return "csv"
    with _open(path, encoding, errors="replace") as file:
        lines: list[str] = []
        while len(lines) < 20 and (line := file.readline(limits.row_bytes)):
            if line.strip():
                lines.append(line.strip())
            if sum(map(len, lines)) > limits.row_bytes:
                break
    first = lines[0] if lines else ""
    if by_suffix in ("txt", None) and not _is_json(first, dict):
        if by_suffix == "txt":
            return "txt"
        if not first.startswith(("[", "{")):
            raise DataError("data.unknown_kind", file=path.name, start=_start(first), suffixes=sorted(SUFFIXES))
    if by_suffix == "parquet" and not first.startswith(("[", "{")):
        raise DataError("data.not_parquet", file=path.name, start=_start(first))
    if by_suffix == "jsonl":
        if any(line.startswith("{") for line in lines) and first != "{" and not first.startswith("["):
            return "jsonl"
        if not first.startswith(("[", "{")):
            raise DataError("data.not_json", file=path.name, suffix=path.suffix.lower(), start=_start(first))
        return "json"
    if not first.startswith(("[", "{")):
        raise DataError("data.not_json", file=path.name, suffix=path.suffix.lower(), start=_start(first))
    return "jsonl" if len(lines) > 1 and _is_json(first, dict) else "json"


def _is_json(line: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(line), kind)
    except (ValueError, RecursionError):
        return False


def _start(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line[:20])


def _delimiter(path: Path, encoding: str) -> str:
    """The one of comma, semicolon and tab that splits the first records into the most equal columns."""
    with _open(path, encoding, newline="", errors="replace") as file:
        sample = file.read(_HEAD)
    if sample.lower().startswith("sep=") and sample[4:5] in _DELIMITERS:
        return sample[4]
    if len(sample) == _HEAD:
        sample = sample[: sample.rfind("\n") + 1] or sample
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        try:
            widths = [len(record) for record in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if record]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            equal = sum(width == widths[0] for width in widths) / len(widths)
            score = equal + widths[0] / 1000
            if score > best_score:
                best, best_score = delimiter, score
    return best


# --- reading rows ----------------------------------------------------------------------------------------------------


def read_rows(path: str | Path | Source, limits: Limits = DEFAULT_LIMITS) -> Iterator[Row | Problem]:
    """The rows of a file in order, a Problem in the place of each that cannot be read.

    path: a file, or the Source that probe() made of it. Raises DataError where the file as a whole cannot be read, also
    after some rows (a JSON array that is broken in its middle, a file with more than limits.rows rows).
    """
    source = path if isinstance(path, Source) else probe(path, limits)
    reader = {"json": _json, "jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "txt": _txt}[source.kind]
    with _translated(source.path):
        try:
            for item in reader(source, limits):
                if item.row > limits.rows:
                    raise DataError("data.too_many_rows", file=source.path.name, limit=limits.rows)
                yield _checked(item, limits) if isinstance(item, _Raw) else item
        except UnicodeDecodeError as error:
            raise DataError(
                "data.bad_encoding", file=source.path.name, byte=error.start, encoding=source.encoding.upper()
            ) from None


@dataclass(frozen=True, slots=True)
class _Raw:
    row: int
    value: Any
    line: int | None = None


def _checked(raw: _Raw, limits: Limits) -> Row | Problem:
    if not isinstance(raw.value, dict):
        return Problem(row=raw.row, line=raw.line, text=text("data.not_an_object", found=type_name(raw.value)))
    flaw = _flaw(raw.value, limits.depth)
    if flaw is not None:
        return Problem(row=raw.row, line=raw.line, text=flaw)
    return Row(raw.row, raw.value, raw.line)


def _flaw(value: dict[str, Any], limit: int) -> Text | None:
    """What later steps could not write, hash or tokenise: without recursion, since depth is one of the flaws."""
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return text("data.too_deep", limit=limit)
        below: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                for key in container:
                    if isinstance(key, str) and not key.isascii() and _lone_surrogate(key):
                        return text("data.lone_surrogate", column=key.encode("ascii", "backslashreplace").decode())
                items = container.values()
            else:
                items = container
            for item in items:
                if isinstance(item, str):
                    if not item.isascii() and _lone_surrogate(item):
                        return text("data.lone_surrogate", column=_column_of(value, item))
                    if "\0" in item:
                        return text("data.nul")
                elif isinstance(item, dict | list):
                    below.append(item)
                elif isinstance(item, float) and not math.isfinite(item):
                    return text("data.not_finite", found=str(item))
        level = below
    return None


def _lone_surrogate(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _column_of(row: dict[str, Any], item: str) -> str:
    """The column of row that holds item, however deep (asked only for a row that is refused)."""
    for column, value in row.items():
        stack = [value]
        while stack:
            top = stack.pop()
            if top is item:
                return str(column).encode("ascii", "backslashreplace").decode()
            stack.extend(top.values() if isinstance(top, dict) else top if isinstance(top, list) else ())
    return ""


def type_name(value: Any) -> Text:
    """The kind of a value in everyday words."""
    if value is None:
        return text("data.type_null")
    for kind, name in ((bool, "bool"), (str, "text"), (int | float, "number"), (list, "list"), (dict, "object")):
        if isinstance(value, kind):
            return text(f"data.type_{name}")
    return text("data.type_other", type=type(value).__name__)


def _lines(file: io.TextIOWrapper, limit: int) -> Iterator[tuple[int, str | None, int]]:
    """(line number, line, its length in bytes); line is None where it is longer than limit, and was skipped."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        size = len(line)
        if size * 4 > limit and (size > limit or len(line.encode("utf-8", "surrogatepass")) > limit):
            size = len(line.encode("utf-8", "surrogatepass"))
            while line and not line.endswith("\n"):
                line = file.readline(limit)
                size += len(line.encode("utf-8", "surrogatepass"))
            yield number, None, size
        else:
            yield number, line, size


def _too_big(row: int, line: int | None, size: int, limits: Limits) -> Problem:
    return Problem(
        row=row, line=line, text=text("data.row_too_large", mib=round(size / MIB, 1), limit_mib=round(limits.row_bytes / MIB, 2))
    )


def _jsonl(source: Source, limits: Limits) -> Iterator[_Raw | Problem]:
    row = 0
    broken = source.first_bad_byte is not None
    # surrogateescape turns bytes that are not UTF-8 into lone surrogates, so that one bad line costs one row.
    with _open(source.path, source.encoding, errors="surrogateescape" if broken else "strict") as file:
        for number, line, size in _lines(file, limits.row_bytes):
            if line is None:
                row += 1
                yield _too_big(row, number, size, limits)
                continue
            line = line.rstrip()  # or an unclosed text would be blamed on the line's end
            if not line:
                continue
            row += 1
            if broken and not line.isascii() and _lone_surrogate(line):
                yield Problem(row=row, line=number, text=text("data.line_not_utf8"))
                continue
            try:
                yield _Raw(row, json.loads(line), number)
            except RecursionError:
                yield Problem(row=row, line=number, text=text("data.too_deep", limit=limits.depth))
            except ValueError as error:
                yield Problem(row=row, line=number, text=_why_not_json(error, line))


def _why_not_json(error: ValueError, line: str) -> Text:
    if "\0" in line:
        return text("data.nul")
    if not isinstance(error, json.JSONDecodeError):  # an integer of more than 4,300 digits
        return text("data.broken_number")
    if error.msg == "Extra data":
        return text("data.two_on_a_line", column=error.colno)
    return text("data.broken_json", column=error.colno, reason=_json_reason(error))


def _json_reason(error: json.JSONDecodeError) -> Text | str:
    return _JSON_REASONS.get(error.msg, error.msg)


_JSON_REASONS = {
    "Expecting value": text("data.json_value"),
    "Expecting ',' delimiter": text("data.json_comma"),
    "Expecting ':' delimiter": text("data.json_colon"),
    "Expecting property name enclosed in double quotes": text("data.json_quotes"),
    "Illegal trailing comma before end of object": text("data.json_trailing_comma"),
    "Illegal trailing comma before end of array": text("data.json_trailing_comma"),
    "Unterminated string starting at": text("data.json_unclosed"),
    "Invalid control character at": text("data.json_control"),
    "Invalid \\escape": text("data.json_escape"),
    "Invalid \\uXXXX escape": text("data.json_escape"),
}


class _JsonStream:
    """JSON values one after another out of a text file, with at least one whole row of it in memory at any time."""

    _decoder = json.JSONDecoder()

    def __init__(self, file: io.TextIOWrapper, source: Source, limits: Limits):
        self._file, self._source, self._limits = file, source, limits
        self._buffer, self._at, self._line, self._ended = "", 0, 1, False

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._move(match.end() if match else self._at)
            if self._at < len(self._buffer) or self._ended:
                return self._buffer[self._at : self._at + 1]
            self._fill()

    def list_of_objects(self) -> bool:
        """Whether what comes is a list that begins with an object; asked where peek() is "["."""
        if len(self._buffer) - self._at <= self._limits.row_bytes:
            self._fill()
        return _LIST_OF_OBJECTS.match(self._buffer, self._at) is not None

    def take(self, expected: str, row: int) -> None:
        found = self.peek()
        if found != expected:
            raise self._broken(row, text("data.json_expected", expected=expected, found=found or text("data.json_end")))
        self._move(self._at + 1)

    def value(self, row: int) -> tuple[Any, int]:
        """The next value, and the line it begins on. Raises DataError where it is broken or larger than a row may be."""
        self.peek()
        # Only with a whole row ahead is a failure to decode a fact about the file and not about the buffer.
        if len(self._buffer) - self._at <= self._limits.row_bytes:
            self._fill()
        line = self._line
        try:
            value, end = self._decoder.raw_decode(self._buffer, self._at)
        except RecursionError:
            raise DataError(
                "data.json_too_deep", file=self._source.path.name, row=row, line=line, limit=self._limits.depth
            ) from None
        except json.JSONDecodeError as error:
            if not self._ended:
                self._too_large(row, line)
            self._move(min(error.pos, len(self._buffer)))
            nul = self._buffer[self._at : self._at + 1] == "\0"
            raise self._broken(row, text("data.nul") if nul else _json_reason(error)) from None
        except ValueError:
            raise self._broken(row, text("data.broken_number")) from None
        if end - self._at > self._limits.row_bytes // 4:
            if len(self._buffer[self._at : end].encode("utf-8", "surrogatepass")) > self._limits.row_bytes:
                self._too_large(row, line)
        self._move(end)
        return value, line

    def _too_large(self, row: int, line: int) -> None:
        limit_mib = round(self._limits.row_bytes / MIB, 2)
        raise DataError("data.json_row_too_large", file=self._source.path.name, row=row, line=line, limit_mib=limit_mib)

    def _broken(self, row: int, reason: Text | str) -> DataError:
        return DataError("data.broken_json_file", file=self._source.path.name, row=row, line=self._line, reason=reason)

    def _fill(self) -> None:
        if self._ended:
            return
        more = self._file.read(2 * self._limits.row_bytes)
        self._ended = len(more) < 2 * self._limits.row_bytes
        self._buffer, self._at = self._buffer[self._at :] + more, 0

    def _move(self, to: int) -> None:
        self._line += self._buffer.count("\n", self._at, to)
        self._at = to


_SPACE = re.compile(r"[ \t\r\n]+")
_LIST_OF_OBJECTS = re.compile(r"\[\s*\{")


def _json(source: Source, limits: Limits) -> Iterator[_Raw | Problem]:
    with _open(source.path, source.encoding) as file:
        stream = _JsonStream(file, source, limits)
        if stream.peek() == "[":
            yield from _array(stream)
        else:
            yield from _wrapped(stream, limits)
        if stream.peek():
            raise DataError("data.json_more_after_end", file=source.path.name, found=stream.peek(), line=stream._line)


def _array(stream: _JsonStream, row: int = 0) -> Iterator[_Raw]:
    stream.take("[", row + 1)
    while stream.peek() != "]":
        if row:
            stream.take(",", row + 1)
        row += 1
        value, line = stream.value(row)
        yield _Raw(row, value, line)
    stream.take("]", row + 1)


def _wrapped(stream: _JsonStream, limits: Limits) -> Iterator[_Raw | Problem]:
    """An object: rows under its first key that holds a list of objects ("data", "train", ...), or a row itself."""
    stream.take("{", 1)
    row: dict[str, Any] = {}
    used: str | None = None
    left_out: list[str] = []
    while stream.peek() != "}":
        if row or used is not None:
            stream.take(",", 1)
        key, _ = stream.value(1)
        stream.take(":", 1)
        name = str(key).lower()
        is_list = stream.peek() == "["
        if is_list and used is None and (name in _WRAPPERS or (stream.list_of_objects() and name not in _CONVERSATIONS)):
            yield from _array(stream)
            used = str(key)
            continue
        value, _ = stream.value(1)
        row[str(key)] = value if used is None else None  # of the rest only the names are kept
        if is_list and used is not None:
            left_out.append(str(key))
    stream.take("}", 1)
    if used is None:
        yield _Raw(1, row, 1)
    elif left_out:
        yield Problem(row=0, severity="warning", text=text("data.other_lists", used=used, left_out=left_out[:10]))


class _CsvLines:
    """Physical lines for csv.reader, which may go on after one that is too long."""

    def __init__(self, file: io.TextIOWrapper, limit: int):
        self._file, self._limit, self.number, self.used = file, limit, 0, 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(self._limit + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self.used += len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))
        if self.used <= self._limit:
            return line
        while line and not line.endswith(("\n", "\r")):
            line = self._file.readline(self._limit)
            self.used += len(line)
        raise _LongRecord(self.used)


class _LongRecord(Exception):
    pass


def _csv(source: Source, limits: Limits) -> Iterator[_Raw | Problem]:
    assert source.delimiter is not None
    # Process-wide in the csv module, which has no other way to take a field above 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), limits.row_bytes))
    with _open(source.path, source.encoding, newline="") as file:
        lines = _CsvLines(file, limits.row_bytes)
        records = csv.reader(lines, delimiter=source.delimiter, strict=True)
        header: list[str] | None = None
        row = 0
        while True:
            begins, lines.used = lines.number + 1, 0
            try:
                record = next(records)
            except StopIteration:
                break
            except (csv.Error, _LongRecord) as error:
                if header is None:
                    raise DataError("data.csv_broken_header", file=source.path.name, line=begins) from None
                row += 1
                if isinstance(error, _LongRecord) or "field limit" in str(error):
                    yield _too_big(row, begins, lines.used, limits)
                elif "unexpected end" in str(error):
                    yield Problem(row=row, line=begins, text=text("data.csv_unclosed_quote"))
                else:
                    yield Problem(row=row, line=begins, text=text("data.csv_stray_quote"))
                continue
            while record and not record[-1].strip() and (header is None or len(record) > len(header)):
                record.pop()  # Excel pads rows with empty cells
            if not any(cell.strip() for cell in record):
                if header is None or not record:
                    continue
            if header is None:
                if len(record) == 1 and begins == 1 and record[0].lower().startswith("sep="):
                    continue
                header = _header(source, record)
                continue
            row += 1
            if len(record) != len(header):
                yield Problem(
                    row=row, line=begins, text=text("data.csv_ragged", found=len(record), expected=len(header), columns=header[:20])
                )
                continue
            yield _Raw(row, dict(zip(header, record, strict=True)), begins)
    if header is None:
        raise DataError("data.only_whitespace", file=source.path.name)


def _header(source: Source, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    seen: dict[str, int] = {}
    for position, name in enumerate(names, 1):
        if not name:
            names[position - 1] = f"column {position}"  # pandas writes its index without a name
        elif name.lower() in seen:
            raise DataError(
                "data.csv_duplicate_header", file=source.path.name, column=name, first=seen[name.lower()], second=position
            )
        seen[name.lower()] = position
    return names


def _parquet(source: Source, limits: Limits) -> Iterator[_Raw | Problem]:
    import pyarrow
    import pyarrow.parquet

    row = 0
    try:
        with pyarrow.parquet.ParquetFile(source.path) as file:
            unpacked = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            if unpacked > limits.bytes:
                raise DataError("data.too_large", file=source.path.name, mib=unpacked // MIB, limit_mib=limits.bytes // MIB)
            names = [name.lower() for name in file.schema_arrow.names]
            if len(set(names)) < len(names):
                double = next(name for name in names if names.count(name) > 1)
                raise DataError("data.parquet_duplicate_column", file=source.path.name, column=double)
            for batch in file.iter_batches(batch_size=256, use_threads=False):
                if batch.nbytes > limits.row_bytes:
                    pieces = (batch.slice(i, 1) for i in range(batch.num_rows))
                else:
                    pieces = (batch,)
                for piece in pieces:
                    if piece.num_rows == 1 and piece.get_total_buffer_size() > limits.row_bytes and piece.nbytes > limits.row_bytes:
                        row += 1
                        yield _too_big(row, None, piece.nbytes, limits)
                        continue
                    for values in piece.to_pylist():
                        row += 1
                        # pandas writes NaN where a cell is empty
                        yield _Raw(row, {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()})
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError("data.broken_parquet", file=source.path.name, row=row + 1, reason=reason) from None


def _txt(source: Source, limits: Limits) -> Iterator[_Raw | Problem]:
    row, begins, size = 0, 0, 0
    paragraph: list[str] = []

    def finished() -> Iterator[_Raw | Problem]:
        nonlocal row, size
        if size:
            row += 1
            if size > limits.row_bytes:
                yield _too_big(row, begins, size, limits)
            else:
                yield _Raw(row, {"text": "".join(paragraph).strip("\n")}, begins)
        paragraph.clear()
        size = 0

    with _open(source.path, source.encoding) as file:
        for number, line, line_bytes in _lines(file, limits.row_bytes):
            if line is not None and line.isspace():
                yield from finished()
                continue
            if not size:
                begins = number
            size += line_bytes
            if line is None:
                size = max(size, limits.row_bytes + 1)
            if size > limits.row_bytes:
                paragraph.clear()
            else:
                paragraph.append(line or "")
        yield from finished()
