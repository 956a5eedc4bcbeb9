"""Rows written for another chat template: texts that hold a conversation with turn markers, converted to messages; and
prompts and completions that end in marks, as OpenAI's first format has them ("\\n\\n###\\n\\n", " END"), converted to
questions and answers without these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from core.data.reading.file_rows import Problem, Row
from core.data.shapes.known import COLUMNS
from core.data.shapes.left_out import NEARLY_ALL
from core.data.shapes.roles import Role, renamed
from core.data.shapes.turn_markers import after_greeting, turns_in
from core.messages import Message, msg

_MIN_ROWS = 8
LONGEST_MARK = 40  # characters
# Signs that stand apart (->, ###, ===>), or a label in a line of its own (Answer:).
ENDS_PROMPT = re.compile(r"\s([#=>*|$@%&+<-]{2,}|→)\Z|\n[ \t]*([^\W\d_][\w' ]*[:：])\Z")
# After some text. Not END in a line of its own, which ends a block of code.
_ENDS_COMPLETION = re.compile(
    r"\S\s*(#{2,}|([*+&$@%=|-])\2{2,}|<\|?/?(?:END|STOP|DONE|EO[STF]|endoftext|end|stop|s)\|?>"
    r"|\[/?(?:END|STOP|DONE|EO[STF])\]|(?:(?<=\S )|(?<=\n\n))(?:END|STOP|DONE|EO[STF]))\Z"
)
Reading = tuple[Message, Callable[[Row], Row | Problem]]  # what is said of it, and the conversion of a row


def marked(rows: Sequence[Row]) -> Reading | None:
    """Return (a note, the function that converts a row to messages) if nearly all texts of the text column hold a
    conversation with turn markers; else None.

    The function returns a Problem for a text without markers, and a row without text as it is. The column becomes
    `messages`.
    """
    names = (name for row in rows for name in row.values if str(name).strip().lower() in COLUMNS["text"]["text"])
    column = next(names, None)
    texts = [text for row in rows if isinstance(text := row.values.get(column or ""), str) and text.strip()]
    count = sum(turns_in(text) is not None for text in texts)
    if column is None or not count or count < NEARLY_ALL * len(texts):
        return None

    def apply(row: Row) -> Row | Problem:
        """Return a row with its text as messages; a Problem for a text without turn markers, and a row without text as
        it is."""
        text = row.values.get(column)
        turns = turns_in(text) if isinstance(text, str) else None
        if turns is None and isinstance(text, str) and text.strip():
            return Problem(row=row.number, line=row.line, file=row.file, text=msg("data.no_turn_markers"))
        if turns is None:
            return row
        turns, omissions = after_greeting(turns)
        rest = {name: value for name, value in row.values.items() if name != column}
        return replace(row, values={"messages": turns, **rest}, omissions=(*row.omissions, *omissions))

    return msg("data.note_turn_markers", column=column, count=count, checked=len(texts)), apply


def marked_pair(rows: Sequence[Row]) -> Reading | None:
    """Return (a note, the function that converts a row to question and answer) if nearly all prompts end in one mark
    and nearly all completions in another; else None.

    The function removes these marks, and the blank before completions if nearly all have one.
    """
    prompt, completion = COLUMNS["prompt_completion"].values()
    roles: dict[str, Role] = {
        name: "question" if key in prompt else "answer"
        for row in rows
        for name in row.values
        if (key := str(name).strip().lower()) in prompt + completion
    }
    texts = {role: [str(row.values.get(name) or "") for row in rows] for name, role in roles.items()}
    separator, stop = _mark(texts.get("question", []), ENDS_PROMPT), _mark(texts.get("answer", []), _ENDS_COMPLETION)
    if len(roles) > 2 or not separator or not stop:
        return None
    spaced = sum(text.startswith(" ") for text in texts["answer"]) >= NEARLY_ALL * len(rows)
    marks = {  # letters at the end of a word are none
        role: re.compile(rf"{lead}(?:(?<!\w)|(?!\w)){re.escape(mark)}\s*\Z")
        for role, lead, mark in (("question", "", separator), ("answer", r"\A |" if spaced else "", stop))
    }

    def apply(row: Row) -> Row:
        """Return a row with prompt and completion as question and answer, without the marks at their ends."""
        values = renamed(row, roles).values
        bare = {role: marks[role].sub("", text).rstrip() for role in marks if isinstance(text := values.get(role), str)}
        return replace(row, values={**values, **bare})

    return msg("data.note_marked_pairs", separator=separator, stop=stop), apply


def _mark(texts: Sequence[str], pattern: re.Pattern[str]) -> str:
    """Return the mark that ends nearly all of at least _MIN_ROWS texts; "" if there is none. pattern: of marks."""
    matches = (pattern.search(text.rstrip()[-LONGEST_MARK:]) for text in texts)
    mark, count = next(iter(Counter(match[1] or match[2] for match in matches if match).most_common(1)), ("", 0))
    return mark if count >= max(_MIN_ROWS, NEARLY_ALL * len(texts)) else ""
