"""Check for rows that are far longer than the others: most often two rows without their border, a full page, or a
log."""

from __future__ import annotations

from array import array
from statistics import median

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords

FAR, LONG = 30, 8_000  # far longer: so many times the median, and so many characters


class Lengths:
    """Conversations that are far longer than the median."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows the finding's repair names at most; None for all."""
        self._max_rows, self._lengths = max_repair_rows, array("i")
        self._long: list[tuple[int, int, str]] = []

    def add(self, words: RowWords) -> None:
        """Note the row's length in characters, and the row itself if above LONG; plain texts are ignored."""
        if words.is_text:  # plain text is split
            return
        length = len(words.question) + len(words.answer)
        self._lengths.append(length)
        if length > LONG:
            self._long.append((words.row, length, words.quote(words.question or words.answer)))

    def findings(self, rows: int) -> list[Finding]:
        """Return the finding of the rows that have more than LONG characters and more than FAR times the median length,
        with a repair that removes them; [] if there are none."""
        if not self._long:
            return []
        usual, marked, longest = int(median(self._lengths)), Marked(), 0
        # The median is known only after the last row.
        for row, length, quote in self._long:
            if length > FAR * max(1, usual):
                marked.add(row, quote)
                longest = max(longest, length)
        return marked.finding(
            "far_longer",
            rows,
            [marked.repair("remove", "far_longer", self._max_rows)],
            usual=usual,
            longest=longest,
        )
