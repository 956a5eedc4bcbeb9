"""Rows from JSON Lines and JSON: one object per line, one array, or an object around an array, streamed by ijson.

ijson's events are put together here, since it tells no line, and of half a character ("\\ud83d" alone), NaN and numbers
without end it makes something else, or gives up. A row in which it may have done so is decoded by `json` again, and so
is a place at which it gives up, to say why.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Generator, Iterator
from decimal import Decimal
from itertools import chain
from typing import Any

import ijson

from core.data.reading.rows import Limits, Problem, Raw, Source, lines_of, lone_surrogate, too_big
from core.data.shapes.labelled import several
from core.data.shapes.left_out import Loss, says
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

# A list under one of these is a conversation, so the object around it is a row and no wrapper of rows.
_CONVERSATIONS = {"messages", "conversations", "conversation"}
_PARTS_OF_A_ROW = _CONVERSATIONS | {"paragraphs", "chosen", "rejected", "prompt", "chat_messages", "worldinfo"}
_ABOUT_ROWS = {"features"}  # the datasets server says before its rows what their columns are
_TURNS = _CONVERSATIONS | {"dialog", "dialogue", "turns", "utterances"}
_WRAPPERS = {"data", "train", "rows", "examples", "items", "records", "dataset"}
_QUESTION = re.compile(r"\S\s+\S|[?？؟]\s*$")  # of several words, as no column is called
_CHUNK = 64 << 10  # characters
_ENDS = re.compile(rb"[\[\]},\n]")
_SEPARATOR, _SEPARATED = re.compile(rb"[ \t\r\n,]*"), re.compile(r"[ \t\r\n,]*")
_BETWEEN = b" \t\r\n,"
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_NUMBER = re.compile(rb"NaN|-?Infinity")
_DECODER = json.JSONDecoder()
_GIVES_UP = (ijson.JSONError, ValueError, ArithmeticError)  # the last for an exponent that no Decimal has
_MOST_DIGITS = 4000
_LONG_NUMBER = re.compile(rb"[0-9]{4000}")
_OPENING = ("start_map", "start_array")
_CLOSING = ("end_map", "end_array")
Event = tuple[str, Any]


def jsonl_rows(source: Source, limits: Limits) -> Iterator[Raw | Problem]:
    row = 0
    broken = source.first_bad_byte is not None
    # surrogateescape turns bytes that are not UTF-8 into lone surrogates, so that one bad line costs one row.
    with source.path.open(encoding=source.encoding, errors="surrogateescape" if broken else "strict") as file:
        for number, line, size in lines_of(file, limits.row_bytes):
            if line is None:
                row += 1
                yield too_big(row, number, size, limits)
                continue
            line = line.rstrip()  # or an unclosed text would be blamed on the line's end
            if not line:
                continue
            row += 1
            if broken and lone_surrogate(line):
                yield Problem(row=row, line=number, text=msg("data.line_not_utf8"))
                continue
            try:
                yield Raw(row, decoded(line), number)
            except RecursionError:
                yield Problem(row=row, line=number, text=msg("data.too_deep", limit=limits.depth))
            except ValueError as error:
                yield Problem(row=row, line=number, text=_why_not_json(error, line))


def decoded(line: str) -> Any:
    """As `json.loads` does, which looks for blanks around it, and takes twice as long for that."""
    try:
        value, end = _DECODER.raw_decode(line)
    except json.JSONDecodeError:
        end = -1
    return value if end == len(line) else json.loads(line)


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


def json_rows(source: Source, limits: Limits) -> Iterator[Raw | Problem | Loss]:
    stream = _Stream(source, limits)
    events = stream.events()
    first = next(events, None)
    if first and first[0] == "start_array":
        stream.among(b"[", 1)
        yield from _list(stream, events, b"[")
    elif first:
        yield from _object(stream, events)
    _end(events)


def _end(events: Iterator[Event]) -> None:
    """What comes behind the end is an error."""
    for _ in events:
        pass


def _list(stream: _Stream, events: Iterator[Event], context: bytes) -> Iterator[Raw]:
    """context: what a parser that begins anew has to see so that it is among these rows."""
    row = 0
    texts: bool | None = None  # where the first is a text, each of the texts is a row
    stream.in_rows = True
    for event, value in events:
        if event == "end_array":
            break
        found = stream.whole(_value(events, event, value))
        line = stream.line()
        texts = type(found) is str if texts is None else texts
        for one in several({"text": found} if texts and type(found) is str else found):
            row += 1
            yield Raw(row, one, line)
        stream.among(context + b"null", row + 1, type(found) is dict)
    stream.in_rows = False


def _value(events: Iterator[Event], event: str, value: Any) -> Any:
    """The value that begins with an event; "decoded" is one that the stream put together itself."""
    if event not in _OPENING:
        return _plain(value)
    found: Any = {} if event == "start_map" else []
    inside, key = found, ""
    above: list[tuple[Any, str]] = []
    for event, value in events:
        if event == "map_key":
            key = value
            continue
        if event in _CLOSING:
            if not above:
                break
            inside, key = above.pop()
            continue
        if event == "decoded":
            return value
        opens = event in _OPENING
        new: Any = ({} if event == "start_map" else []) if opens else _plain(value)
        if type(inside) is dict:
            inside[key] = new
        else:
            inside.append(new)
        if opens:
            above.append((inside, key))
            inside = new
    return found


def _plain(value: Any) -> Any:
    return float(value) if type(value) is Decimal else value


def _object(stream: _Stream, events: Iterator[Event]) -> Iterator[Raw | Problem | Loss]:
    """Rows under its first key that holds a list of objects ("data", "train", ...), or a row itself."""
    whole: dict[str, Any] = {}
    used: str | None = None
    lists: list[str] = []
    for event, key in events:
        if event == "end_map":
            break
        name = key.lower()
        event, value = next(events)
        is_list = event == "start_array"
        if is_list and used is None and name not in _PARTS_OF_A_ROW | _ABOUT_ROWS:
            stream.among(b'{"":[', 1)
            ahead = next(events)
            if name in _WRAPPERS or ahead[0] == "start_map":
                yield from (Loss("beside", beside) for beside, said in whole.items() if says(said))
                used, whole = key, {}
                yield from _list(stream, chain([ahead], events), b'{"":[')
            else:
                whole[key] = _value(chain([ahead], events), event, value) if ahead[0] != "end_array" else []
        elif used is None:
            whole[key] = _value(events, event, value)
        elif is_list:
            lists.append(key)
            _pass_over(stream, events)
        else:
            said = _pass_over(stream, events) if event == "start_map" else says(value)
            if said:
                yield Loss("beside", key)
        stream.among(b'{"":0', 1)
    if used is None:
        _end(events)
        whole = stream.again(whole)
        for number, one in enumerate(_of_columns(whole) or several(whole), 1):
            yield Raw(number, one, 1)
    elif lists:
        yield Problem(row=0, severity="warning", text=msg("data.other_lists", used=used, left_out=lists[:10]))


def _pass_over(stream: _Stream, events: Iterator[Event]) -> bool:
    """To the end of the value that began, holding nothing of it. Whether it said anything."""
    depth, said = 1, False
    for event, value in events:
        depth += (event in _OPENING) - (event in _CLOSING)
        said = said or (event in ("string", "number", "boolean") and says(value))
        if depth == 0:
            break
        stream.forget()
    return said


class _Stream:
    """ijson's events out of a file, and the bytes since the last row that was whole.

    A piece of the file that is handed to ijson ends with an object (before the rows: with whatever may end there), so
    the bytes of a row that is one are known. A row that is none, which is refused anyway, may end anywhere: its bytes
    stay with those of the next.
    """

    def __init__(self, source: Source, limits: Limits):
        self._source, self._limits = source, limits
        self.in_rows = self._passing = self._halves = self._ended = False
        self._row, self._context = 1, b""
        self._since, self._since_line, self._kept = bytearray(), 1, 0
        self._run = 0  # bytes that may be a part of one number
        self._begun = 0  # the line of a row that json decoded

    def among(self, context: bytes, row: int, is_exact: bool = True) -> None:
        """A value is whole; the next is part of row. is_exact: it ends where the piece does."""
        self._row, self._begun = row, 0
        if not is_exact and self._since:
            self._kept += 1
            return
        self._halves = self._halves or bool(_HALF.search(self._since))
        self._context, self._passing, self._kept = context, False, 0
        self._clear()

    def forget(self) -> None:
        """Of a value that nobody holds."""
        self._clear()
        self._passing = True

    def _clear(self) -> None:
        self._since_line += self._since.count(b"\n")
        self._since.clear()

    def line(self) -> int:
        """The one on which the row begins that has just become whole."""
        if self._begun:
            return self._begun
        if self._kept:
            text = self._since.decode("utf-8", "replace")
            with contextlib.suppress(ValueError, RecursionError):
                return self._since_line + text.count("\n", 0, self._last(text)[0])
        lead = _SEPARATOR.match(self._since)
        return self._since_line + self._since.count(b"\n", 0, lead.end() if lead else 0)

    def _last(self, text: str) -> tuple[int, Any, int]:
        """Where the row behind those that were kept begins in what was seen since, the row, and where it ends. Raises
        ValueError."""
        begins, value, at = 0, None, 0
        for number in range(self._kept + 1):
            between = _SEPARATED.match(text, at)
            if between is None or between[0].count(",") != (number > 0 or self._context.endswith(b"null")):
                raise ValueError
            begins = between.end()
            value, at = _DECODER.raw_decode(text, begins)
        return begins, value, at

    def whole(self, value: Any) -> Any:
        """A row as json reads it, where ijson may have made something else of a character."""
        if type(value) is dict and _HALF.search(self._since):
            try:
                return json.loads(b"[" + self._since.strip(_BETWEEN) + b"]")[-1]
            except (ValueError, RecursionError):  # deeper than json goes: refused for that anyway
                return value
        return value

    def again(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same for a file that is one object."""
        if not self._halves:
            return value
        try:
            with self._source.path.open(encoding=self._source.encoding) as file:
                return json.load(file)
        except RecursionError:
            return value

    def events(self) -> Generator[Event]:
        found, parser = _parser(b"")
        rest = self._bytes()
        while chunk := next(rest, b""):
            at = 0
            while at < len(chunk):
                begins, at = at, self._end_of_piece(chunk, at)
                piece = chunk[begins:at]
                self._since += piece
                self._check_size()
                try:
                    self._refuse_long_number(piece, at == len(chunk))
                    parser.send(piece)
                except _GIVES_UP as error:
                    value, chunk = self._decoded(error, chunk[at:], rest)
                    at = 0
                    found, parser = _parser(self._context)
                    yield "decoded", value
                    continue
                yield from found
                found.clear()
        self._ended = True
        try:
            parser.close()
        except ijson.JSONError as error:
            raise self._broken(error, b"") from None
        yield from found

    def _refuse_long_number(self, piece: bytes, goes_on: bool) -> None:
        """Before ijson has it: 3.6 in C ends the process at an integer of more digits than Python's int() takes. Raises
        ValueError."""
        self._run += len(piece)
        if self._run >= _MOST_DIGITS and _LONG_NUMBER.search(self._since, max(0, len(self._since) - self._run)):
            self._run = 0
            raise ValueError("a number of more than 4,000 digits")
        self._run = min(self._run, _MOST_DIGITS) if goes_on else 0

    def _end_of_piece(self, chunk: bytes, at: int) -> int:
        if self.in_rows:
            return chunk.find(b"}", at) + 1 or len(chunk)
        found = _ENDS.search(chunk, at)
        return found.end() if found else len(chunk)

    def _bytes(self) -> Iterator[bytes]:
        """The file as UTF-8."""
        if self._source.encoding == "utf-8":
            with self._source.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        else:
            with self._source.path.open(encoding=self._source.encoding) as text:
                while characters := text.read(_CHUNK):
                    yield characters.encode("utf-8", "surrogatepass")

    def _check_size(self) -> None:
        if len(self._since) > self._limits.row_bytes < len(self._since.strip(_BETWEEN)):
            limit_mib = round(self._limits.row_bytes / MIB, 2)
            raise DataError(
                "data.json_row_too_large",
                file=self._source.path.name,
                row=self._row,
                line=self.line(),
                limit_mib=limit_mib,
            )

    def _decoded(self, error: Exception, more: bytes, rest: Iterator[bytes]) -> tuple[Any, bytes]:
        """The row at which ijson gave up, as json reads it, and the bytes behind it. Raises DataError where it is
        broken for json too."""
        if not self.in_rows:
            raise self._broken(error, more)
        while len(self._since) + len(more) < self._limits.row_bytes and (chunk := next(rest, b"")):
            more += chunk
        text = (self._since + more).decode("utf-8", "replace")
        try:
            begins, value, at = self._last(text)
        except (ValueError, RecursionError):
            raise self._broken(error, more) from None
        after = (bytes(self._since) + more)[len(text[:at].encode()) :]
        self._begun = self._since_line + text.count("\n", 0, begins)
        self._since_line += text.count("\n", 0, at)
        self._since.clear()
        self._kept, self._context = 0, self._context.removesuffix(b"null") + b"null"
        return value, after

    def _broken(self, error: Exception, more: bytes) -> DataError:
        """What is wrong as json says it, which knows the place; where it finds nothing wrong, in ijson's words."""
        about: dict[str, Any] = {"file": self._source.path.name, "row": self._row}
        text = (self._context + bytes(self._since) + more[:_CHUNK]).decode("utf-8", "replace")
        line = self._since_line
        try:
            if self._passing:  # what it is in is not known
                raise json.JSONDecodeError(str(error).split("\n")[0][:200], text, len(self._context))
            json.loads(text)
            number = _NO_NUMBER.search(self._since)
            reason: Message | str = (
                msg("data.json_number", found=number[0].decode()) if number else str(error).split("\n")[0][:200]
            )
        except RecursionError:
            return DataError("data.json_too_deep", **about, line=line, limit=self._limits.depth)
        except json.JSONDecodeError as found:
            line += text.count("\n", len(self._context), found.pos)
            if found.msg == "Extra data":
                return DataError("data.json_more_after_end", file=about["file"], found=text[found.pos], line=line)
            if self._ended and found.msg.startswith("Expecting ','") and not self._since.strip(_BETWEEN):
                reason = msg("data.json_expected", expected=",", found=msg("data.json_end"))
            else:
                nul = text[found.pos : found.pos + 1] == "\0"
                reason = msg("data.nul") if nul else _JSON_REASONS.get(found.msg, found.msg)
        except ValueError:
            reason = msg("data.broken_number")
        return DataError("data.broken_json_file", **about, line=line, reason=reason)


