"""Pairs within the maximum length, for preference training: better and worse answer, or a rated answer beside another
row's. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from core.data.labels import Encoded
from core.data.sets.pieces import Pieces
from core.data.sets.tokens import Tokens


@dataclass(frozen=True, eq=False)
class Pairs(Pieces):
    """Pairs of a better and a worse answer. example: the better one, which the worse one follows; end: its length.

    A pair is left out if one of its examples is longer than the limit, whatever is done to longer examples elsewhere: a
    truncated answer would be compared by what it lacks.
    """

    @classmethod
    def within(cls, tokens: Tokens, limit: int) -> Pairs:
        """Return the pairs whose examples both fit limit and both have something to learn."""
        better = np.flatnonzero(_is_better(tokens))
        ends = tokens.lengths[better].astype(np.int64), tokens.lengths[better + 1].astype(np.int64)
        learned = [tokens.learned(better + side, np.ones_like(better), end) for side, end in enumerate(ends)]
        # One answer alone shows no preference.
        is_kept = np.all([end <= limit for end in ends] + [count > 0 for count in learned], axis=0)
        start = np.zeros(len(better), np.int64)
        return cls(
            tokens, limit, "drop", better[is_kept], start[is_kept], ends[0][is_kept], (learned[0] + learned[1])[is_kept]
        )

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no caller takes a slice
        """Return a pair as one piece: the better answer's example, and after it, from `second` on, the worse answer's,
        each with its question."""
        example, at = int(self.example[index]), int(self.end[index])
        end = int(self.tokens.lengths[example + 1])
        ids = self.tokens.ids(example, 0, at) + self.tokens.ids(example + 1, 0, end)
        return Encoded(ids, self.tokens.flags(example, 0, at) + self.tokens.flags(example + 1, 0, end), second=at)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens (P,) of each pair: those of its better and of its worse example together."""
        return (self.end + self.tokens.lengths[self.example + 1]).astype(np.int32)

    # ---- by example (E,): a pair is represented by its better one
    @property
    def is_long(self) -> np.ndarray:
        """True (E,) for the better example of each pair of which either example is longer than the limit; False for all
        others, also for every worse example."""
        # The worse answer is the example after the better one.
        longer = np.maximum(self.tokens.lengths, np.append(self.tokens.lengths[1:], 0))
        return _is_better(self.tokens) & (longer > self.limit)

    @property
    def is_kept(self) -> np.ndarray:
        """False (E,) for the better example of each pair that is left out; True for all others, also for every worse
        example."""
        return (self.per_example > 0) | ~_is_better(self.tokens)


@dataclass(frozen=True, eq=False)
class Rated(Pieces):
    """Rated answers for kto. example: the only one of each row.

    The second example of a piece is its question with the answer of the piece before (for the first piece, of the
    last), cut at the limit: from these kto estimates how far the model has moved (arXiv 2402.01306, section 3.2). A row
    that is longer than the limit is left out, like a pair.
    """

    @classmethod
    def within(cls, tokens: Tokens, limit: int) -> Rated:
        """Return the rated answers that fit limit with all turns before them, and have something to learn."""
        every = np.arange(len(tokens))
        start, end = np.zeros(len(every), np.int64), tokens.lengths.astype(np.int64)
        learned = tokens.learned(every, start, end)
        is_kept = (end <= limit) & (learned > 0)
        return cls(tokens, limit, "drop", every[is_kept], start[is_kept], end[is_kept], learned[is_kept])

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no caller takes a slice
        """Return a rated answer and, after it (from `second` on), its question with the answer of the piece before, as
        far as it fits the limit."""
        example, other = int(self.example[index]), int(self.example[index - 1])
        end, begin, other_begin = (
            int(self.end[index]),
            int(self._answer_starts(example)),
            int(self._answer_starts(other)),
        )
        # At least one token of it, or the second example would have nothing to compare.
        other_end = min(int(self.tokens.lengths[other]), other_begin + max(1, self.limit - begin))
        ids = (
            self.tokens.ids(example, 0, end)
            + self.tokens.ids(example, 0, begin)
            + self.tokens.ids(other, other_begin, other_end)
        )
        # Of the second example only the other row's answer counts.
        flags = self.tokens.flags(example, 0, end) + [False] * begin + self.tokens.flags(other, other_begin, other_end)
        return Encoded(ids, flags, second=end, is_bad=bool(self.tokens.is_bad[example]))

    def _answer_starts(self, example: ArrayLike) -> np.ndarray:
        """Return the place, in its example, of the first learned token, where the rated answer begins; an array for
        several examples."""
        return self.tokens.runs[self.tokens.run_of(example), 1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """The tokens of each piece with those of its second example."""
        begins = self._answer_starts(self.example)
        other = np.roll(self.end - begins, 1)  # tokens of the answer before; of the first piece, of the last
        return (self.end + begins + np.minimum(other, np.maximum(1, self.limit - begins))).astype(np.int32)


def _is_better(tokens: Tokens) -> np.ndarray:
    """Return (E,) whether each example is the first of its row."""
    return np.diff(tokens.row, prepend=-1) > 0
