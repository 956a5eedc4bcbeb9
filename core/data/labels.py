"""Which tokens of a row are trained, and what happens to a row that is too long; no torch, no tokenizer.

`Encoded` is what training sees of one row: ids, which of them are learned, and how many were cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from core.data.text_pieces import borders, cuts, shown_again
from core.recipe import Recipe

if TYPE_CHECKING:
    from core.data.template import Rendered

LongExamples = Literal["cut", "split", "drop"]


@dataclass(frozen=True)
class Learning:
    """What of a row is learned, as the fields of recipe.Data of these names say. pairs: its better and its worse answer, an example each,
    of which nothing but what comes after their common turns is learned. rated: the last answer alone, which may be marked as a bad one."""

    train_on: str = "assistant"
    enable_thinking: bool | None = None
    mask_history: bool = False
    pairs: bool = False
    rated: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> Learning:
        data = recipe.data
        if recipe.train.objective == "kto":
            return cls(enable_thinking=data.enable_thinking, mask_history=True, rated=True)
        if recipe.train.compares:
            return cls(enable_thinking=data.enable_thinking, pairs=True)
        return cls(data.train_on, data.enable_thinking, data.mask_history)


ANSWERS = Learning()


@dataclass(frozen=True)
class Encoded:
    """input_ids: (T,) token ids; learned: (T,) True where the next-token loss counts this token; cut: tokens lost.

    second: of a pair, where the example with the worse answer begins, of a rated row that with another row's; 0: this is one example. is_bad: its
    answer is marked as a bad one. reference: log-probabilities of the pair's
    two answers before anything was trained, where they are known.
    """

    input_ids: list[int]
    learned: list[bool]
    cut: int = 0
    second: int = 0
    reference: tuple[float, float] = (0.0, 0.0)
    is_bad: bool = False

    @property
    def learned_count(self) -> int:
        """The first token of an example has nothing before it to be predicted from."""
        return sum(self.learned[1:]) - (self.second > 0 and self.learned[self.second])

    @property
    def examples(self) -> tuple[Encoded, ...]:
        at = self.second
        return (Encoded(self.input_ids[:at], self.learned[:at]), Encoded(self.input_ids[at:], self.learned[at:])) if at else (self,)


@dataclass(frozen=True)
class Whole:
    """One row before anything is cut, for those who look at it.

    input_ids, learned: (T,) as in Encoded. text: what was encoded, with the special tokens that stand around plain text.
    offsets: (T,) the characters of text (start, end exclusive) that each token stands for; tokens that are parts of one
    character have the same or overlapping ranges. rendered: of a conversation, what the template made of it; None of plain text.
    """

    input_ids: list[int]
    learned: list[bool]
    text: str
    offsets: list[tuple[int, int]]
    rendered: Rendered | None = None

    @property
    def is_text(self) -> bool:
        return self.rendered is None


def learned(offsets: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]) -> list[bool]:
    """(T,) whether each token lies in what the assistant says. offsets: its characters (start, end exclusive); spans: the
    assistant's (ChatTemplate.spans), in order."""
    labels, rest = [], iter(spans)
    start, end = next(rest, (0, 0))
    for token_start, token_end in offsets:
        while token_start >= end and (following := next(rest, None)):
            start, end = following
        # An all-space token may have an empty range where the tokenizer trims its offsets.
        labels.append(start <= token_start < end and token_end <= end)
    return labels


def fit(whole: Whole, max_length: int, long_examples: LongExamples = "cut", overlap: int = 0) -> list[Encoded]:
    """A row as it is trained within max_length tokens: one, several pieces or none; those with nothing to learn included.

    Plain text is one stream: it is split whether cut or split is asked for, at paragraphs and sentences (core.data.text_pieces), and a piece
    shows overlap tokens of the one before again, without learning them again.
    cut: its first max_length tokens. split: pieces of max_length tokens, each beginning with the last token of the one
    before, so that every learned token is learned once; a later piece does not see what was asked. drop: none if longer.
    """
    ids, learned = whole.input_ids, whole.learned
    if len(ids) <= max_length:
        return [Encoded(ids, learned)]
    if long_examples == "drop":
        return []
    if whole.is_text:
        found, again = cuts(borders(whole.text, whole.offsets), len(ids), max_length, overlap), shown_again(max_length, overlap)
        begin = [start + 1 + again if again and start else start for start, _ in found]
        return [
            Encoded(ids[start:end], [False] * (at - start) + learned[at:end]) for (start, end), at in zip(found, begin, strict=True)
        ]
    if long_examples == "split":
        starts = range(0, len(ids) - 1, max_length - 1)
        return [Encoded(ids[start : start + max_length], learned[start : start + max_length]) for start in starts]
    return [Encoded(ids[:max_length], learned[:max_length], cut=len(ids) - max_length)]
