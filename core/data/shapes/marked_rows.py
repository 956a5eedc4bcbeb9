"""Rows written for another chat template: texts that hold a conversation with turn markers, converted to messages; and
prompts and completions that end in marks, as OpenAI's first format has them ("\\n\\n###\\n\\n", " END"), converted to
questions and answers without these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.data.reading.file_rows import Problem, Row
from core.data.shapes.known import COLUMNS
from core.data.shapes.roles import renamed
from core.data.shapes.turn_markers import after_greeting, turns_in
from core.messages import Message, msg

_NEARLY_ALL = 0.9
_MIN_ROWS = 8  # of prompts with marks
_LONGEST_MARK = 40  # characters
# Signs that stand apart (->, ###, ===>), or a label in a line of its own (Answer:).
_ENDS_PROMPT = re.compile(r"\s([#=>*|$@%&+<-]{2,}|→)\Z|\n[ \t]*([^\W\d_][\w' ]*[:：])\Z")
# Not END in a line of its own, which ends a block of code.
_ENDS_COMPLETION = re.compile(
    r"(#{2,}|([*+&$@%=|-])\2{2,}|<\|?/?(?:END|STOP|DONE|EO[STF]|endoftext|end|stop|s)\|?>"
    r"|\[/?(?:END|STOP|DONE|EO[STF])\]|(?:(?<=\S )|(?<=\n\n))(?:END|STOP|DONE|EO[STF]))\Z"
)


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


@dataclass(frozen=True)
class MarkedPair:
    """The columns of prompts and completions with the mark that ends each. spaced: completions begin with a blank,
    which belongs to the marks."""

    prompt: str
    completion: str
    separator: str
    stop: str
    spaced: bool

    def note(self) -> Message:
        return msg("data.note_marked_pairs", separator=self.separator, stop=self.stop)

    def apply(self, row: Row) -> Row:
        """Return the row as a question and an answer without the marks; other columns as they are."""
        row = renamed(row, {self.prompt: "question", self.completion: "answer"})
        question, answer = row.values.get("question"), row.values.get("answer")
        if isinstance(question, str):
            question = _without(question, self.separator)
        if isinstance(answer, str):
            answer = _without(answer.removeprefix(" ") if self.spaced else answer, self.stop)
        return replace(row, values={**row.values, "question": question, "answer": answer})


def marked(rows: Sequence[Row]) -> MarkedColumn | None:
    """Return the column of text if nearly all of its rows hold a conversation with turn markers; else None."""
    names = (name for row in rows for name in row.values if str(name).strip().lower() in COLUMNS["text"]["text"])
    column = next(names, None)
    texts = [text for row in rows if isinstance(text := row.values.get(column or ""), str) and text.strip()]
    count = sum(turns_in(text) is not None for text in texts)
    if column is None or not count or count < _NEARLY_ALL * len(texts):
        return None
    return MarkedColumn(column, count, len(texts))


def marked_pair(rows: Sequence[Row]) -> MarkedPair | None:
    """Return the columns of prompts and completions with their marks, if nearly all prompts end in one mark and nearly
    all completions, after some text, in another; else None."""
    names = {str(name).strip().lower(): name for row in rows for name in row.values}
    columns = [
        next((names[alias] for alias in aliases if alias in names), "")
        for aliases in COLUMNS["prompt_completion"].values()
    ]
    sides = [[text for row in rows if isinstance(text := row.values.get(name), str)] for name in columns]
    separator, stop = map(_mark, sides, (_ENDS_PROMPT, _ENDS_COMPLETION))
    if not separator or not stop:
        return None
    spaced = sum(text.startswith(" ") for text in sides[1]) >= _NEARLY_ALL * len(sides[1])
    has_text = sum(bool(_without(text, stop).strip()) for text in sides[1]) >= _NEARLY_ALL * len(sides[1])
    return MarkedPair(columns[0], columns[1], separator, stop, spaced) if has_text else None


def _mark(texts: Sequence[str], pattern: re.Pattern[str]) -> str:
    """Return the mark that ends nearly all of at least _MIN_ROWS texts; "" if there is none. pattern: of marks."""
    found = (pattern.search(text.rstrip()[-_LONGEST_MARK:]) for text in texts)
    mark, count = next(iter(Counter(match[1] or match[2] for match in found if match).most_common(1)), ("", 0))
    return mark if count >= max(_MIN_ROWS, _NEARLY_ALL * len(texts)) else ""


def _without(text: str, mark: str) -> str:
    """Return a text without the mark at its end and the blanks before that; as it is if it does not end in the mark, or
    that is the end of a word."""
    head = text.rstrip().removesuffix(mark)
    is_word = mark[0].isalpha() and head[-1:].isalpha()
    return text if is_word or head == text.rstrip() else head.rstrip()
