"""Check for rows that contain secrets: one finding, with a repair for each kind of secret."""

from __future__ import annotations

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords
from core.data.findings.secrets import STAND_IN, secrets
from core.messages import msg


class Leaks:
    """Rows with secrets (core/data/findings/secrets)."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows a repair of the finding names at most; None for all."""
        self._max_rows, self._any = max_repair_rows, Marked()
        self._by_kind = {kind: Marked() for kind in STAND_IN}

    def add(self, words: RowWords) -> None:
        """Mark the row if its texts hold a secret, and once for each kind of secret in them."""
        text = words.everything
        for kind, start, end in secrets(text):
            self._by_kind[kind].add(words.row, "")
            self._any.add(words.row, words.quote(text, start, end) if self._any.wants_quote else "")

    def findings(self, rows: int) -> list[Finding]:
        """Return [one finding of all rows with a secret], with a repair for each kind of secret that replaces it and
        one that removes the rows; [] without any."""
        kinds = {kind: marked for kind, marked in self._by_kind.items() if marked}
        named = [msg(f"finding.secret_{kind}", count=len(marked)) for kind, marked in kinds.items()]
        repairs = [marked.repair("replace", "secrets", self._max_rows, kind) for kind, marked in kinds.items()]
        return self._any.finding(
            "secrets", rows, [*repairs, self._any.repair("remove", "secrets", self._max_rows)], kinds=named
        )
