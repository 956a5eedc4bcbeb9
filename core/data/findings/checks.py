"""All checks of a dataset in one pass: it takes each trainable row and returns the findings at the end.

The first EVERY_ROW rows are checked, then one in ONE_IN; counts are of the checked rows. `every_row` checks all, for a
repair. Cost: checking a row of 430 characters takes eight times as long as reading and storing it, a third of an import
of a million rows; see docs/data.md. Memory: about 200 bytes for each checked row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from core.data.findings.answers import Answers, Labels, Openings, ProgramErrors, Refusals, Sameness, SamePairs
from core.data.findings.finding import MAX_ROWS, Finding
from core.data.findings.languages import Languages
from core.data.findings.leaks import Leaks
from core.data.findings.lengths import Lengths
from core.data.findings.markers import Markers
from core.data.findings.near import Repeated
from core.data.findings.placeholders import Placeholders
from core.data.findings.row_words import RowWords, Words
from core.data.findings.writing import Writing

EVERY_ROW, ONE_IN = 10_000, 20

_CHECKS: tuple[tuple[Callable[[int | None], Any], str], ...] = (
    (Leaks, "secrets"), (Repeated, "repeated near_repeated"), (Placeholders, "placeholders"), (Markers, "turn_markers"),
    (Labels, "labels"), (Refusals, "refusals"), (ProgramErrors, "program_errors"),
    (Answers, "says_nothing short_answers echoes"), (SamePairs, "same_pairs"),
    (Sameness, "one_question one_answer"), (Openings, "opening"), (Languages,
        "languages"),
    (Writing, "markup mojibake lost_characters"), (Lengths, "far_longer"),
)  # fmt: skip


class Checks:
    """One pass of all checks. most: rows that a repair names; None for all. kind: the only kind to find; "" for all
    kinds."""

    def __init__(self, every_row: bool = False, most: int | None = MAX_ROWS, kind: str = ""):
        """Begin a pass. every_row: check every row; by default, of a long dataset only one row in ONE_IN is checked
        after the first EVERY_ROW."""
        self._every_row = every_row
        self._checks = [check(most) for check, kinds in _CHECKS if not kind or kind in kinds.split()]
        self._rows = self._checked = 0

    def is_next(self) -> bool:
        """Count one row of the dataset, and return True if it is to be passed to `add`: all of the first EVERY_ROW rows
        are, after that one in ONE_IN; with every_row all. Call it exactly once for each row."""
        self._rows += 1
        return self._every_row or self._rows <= EVERY_ROW or self._rows % ONE_IN == 1

    def add(self, row: int, example: Words) -> None:
        """Pass the row to all checks, and count it as checked."""
        self._checked += 1
        words = RowWords(row, example)
        for check in self._checks:
            check.add(words)

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings, those of the most rows first."""
        result = [finding for check in self._checks for finding in check.findings(self._checked)]
        return tuple(sorted(result, key=lambda finding: -finding.share))


def findings(rows: Iterable[tuple[int, Words]], kind: str = "") -> tuple[Finding, ...]:
    """Return the findings of every row, with all row numbers. kind: run only the checks that can find it, in a fraction
    of the time."""
    checks = Checks(every_row=True, most=None, kind=kind)
    for row, example in rows:
        checks.add(row, example)
    return checks.findings()
