"""Inspects a data file before training: reads it once, row by row, and reports its problems and what is left out.

`inspect_file` returns the report of a file and passes each row's result to `keep`. core/data/formats decides what a row
means. Cost: 1.7 to 2.7 s for 100,000 rows (43 MB; 2 cores shared with others, 2026-11-25), and the checks of
core/data/findings.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data.chats import overview
from core.data.chats.overview import Chat
from core.data.findings.checks import Checks
from core.data.findings.finding import Finding
from core.data.formats import Example, ReadRow, read_example_closely
from core.data.reading import part_rows
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.file_rows import DEFAULT_LIMITS, Limits, Problem, Row, Source
from core.data.reading.suffixes import FileKind
from core.data.sets.earliest import earliest
from core.data.sets.interpretation import CHECK_EVERY, interpret
from core.data.shapes.left_out import LeftOut, Tally
from core.data.shapes.plain import Turns, as_json, plain
from core.data.shapes.roles import Role, meaning_of
from core.data.shapes.sides import Decision
from core.errors import DataError
from core.messages import Message, msg
from core.progress import Check, go_on
from core.recipe import Format
from core.values import Frozen


class DataReport(Frozen):
    """The contents and problems of a data file, before anything is trained on it.

    rows = good_rows + rows with an error + rows whose answer is marked as bad. problems: in the order of rows, errors
    before warnings if there are more than the limit; problem_count counts them all. duplicates: good rows equal to an
    earlier one. validation: good rows that the set itself keeps for validation. left_out: values that nothing reads, in
    rows without an error. roles: what columns are used for, if their names are none of a format; guessed: contents
    decided them, not names or a person; undecided: nothing did, and a person has to choose one of readings (possible
    roles) before anything is trained. chat: how an exported chat is read. sheet: the sheet of a workbook that is read.
    findings: problems of the good rows as a whole. continued: good rows that continue the text of the row before.
    """

    format: Format
    kind: FileKind
    columns: tuple[str, ...]
    rows: int
    good_rows: int
    problems: tuple[Problem, ...]
    problem_count: int
    error_count: int
    duplicates: int
    sha256: str
    bytes: int
    encoding: str
    validation: int = 0
    continued: int = 0
    sheet: str = ""
    sheets: tuple[str, ...] = ()
    header: bool | None = None  # as Source has it
    notes: tuple[Message, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    roles: dict[str, Role] = {}
    guessed: bool = False
    undecided: bool = False
    readings: tuple[dict[str, Role], ...] = ()
    chat: Chat | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def possible(self) -> tuple[dict[str, Role], ...]:
        """Possible roles of the columns: all readings where a person may choose one; else the roles in use as the only
        one. () if the columns have the names of a known format."""
        return self.readings or ((self.roles,) if self.roles else ())

    def refusal(self, file: str) -> DataError:
        """Return the error of a file without a trainable row: it names the first problem of a row, or, if there is no
        error, says that all answers are marked as bad. file: its name."""
        problem = next((problem.sentence for problem in self.problems if problem.severity == "error"), None)
        if problem is None:
            return DataError("data.only_bad_answers", file=file, rows=self.rows)
        return DataError("data.no_good_rows", file=file, problem=problem)


def inspect_file(
    path: str | Path | Source,
    format: Format | None = None,
    limits: Limits = DEFAULT_LIMITS,
    choices: Choices = NO_CHOICES,
    keep: Callable[[ReadRow], None] = lambda counts: None,
    check: Check = go_on,
) -> DataReport:
    """Read a file once and report its contents and problems.

    keep: called with the result of each row, in order. check: called every CHECK_EVERY rows, and may raise to stop.
    Raises DataError if the file has no rows, no known shape, cannot be read, or changes while it is read.
    """
    source, chosen, decision, items = interpret(path, format, limits, choices, check)
    roles, evidence = decision.roles, decision.evidence
    chat = overview.read_as(source, check) if source.chat else None
    counts = _Counts(limits.problems, roles)
    for item in items:
        if counts.rows % CHECK_EVERY == 0:
            check(counts.rows)
        result = counts.broken(item) if isinstance(item, Problem) else counts.row(item, chosen, bool(choices.rated))
        if result is not None:
            keep(result)
    # Compared after the last row: a report of two states of a file would fit neither.
    for file, stamp in source.stamps:
        if files.stamp(file) != stamp:
            raise DataError("data.changed_meanwhile", file=file.name)
    assumed = [msg(f"data.note_{name}") for name in sorted(counts.tally.assumed)]
    chat_notes = [chat.note()] if chat else []
    origin = part_rows.origin_notes(source, counts.files, counts.apart, not counts.validation)
    style = [msg("data.note_style")] if chosen == "text" and not chat else []
    notes = (*source.notes, *assumed, *origin, *chat_notes, *style)
    return DataReport(
        format=chosen,
        **{
            name: getattr(source, name) for name in ("kind", "sha256", "bytes", "encoding", "sheet", "sheets", "header")
        },
        notes=(*notes, *_assumption_notes(source, decision, choices)),
        guessed=evidence == "content" or format is None and "turns" in counts.tally.assumed,
        undecided=evidence == "none",
        readings=tuple(map(dict, decision.readings)) if len(decision.readings) > 1 or evidence == "none" else (),
        roles=dict(roles),
        chat=chat,
        **counts.as_fields(),
    )


class _Counts:
    """Counts over the rows of a file, updated row by row while it is read."""

    def __init__(self, most: int, roles: Mapping[str, Role]):
        """Begin with zero rows. most: problems that are listed; roles: of the columns."""
        self._most, self._roles = most, roles
        self._problems, self._checks, self.tally = _Problems(most), Checks(), Tally()
        self._names: dict[str, None] = dict.fromkeys(roles)
        self._hashes, self._places = array("q"), array("i")  # of good rows: hashes; numbers and lines
        self._before: tuple[object, ...] = ()  # columns of the row before
        self.files: Counter[str] = Counter()
        self.apart: Counter[str] = Counter()  # good rows of each file that are for validation
        self.rows = 0
        self._continued = 0

    def broken(self, problem: Problem) -> ReadRow | None:
        """Count a problem that a reader gave in place of a row, and return that row's result. A problem of the file
        itself (row 0) is counted as a problem but not as a row, and gives None."""
        self.rows += problem.row > 0
        self._problems.note(problem)
        return ReadRow(problem.row, problem.line, None, None, (problem,)) if problem.row else None

    def row(self, row: Row, format: Format, rated: bool) -> ReadRow:
        """Convert a row, count it with its columns, file, problems and findings, and return its result. rated: an
        answer marked as bad is an example too."""
        self.rows += 1
        # Most files repeat the same columns in every row.
        if (names := tuple(row.values)) != self._before:
            self._names.update(dict.fromkeys(name for name in map(str, names) if name not in self._roles.values()))
            self._before = names
        self.files[row.file] += 1
        stored, turns, example, problems = _convert(row, row.format or format, self.tally, rated)
        for problem in problems:
            self._problems.note(problem)
        if stored is not None:
            self._hashes.append(hash(stored))
            if self._checks.is_next():
                self._checks.add(row.number, example or Example.from_turns(turns or []))
            self._places.extend((row.number, row.line or 0))
            if row.validation:
                self.apart[row.file] += 1
        self._continued += row.joint is not None and stored is not None
        return ReadRow(row.number, row.line, stored, row.values, problems, row.validation, row.joint, row.page)

    @property
    def validation(self) -> int:
        """Number of the set's own validation rows; 0 if there would be no others, which are then trained."""
        count = self.apart.total()
        return 0 if count == len(self._hashes) else count

    def as_fields(self) -> dict[str, Any]:
        """Return the counts as fields of a DataReport."""
        repeats, duplicates = repeated(self._hashes, self._places, self._most)
        return {
            "columns": tuple(self._names)[:100],
            "rows": self.rows,
            "good_rows": len(self._hashes),
            "problems": self._problems.listed(repeats),
            "problem_count": sum(self._problems.counts.values()) + duplicates,
            "error_count": self._problems.counts["error"],
            "duplicates": duplicates,
            "validation": self.validation,
            "continued": self._continued,
            "left_out": self.tally.summary(),
            "findings": self._checks.findings(),
        }


