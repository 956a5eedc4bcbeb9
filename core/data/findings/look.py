"""All checks of a dataset in one pass: given each trainable row, it reports at the end what is wrong.

The first EVERY_ROW rows are looked at, then one in ONE_IN; counts are of the rows that were looked at. `every_row`
looks at all, as somebody does who is about to repair what was found. Cost: a row of 430 characters takes eight times as
long as reading and keeping it does, a third of an import of a million rows; see docs/data.md. Memory: about 200 bytes
for each row that is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from core.data.findings.answers import Answers, Openings, Refusals, SamePairs
from core.data.findings.finding import MOST_ROWS, Finding
from core.data.findings.language import Languages
from core.data.findings.leaks import Leaks
from core.data.findings.lengths import Lengths
from core.data.findings.near import Repeated
from core.data.findings.placeholders import Placeholders
from core.data.findings.row_words import RowWords, Words
from core.data.findings.writing import Writing

EVERY_ROW, ONE_IN = 10_000, 20

_LOOKS: tuple[tuple[Callable[[int | None], Any], str], ...] = (
    (Leaks, "secrets"), (Repeated, "repeated near_repeated"), (Placeholders, "placeholders"), (Refusals, "refusals"),
    (Answers, "says_nothing short_answers echoes"), (SamePairs, "same_pairs"), (Openings, "opening"), (Languages,
        "languages"),
    (Writing, "markup mojibake lost_characters"), (Lengths, "far_longer"),
)  # fmt: skip


class Look:
    """most: rows that a repair names; None for all of them. kind: of what is looked for; "" for everything."""

    def __init__(self, every_row: bool = False, most: int | None = MOST_ROWS, kind: str = ""):
        self._every_row = every_row
        self._looks = [look(most) for look, kinds in _LOOKS if not kind or kind in kinds.split()]
        self._rows = self._looked_at = 0

    def is_next(self) -> bool:
        """Whether the next row is one that is looked at; asked once of each."""
        self._rows += 1
        return self._every_row or self._rows <= EVERY_ROW or self._rows % ONE_IN == 1

    def add(self, row: int, example: Words) -> None:
        self._looked_at += 1
        said = RowWords(row, example)
        for look in self._looks:
            look.add(said)

    def found(self) -> tuple[Finding, ...]:
        """What concerns the most rows first."""
        found = [finding for look in self._looks for finding in look.found(self._looked_at)]
        return tuple(sorted(found, key=lambda finding: -finding.share))


def findings(rows: Iterable[tuple[int, Words]], kind: str = "") -> tuple[Finding, ...]:
    """Of every row, with all numbers. kind: only what is found along with it, which takes a fraction of the time."""
    look = Look(every_row=True, most=None, kind=kind)
    for row, example in rows:
        look.add(row, example)
    return look.found()
