"""Decodes a JSON text of any length one value at a time: only the current value is in memory."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

_CHUNK = 64 << 10  # characters
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_LITERAL = 16  # characters; a number, a name such as -Infinity or an escape may continue after so many


class LargeValue(ValueError):
    """A value is larger than the limit."""


class JsonText:
    """A position in a text: `items` enters a list or an object, `value` decodes the value at the position and moves
    after it.

    file: opened as text. limit: most bytes of a value in UTF-8; None: any number. line: of the position, from 1.
    `items` and `value` raise json.JSONDecodeError with the reason, ValueError for a number with too many digits,
    RecursionError for a value nested too deeply, LargeValue above the limit.
    """

    def __init__(self, file: io.TextIOBase, limit: int | None = None):
        self._file, self._limit = file, limit
        self._text, self._at, self._ended = "", 0, False
        self.line = 1

    def peek(self) -> str:
        """Return the next character that is no blank, "" at the end of the text; the position moves to it."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._go(blanks.end() if blanks else self._at)
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def opens_with(self, pattern: re.Pattern[str]) -> bool:
        """Return True if the text at the position matches. pattern: blanks and single characters only."""
        while not (match := pattern.match(self._text, self._at)) and len(self._text) - self._at < _CHUNK:
            if not self._more():
                break
        return bool(match)

    def items(self) -> Iterator[str]:
        """Enter the list or object at the position and yield once for each value in it: its key, "" in a list. The
        caller must read the value (with `value` or `items`) before the next one.

        The position is after the closing bracket at the end. Raises JSONDecodeError.
        """
        closing = "}" if self.peek() == "{" else "]"
        self._take("{" if closing == "}" else "[", "Expecting value")
        if self.peek() != closing:
            while True:
                key = self._key() if closing == "}" else ""
                self.peek()
                yield key
                if self.peek() == closing:
                    break
                self._take(",", "Expecting ',' delimiter")
        self._go(self._at + 1)

    def value(self) -> Any:
        """Decode and return the one JSON value that begins at the position, reading more of the file as needed, and
        move after it. Raises LargeValue above the limit, JSONDecodeError for broken JSON."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                # A number or literal at the end of what was read may go on: 12 may be 123.
                if self._ended or end <= len(self._text) - _LITERAL:
                    break
            except json.JSONDecodeError as error:
                continues = error.pos > len(self._text) - _LITERAL or error.msg.startswith("Unterminated string")
                if self._ended or not continues:
                    raise
            if self._limit and len(self._text) - self._at > self._limit + _CHUNK:
                raise LargeValue
            self._more()
        size = end - self._at
        # No character has more than four bytes: only then is encoding worth its time.
        if self._limit and 4 * size > self._limit:
            if max(size, len(self._text[self._at : end].encode("utf-8", "surrogatepass"))) > self._limit:
                raise LargeValue
        self._go(end)
        return value

    def wrong(self, reason: str) -> json.JSONDecodeError:
        """Return the error for an unexpected character here. reason: in the words of the json module."""
        return json.JSONDecodeError(reason, self._text, self._at)

    def line_of(self, error: json.JSONDecodeError) -> int:
        """Return the line of an error that was just raised."""
        return self.line + self._text.count("\n", self._at, error.pos)

    def _key(self) -> str:
        """Return the key here and move after its colon. Raises JSONDecodeError without one."""
        if self.peek() != '"':
            raise self.wrong("Expecting property name enclosed in double quotes")
        key: str = self.value()
        self._take(":", "Expecting ':' delimiter")
        return key

    def _take(self, character: str, otherwise: str) -> None:
        """Move after this character. Raises JSONDecodeError with the reason `otherwise` if another stands here."""
        if self.peek() != character:
            raise self.wrong(otherwise)
        self._go(self._at + 1)

    def _go(self, to: int) -> None:
        """Move the position, and count the line ends on the way."""
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Drop the text before the position and read on, as many characters as are still held, at least _CHUNK; return
        False at the end of the file."""
        more = self._file.read(max(_CHUNK, len(self._text) - self._at))
        self._text, self._at, self._ended = self._text[self._at :] + more, 0, not more
        return bool(more)
