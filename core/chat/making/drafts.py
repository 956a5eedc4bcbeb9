"""The rows that a model wrote from a passage, as it wrote them: JSON of a fixed form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from core.files import JsonObject
from core.judges.structured import parse
from core.judges.texts import without_thoughts
from core.values import Frozen

Kind = Literal["questions", "instructions", "conversation", "summary", "absent"]
Short = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Long = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=8000)]


class Exchange(Frozen):
    """A question, its answer and the words of the passage that prove it; "" for a question that it does not answer."""

    question: Short
    answer: Long
    quote: str = Field("", max_length=2000)


class Draft(Frozen):
    """A row before its checks: a conversation of one or more steps. wordings: other wordings of its one question."""

    steps: tuple[Exchange, ...] = Field(min_length=1, max_length=6)
    wordings: tuple[Short, ...] = ()


class _Written(BaseModel):
    """A row of the reply, but for conversations."""

    questions: list[Short] = Field(min_length=1, max_length=8)
    answer: Long
    quote: Short


class _Absent(BaseModel):
    """A question of the reply that the passage does not answer."""

    question: Short


class _Conversation(BaseModel):
    """A conversation of the reply."""

    steps: list[Exchange] = Field(min_length=1, max_length=6)


_FORMS: dict[str, type[BaseModel]] = {"conversation": _Conversation, "absent": _Absent}


def schema(kind: Kind) -> JsonObject:
    """Return the JSON schema of a reply, {"rows": [...]}."""
    row = _FORMS.get(kind, _Written).model_json_schema(ref_template="#/$defs/{model}")
    definitions = row.pop("$defs", {})
    rows = {"type": "object", "properties": {"rows": {"type": "array", "items": row}}, "required": ["rows"]}
    return rows | ({"$defs": definitions} if definitions else {})


def drafts_of(text: str, kind: Kind, absent_answer: str = "") -> tuple[list[Draft], int]:
    """Return the rows of a reply in JSON, and how many of its rows have another form. absent_answer: of questions that
    the passage does not answer. Raises ValueError for a reply that is not JSON, or holds no list of rows."""
    value, _ = parse(without_thoughts(text))
    rows = value.get("rows", [value]) if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise ValueError("no rows")
    drafts, bad = list[Draft](), 0
    for row in rows:
        try:
            drafts.append(_draft(_FORMS.get(kind, _Written).model_validate(row), absent_answer))
        except ValidationError:
            bad += 1
    return drafts, bad


def _draft(row: BaseModel, absent_answer: str) -> Draft:
    """Return a row as a draft: the steps of a conversation, a question without an answer in the passage, or a question
    with its other wordings."""
    match row:
        case _Conversation():
            return Draft(steps=tuple(row.steps))
        case _Absent():
            return Draft(steps=(Exchange(question=row.question, answer=absent_answer),))
        case _:
            assert isinstance(row, _Written)
            first, *others = dict.fromkeys(row.questions)
            return Draft(steps=(Exchange(question=first, answer=row.answer, quote=row.quote),), wordings=tuple(others))
