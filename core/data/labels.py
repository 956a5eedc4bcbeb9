"""Labels of a row: which tokens are trained, and how a row that is too long is shortened. No torch, no tokenizer.

`Encoded` is one row as in training: ids, which of them are trained, and how many were truncated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from core.data.text_pieces import borders, cuts, repeated_tokens
from core.recipe import Recipe

if TYPE_CHECKING:
    from core.data.template import Rendered

LongExamples = Literal["cut", "split", "drop"]


@dataclass(frozen=True)
class Learning:
    """The parts of a row that are trained: the fields of recipe.Data with these names.

    pairs: the better and the worse answer, one example each, trained only after their common turns. rated: only the
    last answer, which may be marked as bad.
    """

    train_on: str = "assistant"
    enable_thinking: bool | None = None
    mask_history: bool = False
    pairs: bool = False
    rated: bool = False

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> Learning:
        """Return what a recipe trains: with KTO rated answers and only the last one, with other preference objectives
        pairs, otherwise its data settings."""
        data = recipe.data
        if recipe.train.objective == "kto":
            return cls(enable_thinking=data.enable_thinking, mask_history=True, rated=True)
        if recipe.train.compares:
            return cls(enable_thinking=data.enable_thinking, pairs=True)
        return cls(data.train_on, data.enable_thinking, data.mask_history)


ANSWERS = Learning()


@dataclass(frozen=True)
class Encoded:
    """One training example.

    input_ids: (T,) token ids; learned: (T,) True where the loss counts this token; cut: tokens lost by truncation.
    second: where the second example begins: in a pair, the one with the worse answer; in a rated row, the one with
    another row's answer; 0: a single example. is_bad: the answer is marked as bad. reference: log-probabilities of the
    pair's two answers before training, if known.
    """

    input_ids: list[int]
    learned: list[bool]
    cut: int = 0
    second: int = 0
    reference: tuple[float, float] = (0.0, 0.0)
    is_bad: bool = False

    @property
    def learned_count(self) -> int:
        """Number of learned tokens, without the first of each example, which nothing predicts."""
        return sum(self.learned[1:]) - (self.second > 0 and self.learned[self.second])

    def for_batch(self) -> list[tuple[float, float, float]]:
        """Return three further numbers for each learned token, for losses that need them; [] for this class, whose
        losses need the tokens alone."""
        return []

    @property
    def examples(self) -> tuple[Encoded, ...]:
        """Return two examples, divided at `second`: the better and the worse answer of a pair, or the own and the other
        answer of a rated row. Return (self,) if `second` is 0. The two have neither cut, reference nor is_bad."""
        at = self.second
        return (
            (Encoded(self.input_ids[:at], self.learned[:at]), Encoded(self.input_ids[at:], self.learned[at:]))
            if at
            else (self,)
        )


@dataclass(frozen=True)
class FullExample:
    """One example before truncation.

    input_ids, learned: (T,) as in Encoded. text: what was encoded, including special tokens around plain text. offsets:
    (T,) the characters of text (start, end exclusive) of each token; tokens that are parts of one character have equal
    or overlapping ranges. rendered: the template's output for a conversation; None for plain text.
    """

    input_ids: list[int]
    learned: list[bool]
    text: str
    offsets: list[tuple[int, int]]
    rendered: Rendered | None = None

    @property
    def is_text(self) -> bool:
        """Return True for plain text, which no chat template renders."""
        return self.rendered is None


def learned(offsets: Sequence[tuple[int, int]], spans: Iterable[tuple[int, int]]) -> list[bool]:
    """Return (T,) whether each token lies wholly in a span of the assistant. offsets: characters (start, end exclusive)
    of each token; spans: those of the assistant (ChatTemplate.spans), in order."""
    labels, rest = [], iter(spans)
    start, end = next(rest, (0, 0))
    for token_start, token_end in offsets:
        while token_start >= end and (following := next(rest, None)):
            start, end = following
        # A white-space token may have an empty range if the tokenizer trims its offsets.
        labels.append(start <= token_start < end and token_end <= end)
    return labels


def fit(full: FullExample, max_length: int, long_examples: LongExamples = "cut", overlap: int = 0) -> list[Encoded]:
    """Fit an example to max_length tokens: one piece, several or none, including those with nothing to train.

    Plain text is always split unless dropped, at paragraphs and sentences (core.data.text_pieces); a piece repeats
    overlap tokens of the one before as context, without training them again. cut: the first max_length tokens. split:
    pieces of max_length tokens, each beginning with the last token of the one before, so that every token is trained
    once; later pieces do not contain the question. drop: nothing if longer.
    """
    ids, learned = full.input_ids, full.learned
    if len(ids) <= max_length:
        return [Encoded(ids, learned)]
    if long_examples == "drop":
        return []
    if full.is_text:
        # Text has no question to lose: it may be divided wherever a new sentence begins.
        pieces, again = (
            cuts(borders(full.text, full.offsets), len(ids), max_length, overlap),
            repeated_tokens(max_length, overlap),
        )
        first_learned = [start + 1 + again if again and start else start for start, _ in pieces]
        return [
            Encoded(ids[start:end], [False] * (at - start) + learned[at:end])
            for (start, end), at in zip(pieces, first_learned, strict=True)
        ]
    if long_examples == "split":
        starts = range(0, len(ids) - 1, max_length - 1)
        return [Encoded(ids[start : start + max_length], learned[start : start + max_length]) for start in starts]
    return [Encoded(ids[:max_length], learned[:max_length], cut=len(ids) - max_length)]
