"""Check for rows that contain secrets: one finding, with a repair for each kind of secret."""

from __future__ import annotations

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords
from core.data.findings.secrets import STAND_IN, secrets
from core.messages import msg


class Leaks:
    """Rows with secrets (core/data/findings/secrets)."""

    def __init__(self, most: int | None):
        self._most, self._any = most, Marked()
        self._by_kind = {what: Marked() for what in STAND_IN}

    def add(self, words: RowWords) -> None:
        text = words.everything
        for what, start, end in secrets(text):
            self._by_kind[what].add(words.row, "")
            self._any.add(words.row, words.quote(text, start, end) if self._any.wants_quote else "")

    def findings(self, rows: int) -> list[Finding]:
        kinds = {what: marked for what, marked in self._by_kind.items() if marked}
        named = [msg(f"finding.secret_{what}", count=len(marked)) for what, marked in kinds.items()]
        repairs = [marked.repair("replace", "secrets", self._most, what) for what, marked in kinds.items()]
        return self._any.finding(
            "secrets", rows, [*repairs, self._any.repair("remove", "secrets", self._most)], kinds=named
        )
