"""Points of a curve as columns of numbers, that grow without ever being moved.

In blocks: a column in one piece is copied to a larger place each time it is full, by whichever thread of the server adds the
point; what it leaves behind is too small for the next copy, and stays with that thread. 8 bytes a number, and at least one
block (8 KiB a column).
"""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # points


class Columns:
    """Points in the order of their steps; nan where a number is unknown. A step is a whole number below 2**53, so that a float
    holds it."""

    def __init__(self, *names: str):
        self.names = ("step", *names)
        self._blocks: list[np.ndarray] = []  # each (names, BLOCK)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, step: int, *values: float) -> None:
        block, place = divmod(self._count, BLOCK)
        if block == len(self._blocks):
            self._blocks.append(np.empty((len(self.names), BLOCK)))
        self._blocks[block][:, place] = (step, *values)
        self._count += 1

    def since(self, start: int = 0) -> np.ndarray:
        """A copy of the points from number `start` on: (names, points)."""
        first = start // BLOCK
        blocks = self._blocks[first:]
        if not blocks:
            return np.empty((len(self.names), 0))
        return np.concatenate(blocks, axis=1)[:, start - first * BLOCK : self._count - first * BLOCK]

    def column(self, name: str) -> np.ndarray:
        row = self.names.index(name)
        return np.concatenate([np.empty(0), *(block[row] for block in self._blocks)])[: self._count]

    @property
    def last_step(self) -> int:
        """0 where there is no point."""
        block, place = divmod(self._count - 1, BLOCK)
        return int(self._blocks[block][0, place]) if self._count else 0

    def keep_before(self, step: int) -> None:
        """Drop the points from the first one on whose step is not before this."""
        beyond = np.flatnonzero(self.column("step") >= step)
        if len(beyond):
            self._count = int(beyond[0])
            del self._blocks[-(-self._count // BLOCK) :]
