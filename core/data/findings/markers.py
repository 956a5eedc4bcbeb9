"""Turn markers of another chat template in the text of a turn, which a model would learn to write."""

from __future__ import annotations

import re

from core.data.findings.finding import Finding, Marked
from core.data.findings.row_words import RowWords

_MARKER = re.compile(
    r"<\|im_(?:start|end)\|>|<\|(?:start|end)_header_id\|>|<\|eot_id\|>|</?(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|<\|(?:user|assistant)\|>|<(?:user|human|bot|assistant)> ?:"
    r"|<｜(?:User|Assistant)｜>|#{2,4} ?(?:Human|Assistant|Instruction|Response) ?:"
)
_ASKS, _ANSWERS = (re.compile(rf"^(?:{names}) ?:", re.MULTILINE) for names in ("Human|User", "Assistant|AI"))


def _first_of_talk(text: str) -> re.Match[str] | None:
    """Return the match of the first line that begins with "Human:" or "User:", if a later line begins with "Assistant:"
    or "AI:"; else None."""
    asks = _ASKS.search(text)
    return asks if asks and _ANSWERS.search(text, asks.end()) else None


class Markers:
    """Rows with turn markers in their texts, outside of code."""

    def __init__(self, max_repair_rows: int | None):
        """Begin without rows. max_repair_rows: how many rows the finding's repair names at most; None for all."""
        self._max_rows, self._marked = max_repair_rows, Marked()

    def add(self, words: RowWords) -> None:
        """Mark the row if its text outside code holds a turn marker of a chat template, or a line that begins with
        "User:" or "Human:" and a later one with "Assistant:" or "AI:"."""
        text = words.everything
        # Every marker has one of these signs, which most rows lack.
        if "<" not in text and "[" not in text and "##" not in text and ":" not in text:
            return
        text = words.prose
        if mark := _MARKER.search(text) or _first_of_talk(text):
            self._marked.add(words.row, words.quote(text, mark.start(), mark.end()) if self._marked.wants_quote else "")

    def findings(self, rows: int) -> list[Finding]:
        """Return the finding of the marked rows with a repair that removes them; [] if none is marked."""
        return self._marked.finding(
            "turn_markers", rows, [self._marked.repair("remove", "turn_markers", self._max_rows)]
        )
