"""Pairs within the maximum length, for preference training: better and worse answer, or a rated answer beside another
row's. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from core.data.labels import Encoded
from core.data.sets.pieces import Pieces
from core.data.sets.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Pairs(Pieces):
    """example: of each pair the better one, which the worse one follows; start is 0 and end the better one's length.

    A pair of which one is longer than the limit is left out, whatever is done to longer examples elsewhere: cut, it
    would be compared by what it does not say, and no length of the answer may decide which is the better one.
    """

    @classmethod
    def within(cls, tokens: Tokens, limit: int) -> Pairs:
        better = np.flatnonzero(_is_better(tokens))
        ends = tokens.lengths[better].astype(np.int64), tokens.lengths[better + 1].astype(np.int64)
        learned = [tokens.learned(better + side, np.ones_like(better), end) for side, end in enumerate(ends)]
        kept = np.all([end <= limit for end in ends] + [count > 0 for count in learned], axis=0)
        start = np.zeros(len(better), np.int64)
        return cls(tokens, limit, "drop", better[kept], start[kept], ends[0][kept], (learned[0] + learned[1])[kept])

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no caller takes a slice
        example, at = int(self.example[index]), int(self.end[index])
        end = int(self.tokens.lengths[example + 1])
        ids = self.tokens.ids(example, 0, at) + self.tokens.ids(example + 1, 0, end)
        return Encoded(ids, self.tokens.flags(example, 0, at) + self.tokens.flags(example + 1, 0, end), second=at)

    @cached_property
    def lengths(self) -> np.ndarray:
        return (self.end + self.tokens.lengths[self.example + 1]).astype(np.int32)

    # ---- by example (E,): what is said of a pair is said of the better one
    @property
    def is_long(self) -> np.ndarray:
        longer = np.maximum(self.tokens.lengths, np.append(self.tokens.lengths[1:], 0))
        return _is_better(self.tokens) & (longer > self.limit)

    @property
    def is_kept(self) -> np.ndarray:
        return (self.per_example > 0) | ~_is_better(self.tokens)


@dataclass(frozen=True, eq=False)
class Rated(Pieces):
    """example: of each row its only one; start is 0. The second example of a piece is its question with the answer of
    the piece before, the last's for the first, cut at the limit: by these kto estimates how far the model has moved
    (arXiv 2402.01306, section 3.2). A row that is longer than the limit is left out, as a pair is."""

    @classmethod
    def within(cls, tokens: Tokens, limit: int) -> Rated:
        every = np.arange(len(tokens))
        start, end = np.zeros(len(every), np.int64), tokens.lengths.astype(np.int64)
        learned = tokens.learned(every, start, end)
        kept = (end <= limit) & (learned > 0)
        return cls(tokens, limit, "drop", every[kept], start[kept], end[kept], learned[kept])

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no caller takes a slice
        example, other = int(self.example[index]), int(self.example[index - 1])
        end, asked, said = int(self.end[index]), int(self._answers(example)), int(self._answers(other))
        after = min(int(self.tokens.lengths[other]), said + max(1, self.limit - asked))
        ids = (
            self.tokens.ids(example, 0, end) + self.tokens.ids(example, 0, asked) + self.tokens.ids(other, said, after)
        )
        flags = self.tokens.flags(example, 0, end) + [False] * asked + self.tokens.flags(other, said, after)
        return Encoded(ids, flags, second=end, is_bad=bool(self.tokens.is_bad[example]))

    def _answers(self, example: Any) -> Any:
        """Where the answer of an example begins, or of each of several."""
        return self.tokens.runs[self.tokens.run_of(example), 1]

    @cached_property
    def lengths(self) -> np.ndarray:
        begins = self._answers(self.example)
        other = np.roll(self.end - begins, 1)
        return (self.end + begins + np.minimum(other, np.maximum(1, self.limit - begins))).astype(np.int32)


def _is_better(tokens: Tokens) -> np.ndarray:
    """(E,) whether each is the first of its row."""
    return np.diff(tokens.row, prepend=-1) > 0
