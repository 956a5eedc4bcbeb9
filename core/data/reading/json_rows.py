"""Rows out of JSON Lines and JSON: one object a line, one array, or an object around an array, read as a stream."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from core.data.reading.rows import Limits, Problem, Raw, Source, lines_of, lone_surrogate, too_big
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

# A list under one of these is a conversation, so the object around it is a row and no wrapper of rows.
_CONVERSATIONS = {"messages", "conversations", "conversation"}
_PARTS_OF_A_ROW = _CONVERSATIONS | {"paragraphs", "chosen", "rejected", "prompt", "chat_messages"}
_TURNS = _CONVERSATIONS | {"dialog", "dialogue", "turns", "utterances"}
_WRAPPERS = {"data", "train", "rows", "examples", "items", "records", "dataset"}


def jsonl_rows(source: Source, limits: Limits) -> Iterator[Raw | Problem]:
    row = 0
    broken = source.first_bad_byte is not None
    # surrogateescape turns bytes that are not UTF-8 into lone surrogates, so that one bad line costs one row.
    with open(source.path, encoding=source.encoding, errors="surrogateescape" if broken else "strict") as file:
        for number, line, size in lines_of(file, limits.row_bytes):
            if line is None:
                row += 1
                yield too_big(row, number, size, limits)
                continue
            line = line.rstrip()  # or an unclosed text would be blamed on the line's end
            if not line:
                continue
            row += 1
            if broken and not line.isascii() and lone_surrogate(line):
                yield Problem(row=row, line=number, text=msg("data.line_not_utf8"))
                continue
            try:
                yield Raw(row, json.loads(line), number)
            except RecursionError:
                yield Problem(row=row, line=number, text=msg("data.too_deep", limit=limits.depth))
            except ValueError as error:
                yield Problem(row=row, line=number, text=_why_not_json(error, line))


def _why_not_json(error: ValueError, line: str) -> Message:
    if "\0" in line:
        return msg("data.nul")
    if not isinstance(error, json.JSONDecodeError):  # an integer of more than 4,300 digits
        return msg("data.broken_number")
    if error.msg == "Extra data":
        return msg("data.two_on_a_line", column=error.colno)
    return msg("data.broken_json", column=error.colno, reason=_JSON_REASONS.get(error.msg, error.msg))


_JSON_REASONS = {
    "Expecting value": msg("data.json_value"),
    "Expecting ',' delimiter": msg("data.json_comma"),
    "Expecting ':' delimiter": msg("data.json_colon"),
    "Expecting property name enclosed in double quotes": msg("data.json_quotes"),
    "Illegal trailing comma before end of object": msg("data.json_trailing_comma"),
    "Illegal trailing comma before end of array": msg("data.json_trailing_comma"),
    "Unterminated string starting at": msg("data.json_unclosed"),
    "Invalid control character at": msg("data.json_control"),
    "Invalid \\escape": msg("data.json_escape"),
    "Invalid \\uXXXX escape": msg("data.json_escape"),
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
            raise self._broken(row, msg("data.json_expected", expected=expected, found=found or msg("data.json_end")))
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
            raise self._broken(row, msg("data.nul") if nul else _JSON_REASONS.get(error.msg, error.msg)) from None
        except ValueError:
            raise self._broken(row, msg("data.broken_number")) from None
        if end - self._at > self._limits.row_bytes // 4:
            if len(self._buffer[self._at : end].encode("utf-8", "surrogatepass")) > self._limits.row_bytes:
                self._too_large(row, line)
        self._move(end)
        return value, line

    def _too_large(self, row: int, line: int) -> None:
        limit_mib = round(self._limits.row_bytes / MIB, 2)
        raise DataError("data.json_row_too_large", file=self._source.path.name, row=row, line=line, limit_mib=limit_mib)

    def _broken(self, row: int, reason: Message | str) -> DataError:
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


def json_rows(source: Source, limits: Limits) -> Iterator[Raw | Problem]:
    with open(source.path, encoding=source.encoding) as file:
        stream = _JsonStream(file, source, limits)
        if stream.peek() == "[":
            yield from _array(stream)
        else:
            yield from _wrapped(stream, limits)
        if stream.peek():
            raise DataError("data.json_more_after_end", file=source.path.name, found=stream.peek(), line=stream._line)


def _array(stream: _JsonStream) -> Iterator[Raw]:
    stream.take("[", 1)
    row = 0
    is_first = True
    while stream.peek() != "]":
        if not is_first:
            stream.take(",", row + 1)
        is_first = False
        value, line = stream.value(row + 1)
        for one in _of_article(value):
            row += 1
            yield Raw(row, one, line)
    stream.take("]", row + 1)


def _of_article(value: Any) -> Iterator[Any]:
    """SQuAD keeps an article with its paragraphs in one object: a row for each question. Anything else is a row."""
    paragraphs = value.get("paragraphs") if isinstance(value, dict) else None
    if not isinstance(paragraphs, list) or not all(isinstance(p, dict) and isinstance(p.get("qas"), list) for p in paragraphs):
        yield value
        return
    about = {name: part for name, part in value.items() if name != "paragraphs"}
    for paragraph in paragraphs:
        shared = about | {name: part for name, part in paragraph.items() if name != "qas"}
        yield from (shared | qa if isinstance(qa, dict) else qa for qa in paragraph["qas"])


def _of_columns(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of an object that holds columns, each a list of as many values, or as pandas writes it {"0": ..., "1": ...}."""
    columns = list(value.values())
    if not columns or any(name.lower() in _TURNS for name in value):
        return None
    if all(isinstance(column, dict) and "0" in column for column in columns):
        if any(column.keys() != columns[0].keys() for column in columns):
            return None
        return [{name: column[key] for name, column in value.items()} for key in columns[0]]
    if not all(isinstance(column, list) and column and len(column) == len(columns[0]) for column in columns):
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _wrapped(stream: _JsonStream, limits: Limits) -> Iterator[Raw | Problem]:
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
        if is_list and used is None and (name in _WRAPPERS or (stream.list_of_objects() and name not in _PARTS_OF_A_ROW)):
            yield from _array(stream)
            used = str(key)
            continue
        value, _ = stream.value(1)
        row[str(key)] = value if used is None else None  # of the rest only the names are kept
        if is_list and used is not None:
            left_out.append(str(key))
    stream.take("}", 1)
    if used is None:
        for number, one in enumerate(_of_columns(row) or _of_article(row), 1):
            yield Raw(number, one, 1)
    elif left_out:
        yield Problem(row=0, severity="warning", text=msg("data.other_lists", used=used, left_out=left_out[:10]))
