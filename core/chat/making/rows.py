"""The order for rows from documents, the rows that were made, and those that were dropped."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.chat.making.drafts import Draft, Kind
from core.values import Frozen

SHOWN = 3  # rows to follow, or to avoid, in a request
Reason = Literal["not_json", "form", "quote", "number", "differs", "stated", "repeat"]


class MakingOrder(Frozen):
    """An order for rows. documents: ids of datasets with their versions; language: "" for that of each passage;
    count: rows of a passage; wordings: of each question; absent: share of the passages from which a question is written
    that they do not answer; examples: rows (question, answer) whose style is followed."""

    v: Literal[1] = 1
    title: str
    documents: tuple[tuple[str, int], ...] = Field(min_length=1)
    writer: str
    kind: Kind = "questions"
    language: str = ""
    count: int = Field(3, ge=1, le=8)
    wordings: int = Field(1, ge=1, le=4)
    absent: float = Field(0.0, ge=0, le=0.5)
    examples: tuple[tuple[str, str], ...] = Field((), max_length=SHOWN)
    seed: int = 0

    def is_same(self, other: MakingOrder) -> bool:
        """Compare two orders without their titles."""
        return self.model_copy(update={"title": ""}) == other.model_copy(update={"title": ""})


class MadeRow(Frozen):
    """A row that passed its checks. spans: where its quotes stand in the passage. known: the model answers it without
    the passage too."""

    id: str
    passage: int
    kind: Kind
    draft: Draft
    spans: tuple[tuple[int, int], ...] = ()
    known: bool = False


class Dropped(Frozen):
    """A row that failed a check. other: the quote, or the answer that differs."""

    passage: int
    why: Reason
    question: str = ""
    answer: str = ""
    other: str = ""


class Result(Frozen):
    """The rows of a finished passage: a line of written.jsonl."""

    passage: int
    rows: tuple[MadeRow, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    seconds: float = 0.0


def dropped(draft: Draft, passage: int, why: Reason, other: str = "", place: int = 0) -> Dropped:
    """Return the record of a draft that is not kept, with the question and answer of its step number `place`, which is
    the wrong one. other: the text that speaks against it, such as a quote, a number or another answer, of which 500
    characters are kept."""
    step = draft.steps[place]
    return Dropped(passage=passage, why=why, question=step.question, answer=step.answer, other=other[:500])
