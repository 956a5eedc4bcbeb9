"""Examples within the maximum length: each complete, truncated, split or dropped; token ids are read from disk when
needed. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from core.data.labels import Encoded, LongExamples
from core.data.sets.joined import JoinedTokens
from core.data.sets.tokens import Tokens
from core.data.text_pieces import cuts, repeated_tokens


@dataclass(frozen=True, eq=False)
class Pieces(Sequence[Encoded]):
    """The pieces in which something is learned, in order, as `core.data.labels.fit` makes them of each row.

    example, start, end, learned (P,): the example of each piece, its first token, the one after its last, and how many
    tokens the loss counts. limit: most tokens of a piece; long_examples: what is done to those; repeated: tokens that a
    piece of plain text repeats of the one before, besides its last, and does not learn again. A piece takes some forty
    bytes, without its ids. The paragraphs of a text are joined, and its pieces are cut from all of them.
    """

    tokens: Tokens
    limit: int
    long_examples: LongExamples
    example: np.ndarray
    start: np.ndarray
    end: np.ndarray
    learned: np.ndarray
    repeated: int = 0

    @classmethod
    def from_tokens(cls, tokens: Tokens, limit: int, long_examples: LongExamples, overlap: int = 0) -> Pieces:
        """Fit all examples to the limit of tokens, paragraphs joined first, and keep only the pieces in which something
        is learned.

        long_examples, for examples above the limit: "cut" keeps the first limit tokens; "split" makes pieces, each
        beginning with the last token of the one before; "drop" leaves the example out. Plain text is split at its
        borders unless dropped, and joined paragraphs always are. overlap: tokens that a piece of plain text repeats of
        the one before, without training them again.
        """
        tokens = JoinedTokens.of_paragraphs(tokens, limit if long_examples == "drop" else None)
        lengths = tokens.lengths.astype(np.int64)
        is_long = lengths > limit
        counts = np.ones(len(lengths), np.int64)
        cut: dict[int, list[tuple[int, int]]] = {}
        if long_examples == "drop":
            counts[is_long] = 0
        elif long_examples == "split":  # each piece begins with the last token of the one before
            counts[is_long] = -(-(lengths[is_long] - 1) // (limit - 1))
        is_cut = tokens.is_joined if long_examples == "drop" else tokens.is_text
        for number in np.flatnonzero(is_long & is_cut).tolist():
            cut[number] = cuts(tokens.borders(number), int(lengths[number]), limit, overlap)
            counts[number] = len(cut[number])
        example = np.repeat(np.arange(len(lengths), dtype=np.int32), counts)
        first = np.cumsum(counts) - counts
        # (P,): which piece of its example each is, times the tokens between the beginnings of two.
        start = (np.arange(len(example)) - first[example]) * (limit - 1)
        end = np.minimum(start + limit, lengths[example])
        for number, pieces in cut.items():
            place = slice(first[number], first[number] + len(pieces))
            start[place], end[place] = np.array(pieces).T
        repeated = repeated_tokens(limit, overlap)
        context = np.where(tokens.is_text[example] & (start > 0), repeated, 0)
        learned = tokens.learned(example, start + 1 + context, end)  # the first token of a piece has nothing before it
        is_kept = learned > 0
        starts, ends = (place[is_kept].astype(np.int32) for place in (start, end))
        return cls(tokens, limit, long_examples, example[is_kept], starts, ends, learned[is_kept], repeated)

    def __len__(self) -> int:
        return len(self.example)

    def __getitem__(self, index: int) -> Encoded:  # type: ignore[override]  # no caller takes a slice
        """Return a piece: its tokens, which are learned (not those it repeats), and how many were cut off."""
        example, start, end = int(self.example[index]), int(self.start[index]), int(self.end[index])
        is_text = bool(self.tokens.is_text[example])
        cut = int(self.tokens.lengths[example]) - end if self.long_examples == "cut" and not is_text else 0
        at = start + 1 + self.repeated if self.repeated and start and is_text else start
        return Encoded(
            self.tokens.ids(example, start, end), [False] * (at - start) + self.tokens.flags(example, at, end), cut
        )

    def __eq__(self, other: object) -> bool:
        """Return True if the other is a sequence of as many pieces, all equal to these, one by one."""
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]

    def position(self, index: int) -> int:
        """Return the position of a piece's row in the dataset; of joined paragraphs that of the first paragraph of the
        example, even if the piece begins in a later one."""
        return int(self.tokens.positions[self.tokens.row[self.example[index]]])

    def first(self, count: int | None) -> Pieces:
        """Return the first `count` pieces; all for None."""
        arrays = {name: getattr(self, name)[:count] for name in ("example", "start", "end", "learned")}
        return replace(self, **arrays)

    def row_after(self, index: int) -> int:
        """Return one more than the place, among the rows whose tokens these are, of the last row that the piece has
        tokens of: so many of those rows are enough for this piece."""
        example = int(self.example[index])
        if not isinstance(self.tokens, JoinedTokens):
            return int(self.tokens.row[example]) + 1
        last = self.tokens.members(example, int(self.start[index]), int(self.end[index]))[-1]
        return int(self.tokens.paragraphs.row[last]) + 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens (P,) of each piece, of a pair those of both examples."""
        return (self.end - self.start).astype(np.int32)

    # ---- by example (E,) --------------------------------------------------------------------------------------------
    @property
    def is_long(self) -> np.ndarray:
        """Flags (E,) of the examples that are longer than the limit."""
        return self.tokens.lengths > self.limit

    @property
    def per_example(self) -> np.ndarray:
        """Number of kept pieces (E,) of each example; 0 for one that is dropped or has nothing to learn."""
        return np.bincount(self.example, minlength=len(self.tokens))

    @property
    def is_kept(self) -> np.ndarray:
        """Flags (E,) of the examples that have a piece."""
        return self.per_example > 0

    @property
    def is_cut(self) -> np.ndarray:
        """True (E,) for examples that lose their end."""
        return self.is_long & ~self.tokens.is_text & (self.long_examples == "cut") & self.is_kept

    @property
    def is_split(self) -> np.ndarray:
        """Return (E,) True for each example longer than the limit that is trained in pieces and not cut, even if only
        one of its pieces has something to learn."""
        return self.is_long & self.is_kept & (self.tokens.is_text | (self.long_examples == "split"))

    @property
    def lost(self) -> np.ndarray:
        """Tokens (E,) of each example that are cut off; 0 also for one that is split or dropped."""
        return np.where(self.is_cut, self.tokens.lengths - self.limit, 0)


def lengths_of(rows: Sequence[Encoded]) -> Sequence[int]:
    """Tokens of each row, without reading ids from disk."""
    return rows.lengths if hasattr(rows, "lengths") else [len(row.input_ids) for row in rows]


def learned_of(rows: Sequence[Encoded]) -> Sequence[int]:
    """Number of learned tokens of each row."""
    return rows.learned if hasattr(rows, "learned") else [row.learned_count for row in rows]
