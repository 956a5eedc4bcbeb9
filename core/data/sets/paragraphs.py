"""Paragraphs of one text, which are rows of their own: how they go on, and where the text is divided. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.data.row_order import shuffled

JOINTS = (None, "\n\n", "\n", "")  # the text between two rows of one text; None: they are of two
_BYTES_A_TOKEN = 4  # of UTF-8; about right for European languages and for Chinese


@dataclass(frozen=True, eq=False)
class Paragraphs:
    """The paragraphs among the rows of a dataset.

    joint (N,): index in JOINTS of the text between each row and the row before; 0 where a text begins, and for rows
    that are no paragraphs. size (N,): bytes of each row, about.
    """

    joint: np.ndarray
    size: np.ndarray

    def around(self, position: int) -> tuple[bool, str | None]:
        """Return whether the row at a position continues the one before, and the text between it and the next; None if
        its text ends there."""
        following = self.joint[position + 1] if position + 1 < len(self.joint) else 0
        return bool(self.joint[position]), JOINTS[following]

    @property
    def after(self) -> np.ndarray:
        """Index in JOINTS of the text between each row (N,) and the row after it; 0 where a text ends."""
        return np.append(self.joint[1:], 0).astype(np.uint8)

    def stretches(self, max_length: int) -> np.ndarray:
        """Return (N,) the number of the stretch that each row belongs to, rising from 0: consecutive rows of one text,
        with about as many bytes as one to four examples of max_length tokens.

        A stretch is drawn as a whole, for validation or for some of the steps, so that its rows can be joined. A row
        that is no paragraph begins a stretch.
        """
        size, of_example = np.cumsum(self.size), _BYTES_A_TOKEN * max_length
        examples = min(4, max(1, int(size[-1]) // of_example // 100))  # of a short text one: 5 % of it are few
        # A stretch also ends where the sum of sizes passes a multiple of its length.
        part = size // (examples * of_example)
        return np.cumsum((self.joint == 0) | (np.diff(part, prepend=0) > 0)) - 1


def shuffled_stretches(rows: np.ndarray, stretch: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows (their positions) in a random order in which rows of one group, a stretch of consecutive rows,
    stay together in the order in which they were given.

    stretch (N,): number of the group of every row of the dataset, rising from 0. seed: equal seeds give equal orders.
    """
    # Each stretch gets a random rank, and a stable sort by it keeps the order of the rows within.
    rank = np.empty(int(stretch[-1]) + 1, np.int64)
    rank[np.asarray(shuffled(len(rank), seed, epoch=0))] = np.arange(len(rank))
    return rows[np.argsort(rank[stretch[rows]], kind="stable")]
