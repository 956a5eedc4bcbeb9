"""Tokens of texts whose paragraphs are joined again, so that an example may hold several paragraphs. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from core.data.sets.paragraphs import JOINTS
from core.data.sets.tokens import Tokens
from core.data.text_pieces import Borders

MAX_TOKENS = 1 << 18  # of a joined text: its borders are read as one


@dataclass(frozen=True, eq=False)
class JoinedTokens(Tokens):
    """Tokens whose examples are joined paragraphs, or other rows as they were.

    paragraphs: the tokens of the rows. first (E + 1,): the first of the paragraphs of each example, and their number.
    begin: token of its example at which each paragraph begins.
    """

    paragraphs: Tokens
    first: np.ndarray
    begin: np.ndarray

    @classmethod
    def of_paragraphs(cls, tokens: Tokens, limit: int | None = None) -> Tokens:
        """Return tokens in which consecutive paragraphs of one text are joined into one example, of which everything
        but the first token is learned; a text of more than MAX_TOKENS becomes several. Returned unchanged if no
        paragraphs continue each other.

        limit: a paragraph of more tokens is joined neither to the one before nor to the one after; None: all are
        joined.
        """
        continues = (tokens.joint > 0) & (limit is None or _are_within(tokens.lengths, limit))
        if not continues.any():
            return tokens
        total = np.cumsum(tokens.lengths, dtype=np.int64)
        starts = np.flatnonzero(~continues)
        of_text = np.cumsum(~continues) - 1
        within = total - (total - tokens.lengths)[starts][of_text]  # tokens of the text up to each paragraph's end
        # A text of more than MAX_TOKENS is continued as another one, from a paragraph on.
        continues &= np.diff((within - 1) // MAX_TOKENS, prepend=0) <= 0
        starts = np.flatnonzero(~continues)
        first, begins = np.append(starts, len(tokens)), total - tokens.lengths
        begin = (begins - begins[starts][np.cumsum(~continues) - 1]).astype(np.int32)
        lengths = np.add.reduceat(tokens.lengths, starts).astype(np.int32)
        is_several = np.diff(first) > 1
        example = np.cumsum(~continues) - 1
        # What is learned of a row alone stays; of a joined text all is, and its runs are replaced.
        runs = tokens.runs[~is_several[example[tokens.runs[:, 0]]]].copy()
        runs[:, 0] = example[runs[:, 0]]
        several = np.flatnonzero(is_several)
        joined = np.column_stack((several, np.ones_like(several), lengths[several]))  # all but the very first token
        runs = np.concatenate((runs, joined)).astype(tokens.runs.dtype)
        of_example = ("row", "is_text", "thinks", "is_bad", "unlearned", "segment", "place", "joint")
        values = {each.name: getattr(tokens, each.name) for each in fields(Tokens)}
        values |= {name: values[name][starts] for name in of_example}
        values |= {"lengths": lengths, "runs": runs[np.argsort(runs[:, 0], kind="stable")]}
        return cls(**values, paragraphs=tokens, first=first, begin=begin)

    @property
    def is_joined(self) -> np.ndarray:
        """Flags (E,) of the examples of several paragraphs."""
        return np.diff(self.first) > 1

    def members(self, example: int, start: int, end: int) -> range:
        """Return the range of the paragraphs (indices into `paragraphs`) of an example that have tokens in start to
        end, end exclusive."""
        first, last = int(self.first[example]), int(self.first[example + 1])
        begin = self.begin[first:last]
        return range(
            first + int(np.searchsorted(begin, start, "right")) - 1, first + int(np.searchsorted(begin, end, "left"))
        )

    def ids(self, example: int, start: int, end: int) -> list[int]:
        """Return the tokens from start to end (exclusive) of a joined example, from the paragraphs that they lie in."""
        ids: list[int] = []
        for member in self.members(example, start, end):
            begin = int(self.begin[member])
            length = int(self.paragraphs.lengths[member])
            ids += self.paragraphs.ids(member, max(0, start - begin), min(length, end - begin))
        return ids

    def borders(self, example: int) -> Borders:
        """Return where a joined example may be split, as positions of tokens: `text_pieces.borders` of all its
        paragraphs, and those between them."""
        first, last = int(self.first[example]), int(self.first[example + 1])
        kinds: list[list[np.ndarray]] = [[], [], []]
        for member in range(first, last):
            begin = int(self.begin[member])
            if member > first:
                # A blank line is the best place, before a line's end.
                is_paragraph = JOINTS[self.paragraphs.joint[member]] == JOINTS[1]
                kinds[0 if is_paragraph else 1].append(np.array([begin]))
            for kind, places in zip(kinds, self.paragraphs.borders(member), strict=False):
                kind.append(np.asarray(places, np.int64) + begin)
        return tuple(np.concatenate(kind or [np.zeros(0, np.int64)]).astype(int).tolist() for kind in kinds)


def _are_within(lengths: np.ndarray, limit: int) -> np.ndarray:
    """Return (E,) whether neither an example nor the one before it has more tokens than limit."""
    is_within = lengths <= limit
    return is_within & np.append(True, is_within[:-1])
