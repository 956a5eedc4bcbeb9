"""A finding: one problem with rows of a dataset, and what could be done about it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Literal

from pydantic import computed_field

from core.messages import Message, msg
from core.values import Frozen

SHOWN = 5  # rows of a finding that are quoted
MAX_ROWS = 10_000  # row numbers in a repair, unless all are requested: reports are read often

Kind = Literal[
    "repeated", "near_repeated", "placeholders", "opening", "languages", "refusals", "secrets", "says_nothing",
    "turn_markers",
    "short_answers", "labels", "program_errors",
    "echoes", "same_pairs", "one_question", "one_answer", "far_longer", "markup", "mojibake", "lost_characters",
]  # fmt: skip
Action = Literal["remove", "replace", "fill"]


class ExampleRow(Frozen):
    """A row with the problem. quote: some of its words, secrets masked. other: for a repeat, the row that it
    repeats."""

    row: int
    quote: str
    other: int | None = None

    @property
    def sentence(self) -> Message:
        """Message that shows the row to a person: its number, its quotation and, for a repeat, the number of the
        earlier row."""
        if self.other is not None:
            return msg("finding.example_other", row=self.row, other=self.other, quote=self.quote)
        return msg("finding.example", row=self.row, quote=self.quote)


class Repair(Frozen):
    """A repair of the rows with a problem.

    action: remove deletes the rows; replace removes or replaces in them what `argument` names; fill replaces
    `argument`, a placeholder as written, by a person's text. rows: numbers in the file, the first MAX_ROWS of `count`
    unless all were requested.
    """

    action: Action
    kind: Kind
    argument: str = ""
    count: int
    rows: tuple[int, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> Message:
        """The text of the button for the repair: what it does, with the number of rows and the argument."""
        what = f"finding.repair_{self.action}" + (f"_{self.kind}" if self.action == "replace" else "")
        return msg(what, count=self.count, argument=self._argument)

    @property
    def done(self) -> Message:
        """The sentence of what was done, once the repair has been made."""
        if self.action == "remove":
            return msg("sets.removed", rows=self.count)
        what = "finding.done_fill" if self.action == "fill" else f"finding.done_{self.kind}"
        return msg(what, count=self.count, argument=self._argument)

    @property
    def _argument(self) -> str | Message:
        """The argument as the sentences of the repair show it: for secrets the readable name of their kind, otherwise
        unchanged ("" if the repair has none)."""
        if self.kind == "secrets" and self.argument:
            return msg(f"finding.secret_{self.argument}", count=self.count)
        return self.argument


class Finding(Frozen):
    """One problem of a dataset: `count` of the `of` checked rows have it. message: the sentence; meaning: why it is a
    problem."""

    id: Kind
    count: int
    of: int
    message: Message
    meaning: Message
    examples: tuple[ExampleRow, ...]
    repairs: tuple[Repair, ...] = ()

    @property
    def rows(self) -> set[int]:
        """Numbers of the rows that its repairs name: at most MAX_ROWS of each repair unless all were requested, and
        none if it has no repair."""
        return {row for repair in self.repairs for row in repair.rows}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def share(self) -> float:
        """The share of the checked rows that have it, 0 to 1."""
        return round(self.count / max(1, self.of), 4)


class Marked:
    """Rows with a problem: all their numbers, 8 bytes each, and quotes of the first."""

    def __init__(self) -> None:
        self.rows = array("q")
        self.examples: list[ExampleRow] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: int, quote: str, other: int | None = None) -> None:
        """Mark a row, once however often it is called for it, and keep the quotation of the first SHOWN rows. other:
        for a repeat, the row that it repeats. Call it for rows in order."""
        # A row with the problem in several places is marked once.
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
            if len(self.examples) < SHOWN:
                self.examples.append(ExampleRow(row=row, quote=quote, other=other))

    @property
    def wants_quote(self) -> bool:
        """True until SHOWN rows are quoted; making a quotation takes longer than marking a row."""
        return len(self.examples) < SHOWN

    def repair(self, action: Action, kind: Kind, most: int | None, argument: str = "") -> Repair:
        """Return the repair of the marked rows; it names the first `most`, None for all."""
        return Repair(action=action, kind=kind, argument=argument, count=len(self), rows=tuple(self.rows[:most]))

    def finding(
        self, kind: Kind, rows: int, repairs: Sequence[Repair] = (), count: int | None = None, **params: object
    ) -> list[Finding]:
        """Return a list with one Finding of the marked rows, with quotations of the first and these repairs; [] if no
        row is marked. rows: number of checked rows, of which the percentage is given. count: number of rows with the
        problem, if only some of them were marked. params: further values of its sentence."""
        if not self.rows:
            return []
        count = count or len(self)
        share = 100 * count / max(1, rows)
        # Ten rows of a million must not be shown as 0.0 %.
        percent = share if share >= 0.05 else msg("finding.less_than", percent=0.1)
        return [
            Finding(
                id=kind,
                count=count,
                of=rows,
                message=msg(f"finding.{kind}", count=count, rows=rows, percent=percent, **params),
                meaning=msg(f"finding.{kind}_means"),
                examples=tuple(self.examples),
                repairs=tuple(repairs),
            )
        ]
