"""Rows that the model's chat template refuses: counted by reason, named and left out. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.errors import TemplateError
from core.messages import Message, msg

MAX_REASONS = 5  # listed one by one; a template may put a row's own words into its reason
MAX_NAMED = 5  # rows of one reason


@dataclass
class _Reason:
    """A reason of the template. rows: how many it refused for it; first: the numbers of the first ones."""

    why: Message
    rows: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        """Count a row that the template refused for this reason; its number is kept for the first MAX_NAMED rows."""
        self.rows += 1
        if len(self.first) < MAX_NAMED:
            self.first.append(number)


@dataclass
class RefusedRows:
    """The rows that a template refused. rows: their number."""

    rows: int = 0
    _reasons: dict[str, _Reason] = field(default_factory=dict)

    def add(self, number: int, why: Message) -> None:
        """Count a refused row. number: shown to the person, in the file or among the trainable rows."""
        self.rows += 1
        reason = str(why)
        if reason in self._reasons or len(self._reasons) < MAX_REASONS:
            self._reasons.setdefault(reason, _Reason(why)).add(number)

    def messages(self, read: int, key: str = "template.rows_refused") -> list[Message]:
        """Return a sentence for each reason with its first rows, and one for further reasons. read: rows that were
        checked."""
        sentences = [
            msg(
                key,
                rows=reason.rows,
                read=read,
                why=reason.why,
                first=[*reason.first, *["…"] * (reason.rows > len(reason.first))],
            )
            for reason in self._reasons.values()
        ]
        others = self.rows - sum(reason.rows for reason in self._reasons.values())
        return [*sentences, msg("template.others_refused", rows=others)] if others else sentences

    def if_all(self, read: int) -> TemplateError | None:
        """Return the error if all `read` rows were refused, else None."""
        if not read or self.rows < read:
            return None
        first = next(iter(self._reasons.values()))
        return TemplateError("template.all_refused", rows=read, row=first.first[0], why=first.why)
