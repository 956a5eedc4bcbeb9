"""A fast path for rows that have only texts in the columns of a format, in a fifth of the time of the full check.

A row with anything to report takes the full check (core/data/formats).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from core.data.reading.file_rows import Flaw
from core.data.shapes.known import COLUMNS, OPTIONAL
from core.data.shapes.turn_markers import LABEL_ENDS, is_label_alone
from core.recipe import Format

Speaker = Literal["system", "user", "assistant"]
Turns = list[tuple[Speaker, str]]

_PLAIN: dict[Format, tuple[str, ...]] = {  # the columns of a question, in order, and the answer; or the turns
    "question_answer": ("context", "question", "answer"),
    "alpaca": ("instruction", "input", "output"),
    "text_label": ("text", "label"),
    "messages": ("messages",),
    "sharegpt": ("conversations",),
}
_SPEAKERS: dict[str, Speaker] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_FOLLOWS: dict[str, tuple[Speaker, ...]] = {
    "": ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",),
}  # fmt: skip
# what json.dumps(..., ensure_ascii=False) calls for a text, after some checks
_ENCODE = json.encoder.encode_basestring


def plain(values: Mapping[str, Any], format: Format) -> Turns | None:
    """Return the turns of a row as (role, text), if its columns are exactly those of the format and hold plain texts;
    None if the row needs the full check."""
    names = _names(tuple(values), format)
    if names is None:
        return None
    question_columns, needed, answer = names
    reply = values[answer]
    if not question_columns:
        return _turns(reply) if type(reply) is list else None
    if not isinstance(reply, str) or "<" in reply or not reply.strip():  # thinking begins with a tag
        return None
    parts = [values[name] for name in question_columns]
    if {*map(type, parts)} != {str} or not values[needed].strip():
        return None
    question = parts[0]
    if len(parts) > 1:
        is_pair = format == "question_answer"
        question = with_context(parts[1], parts[0]) if is_pair else "\n\n".join(filter(str.strip, parts))
    is_label = question[-1] in LABEL_ENDS and is_label_alone(question)  # most questions need no call
    return None if is_label else [("user", question), ("assistant", reply)]


def require_question(turns: Sequence[tuple[str, str]]) -> None:
    """Raise Flaw if there are questions and each has nothing but a label such as "User:".

    An example is accepted all the same if its last answer ends with a colon, as the translation of a label does. turns:
    role and text of each.
    """
    questions = [text for role, text in turns if role == "user"]
    if questions and all(map(is_label_alone, questions)) and not turns[-1][1].rstrip(" *\n").endswith((":", "：")):
        raise Flaw("data.empty_question")


def with_context(question: str, context: str = "") -> str:
    """Return the context, an empty line and the question as one text; the question alone if it contains the context, or
    the context is blank."""
    return question if context.strip() in question else f"{context}\n\n{question}"


def _turns(values: list[object]) -> Turns | None:
    """Return (role, text) of turns in the simplest notation that alternate and end with an answer; None for any
    other."""
    turns: Turns = []
    before = ""
    for turn in values:
        if type(turn) is not dict or len(turn) != 2:
            return None
        speaker, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        role = _SPEAKERS.get(speaker) if type(speaker) is str else None
        if (
            # "<" may begin a tag of thinking, which the full check splits off.
            role not in _FOLLOWS[before]
            or type(content) is not str
            or not content.strip()
            or (role == "assistant" and "<" in content)
            or (role == "user" and content[-1] in LABEL_ENDS and is_label_alone(content))
        ):
            return None
        turns.append((role, content))
        before = role
    return turns if before == "assistant" else None


def as_json(turns: Turns) -> str:
    """Return the turns as `core.data.formats.Example.as_json` writes them."""
    messages = ", ".join([f'{{"role": "{speaker}", "content": {_ENCODE(content)}}}' for speaker, content in turns])
    return f'{{"messages": [{messages}]}}'


@lru_cache(maxsize=256)
def _names(columns: tuple[Any, ...], format: Format) -> tuple[tuple[str, ...], str, str] | None:
    """Return (columns of the question, the one of them that must not be empty, column of the answer), by the names in
    the file.

    For a format of turns: ((), the column of turns, the same column). None if the format has no fast path, a required
    column is missing, or the row has any other column or one name twice.
    """
    if format not in _PLAIN or not all(isinstance(name, str) for name in columns):
        return None
    names = {name.strip().lower(): name for name in columns}
    by_role = {
        ours: next((names[alias] for alias in COLUMNS[format][ours] if alias in names), None) for ours in _PLAIN[format]
    }
    present = {ours: name for ours, name in by_role.items() if name is not None}
    if (
        not len(present) == len(set(present.values())) == len(columns) == len(names)
        or not by_role.keys() - OPTIONAL <= present.keys()
    ):
        return None
    *question, answer = present
    return (
        tuple(present[ours] for ours in question),
        present[next((ours for ours in question if ours not in OPTIONAL), answer)],
        present[answer],
    )
