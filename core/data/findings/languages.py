"""Answers in another language than most.

Code is not judged. Languages that at least a fifth of the answers have are taken as intended.
"""

from __future__ import annotations

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords
from core.language import language_of
from core.messages import msg

MEANT = 0.2  # share of the judged answers from which a second language is intended


class Languages:
    """Answers in another language than most."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows the finding's repair names at most; None for all."""
        self._max_rows = max_repair_rows
        self._by_language: dict[str, Marked] = {}

    def add(self, words: RowWords) -> None:
        """Record the language of the row's answers; `findings` reports the rarer languages. Rows with a code block in
        an answer, and answers whose language is not recognized, are skipped."""
        if "```" in words.answer:
            return
        language = language_of(words.answer)
        if language is not None:
            marked = self._by_language.setdefault(language, Marked())
            marked.add(words.row, words.quote(words.answer) if marked.wants_quote else "")

    def findings(self, rows: int) -> list[Finding]:
        """Return the finding of the rows in other languages than the most frequent one, with a repair that removes
        them. [] without any, or if one of those languages has the share MEANT or more, as then several are intended."""
        judged = sum(map(len, self._by_language.values()))
        ordered = sorted(self._by_language.items(), key=lambda item: -len(item[1]))
        few = [(language, marked) for language, marked in ordered[1:] if len(marked) < MEANT * judged]
        # In a set of several languages, rare ones may be meant.
        if len(few) < len(ordered[1:]) or not few:
            return []
        others, (most_language, most_marked) = Marked(), ordered[0]
        examples = {example.row: example.quote for _, marked in few for example in marked.examples}
        for row in sorted(row for _, marked in few for row in marked.rows):
            others.add(row, examples.get(row, ""))
        named = [msg(f"finding.language_{language}", count=len(marked)) for language, marked in few]
        main = msg(f"finding.language_{most_language}", count=len(most_marked))
        return others.finding(
            "languages", rows, [others.repair("remove", "languages", self._max_rows)], main=main, others=named
        )