def taken_as(roles: Mapping[str, Role]) -> list[Message]:
    """Return what each column is used for, one sentence each."""
    return [msg("data.column_as", column=name, role=msg(f"data.role_{role}")) for name, role in roles.items()]


_DOUBTS = ("data.no_prose", "data.two_ways", "data.files_as_classes", "data.code_of_data", "data.note_code_beside_data")


def undecided_error(report: DataReport) -> DataError:
    """Return the error that asks a person to choose columns, for a dataset of which nothing shows which column is
    the answer: it names the columns that may be. For a text that may be no running text it says why and names the
    column."""
    # A note on one file of several has another inside.
    doubts = [n for n in report.notes if any(key in n.model_dump_json() for key in _DOUBTS)]
    if len(report.readings) == 1 and doubts:
        return DataError("data.which_text", why=doubts[-1], column=next(iter(report.readings[0])))
    columns = [name for roles in report.readings for name, role in roles.items() if role == "answer"]
    return DataError("data.which_answer", columns=list(dict.fromkeys(columns)))


def _assumption_notes(source: Source, decision: Decision, choices: Choices) -> list[Message]:
    """Return notes on how a file's columns are used and why (by names, by contents, or chosen), on a question column
    without answers, and on a header that was assumed although that was in doubt."""
    header = choices.header is None and any(part.header for part in source.parts or (source,))
    roles = decision.roles
    taken = taken_as({name: role for name, role in roles.items() if role != "ignore"})
    key = {"names": "data.note_by_names", "content": "data.note_guessed", "chosen": "data.note_chosen"}.get(
        decision.evidence
    )
    roles_note = [msg(key, taken=taken)] if taken and key else []
    texts = [name for name, role in roles.items() if role == "text"]
    question = next((name for name in texts if meaning_of(name) == "question"), None)
    if question and len(decision.readings) == 1 and decision.evidence in ("content", "none"):
        roles_note.append(msg("data.note_no_answers", column=question))
    return [*roles_note, *([msg("data.note_header_unsaid")] if header else [])]


