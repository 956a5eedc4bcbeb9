"""Rows of text that hold a conversation with turn markers, converted to messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.data.reading.file_rows import Problem, Row
from core.data.shapes.known import COLUMNS
from core.data.shapes.turn_markers import after_greeting, turns_in
from core.messages import Message, msg

_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class MarkedColumn:
    """The text column of rows with turn markers. count: rows that have them, of the `checked` first."""

    column: str
    count: int
    checked: int

    def note(self) -> Message:
        return msg("data.note_turn_markers", column=self.column, count=self.count, checked=self.checked)

    def apply(self, row: Row) -> Row | Problem:
        """Return a row with messages in place of its text, and what was left out of them; a Problem for a text without
        markers, an empty row as it is."""
        text = row.values.get(self.column)
        turns = turns_in(text) if isinstance(text, str) else None
        if turns is None and isinstance(text, str) and text.strip():
            return Problem(row=row.number, line=row.line, file=row.file, text=msg("data.no_turn_markers"))
        if turns is None:
            return row
        turns, omissions = after_greeting(turns)
        rest = {name: value for name, value in row.values.items() if name != self.column}
        return replace(row, values={"messages": turns, **rest}, omissions=(*row.omissions, *omissions))


def marked(rows: Sequence[Row]) -> MarkedColumn | None:
    """Return the column of text if nearly all of its rows hold a conversation with turn markers; else None."""
    names = (name for row in rows for name in row.values if str(name).strip().lower() in COLUMNS["text"]["text"])
    column = next(names, None)
    texts = [text for row in rows if isinstance(text := row.values.get(column or ""), str) and text.strip()]
    count = sum(turns_in(text) is not None for text in texts)
    if column is None or not count or count < _NEARLY_ALL * len(texts):
        return None
    return MarkedColumn(column, count, len(texts))
