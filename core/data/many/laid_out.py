"""The pieces of many rows, block by block: where each lies and what of it is trained; mapped, not held
(core/data/many/columns). No torch.

Some 70 bytes a piece on disk for as long as a run lasts, and none of memory by row.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.data.labels import LongExamples
from core.data.many.columns import AT_ONCE, Column
from core.data.sets.pieces import Pieces
from core.data.sets.segment import Segment
from core.data.sets.tokens import Placed, Tokens

PLACES = np.dtype([(name, np.int32) for name in ("example", "start", "end", "learned")])
EXAMPLES = np.dtype(
    [("offset", np.int64), ("lengths", np.int32), ("segment", np.int32), ("is_text", bool), ("is_bad", bool)],
    align=True,
)


class LaidOut:
    def __init__(self, folder: Path | None):
        self._folder, self._examples = folder, 0
        self._like: tuple[type[Pieces], int, LongExamples, int] = (Pieces, 0, "drop", 0)
        self._numbers: dict[Segment, int] = {}
        self._columns = {
            "places": Column(PLACES, folder),
            "examples": Column(EXAMPLES, folder),
            "runs": Column(np.int32, folder),
        }

    def add(self, pieces: Pieces) -> None:
        """Of the rows that come next. Raises OSError."""
        tokens, begin = pieces.tokens, self._examples
        numbers = np.array(
            [self._numbers.setdefault(segment, len(self._numbers)) for segment in tokens.segments], np.int32
        )
        places = {
            "example": pieces.example + begin,
            "start": pieces.start,
            "end": pieces.end,
            "learned": pieces.learned,
        }
        self._columns["places"].append(_records(PLACES, places))
        examples = {name: getattr(tokens, name) for name in EXAMPLES.names or () if name != "segment"}
        segment = numbers[tokens.segment] if len(numbers) else tokens.segment
        self._columns["examples"].append(_records(EXAMPLES, examples | {"segment": segment}))
        self._columns["runs"].append((tokens.runs + (begin, 0, 0)).ravel())
        self._examples += len(tokens)
        self._like = type(pieces), pieces.limit, pieces.how, pieces.again

    def pieces(self) -> Pieces:
        """All that were added. Raises OSError."""
        places, examples, runs = (column.read() for column in self._columns.values())
        placed = Placed(
            runs=runs.reshape(-1, 3),
            segments=tuple(self._numbers),
            **{name: examples[name] for name in EXAMPLES.names or ()},
        )
        kind, limit, how, again = self._like
        found = kind(placed, limit, how, **{name: places[name] for name in PLACES.names or ()}, again=again)
        lengths = Column(np.int32, self._folder)
        for start in range(0, len(found), AT_ONCE):
            lengths.append(found.lengths_at(np.arange(start, min(start + AT_ONCE, len(found)))))
        return replace(found, known_lengths=lengths.read())


def first_rows(tokens: Tokens, pieces: Pieces, count: int) -> list[int]:
    """Positions of the first rows that pieces were made of."""
    rows = tokens.row[pieces.example]
    return tokens.positions[rows[np.flatnonzero(np.diff(rows, prepend=-1))[:count]]].tolist()


def _records(kind: np.dtype, columns: dict[str, Any]) -> np.ndarray:
    made = np.zeros(len(next(iter(columns.values()))), kind)
    for name, column in columns.items():
        made[name] = column
    return made
