"""The question of a training row, to which answers are drawn, and its own answer, which judges may expect. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from core.data.labels import Encoded
from core.data.tokenizer import Tokenizer
from core.errors import RunError


@dataclass(frozen=True)
class AskedRow:
    """prompt: token ids up to where the last answer of the row begins; expected: the text of that answer."""

    prompt: list[int]
    expected: str


def question_of(row: Encoded, tokenizer: Tokenizer) -> AskedRow:
    """Return the tokens of a row before its last answer, that is, the whole conversation up to it, and this answer as
    text. Raises RunError for a row that begins with its answer, such as plain text."""
    end = len(row.learned) - row.learned[::-1].index(True)
    begin = end
    while begin and row.learned[begin - 1]:
        begin -= 1
    if not begin:
        raise RunError("rewards.no_question")
    return AskedRow(row.input_ids[:begin], tokenizer.decode(row.input_ids[begin:end]).strip())