def _convert(
    row: Row, format: Format, tally: Tally, rated: bool
) -> tuple[str | None, Turns | None, Example | None, list[Problem]]:
    """Return (the example's JSON, its turns, the example, problems) of a row, and add what was left out to tally.

    A row in the usual shape gives its turns and no example, without problems; any other gives None for the turns. JSON
    and example are None if the row cannot be trained. rated: True keeps an answer that is marked as bad.
    """
    if turns := plain(row.values, format):  # most rows; no Example object is needed for them
        if row.omissions:
            tally.add_each(row.omissions)
        return as_json(turns), turns, None, []
    example, problems = read_example_closely(row, format, tally, rated)
    return example.as_json() if example else None, None, example, problems


class _Problems:
    """Counts of a file's problems, with the first `most` of each severity. If not all can be listed, errors are kept
    rather than warnings."""

    def __init__(self, most: int):
        self._most, self.counts = most, {"error": 0, "warning": 0}
        self._first: dict[str, list[Problem]] = {"error": [], "warning": []}

    def note(self, problem: Problem) -> None:
        """Count a problem, and keep it if it is among the first."""
        self.counts[problem.severity] += 1
        if len(self._first[problem.severity]) < self._most:
            self._first[problem.severity].append(problem)

    def listed(self, warnings: list[Problem]) -> tuple[Problem, ...]:
        """Return at most `most` problems in the order of rows: all kept errors, then as many of the first warnings as
        still fit.

        warnings: further ones, which only all rows together show.
        """
        errors = self._first["error"]
        warned = sorted(self._first["warning"] + warnings, key=lambda problem: problem.row)[: self._most - len(errors)]
        return tuple(sorted(errors + warned, key=lambda problem: problem.row))


def repeated(hashes: array[int], places: array[int], most: int) -> tuple[list[Problem], int]:
    """Return a warning for each of the first `most` rows that repeat an earlier one, and the number of all of them.
    places: number and line (0: none) of each row in turn."""
    first = earliest(np.frombuffer(hashes, np.int64))
    later = np.flatnonzero(first != np.arange(len(first), dtype=np.int32))
    return [
        Problem(row=places[2 * i], line=places[2 * i + 1] or None, text=msg("data.duplicate",
            first=places[2 * first[i]]), severity="warning")
        for i in map(int, later[:most])
    ], len(later)  # fmt: skip
