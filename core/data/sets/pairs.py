"""Pairs of answers within a length: what preference training sees of rows whose better and worse answer are an example each. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.data.labels import Encoded
from core.data.sets.pieces import Pieces
from core.data.sets.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Pairs(Pieces):
    """example: of each pair the better one, which the worse one follows; start is 0 and end the better one's length.

    A pair of which one is longer than the limit is left out, whatever is done to longer examples elsewhere: cut, it would be compared by
    what it does not say, and no length of the answer may decide which is the better one.
    """

    @classmethod
    def within(cls, tokens: Tokens, limit: int) -> Pairs:
        better = np.flatnonzero(_is_better(tokens))
        ends = tokens.lengths[better].astype(np.int64), tokens.lengths[better + 1].astype(np.int64)
        learned = [tokens.learned(better + side, np.ones_like(better), end) for side, end in enumerate(ends)]
        kept = np.all([end <= limit for end in ends] + [count > 0 for count in learned], axis=0)
        start = np.zeros(len(better), np.int64)
        return cls(tokens, limit, "drop", better[kept], start[kept], ends[0][kept], (learned[0] + learned[1])[kept])

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no slice is ever asked for
        example, at = int(self.example[index]), int(self.end[index])
        end = int(self.tokens.lengths[example + 1])
        ids = self.tokens.ids(example, 0, at) + self.tokens.ids(example + 1, 0, end)
        return Encoded(ids, self.tokens.flags(example, 0, at) + self.tokens.flags(example + 1, 0, end), second=at)

    def first(self, count: int | None) -> Pairs:
        return Pairs(
            self.tokens, self.limit, self.how, self.example[:count], self.start[:count], self.end[:count], self.learned[:count]
        )

    @property
    def lengths(self) -> np.ndarray:
        """(P,) tokens of both."""
        return (self.end + self.tokens.lengths[self.example + 1]).astype(np.int32)

    # ---- by example (E,): what is said of a pair is said of the better one
    @cached_property
    def is_long(self) -> np.ndarray:
        longer = np.maximum(self.tokens.lengths, np.append(self.tokens.lengths[1:], 0))
        return _is_better(self.tokens) & (longer > self.limit)

    @property
    def is_kept(self) -> np.ndarray:
        return (self.per_example > 0) | ~_is_better(self.tokens)


def _is_better(tokens: Tokens) -> np.ndarray:
    """(E,) whether each is the first of its row."""
    return np.diff(tokens.row, prepend=-1) > 0