def _parser(context: bytes) -> tuple[list[Event], Any]:
    """Where events come, and what is given bytes; context was seen already."""
    found = ijson.sendable_list()
    parser = ijson.basic_parse_coro(found)
    if context:
        parser.send(context)
        found.clear()
    return found, parser


def _of_columns(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows of an object that holds columns, each a list of as many values, or as pandas writes it {"0": ..., "1":
    ...}; rows by a key of theirs; or answers by their questions."""
    columns = list(value.values())
    if not columns or any(name.lower() in _TURNS for name in value):
        return None
    if len(value) > 1 and all(isinstance(said, str) and _QUESTION.search(name) for name, said in value.items()):
        return [{"question": name, "answer": said} for name, said in value.items()]
    if len(value) > 1 and all(
        isinstance(row, dict) and row.keys() == columns[0].keys() and "0" not in row for row in columns
    ):
        return [{"key": name, **row} for name, row in value.items()]
    if all(isinstance(column, dict) and "0" in column for column in columns):
        if any(column.keys() != columns[0].keys() for column in columns):
            return None
        return [{name: column[key] for name, column in value.items()} for key in columns[0]]
    if not all(isinstance(column, list) and column and len(column) == len(columns[0]) for column in columns):
        return None
    return [dict(zip(value, cells, strict=True)) for cells in zip(*columns, strict=True)]
