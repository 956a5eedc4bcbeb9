"""Inspects a data file before training: reads it once, row by row, with its problems and what is left out.

`inspect_file` gives the report of a file, and tells whoever keeps the rows what became of each; `examples_of` gives
what can be learned from. What a row means is core/data/formats's matter. Cost: 1.7 to 2.7 s for 100,000 rows (43 MB; 2
cores shared with others, 2026-11-25), and what core/data/findings says of its look at them.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.data.chats import overview
from core.data.chats.overview import Chat
from core.data.findings.finding import Finding
from core.data.findings.look import Look
from core.data.formats import Example, ReadRow, check_closely
from core.data.reading import several, sniff
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.file_rows import DEFAULT_LIMITS, FileKind, Limits, Problem, Row, Source
from core.data.reading.reader import read_rows
from core.data.sets.earliest import earliest
from core.data.shapes.known import FORMATS, SAMPLE_ROWS, recognise
from core.data.shapes.left_out import LeftOut, Tally
from core.data.shapes.plain import Turns, as_json, plain
from core.data.shapes.roles import Role, guess, renamed, require
from core.errors import DataError
from core.messages import Message, msg
from core.progress import Check, go_on
from core.recipe import Format
from core.values import Frozen

CHECK_EVERY = 20  # rows, of up to 4 MiB


class DataReport(Frozen):
    """All that was found in a data file before anything is trained on it.

    rows = good_rows + rows with an error + rows whose answer is marked as a bad one. problems: errors before warnings
    where there are more than the limit, in the order of rows; problem_count counts them all. duplicates: good rows that
    say exactly what an earlier row says. left_out: what nothing reads in rows without an error. roles: what columns
    were taken for, where their names are none of a format; guessed: nobody said so. chat: how an exported chat is read.
    sheet: of a workbook's sheets the one that is read. findings: what is wrong with the good rows as a set.
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
    sheet: str = ""
    sheets: tuple[str, ...] = ()
    header: bool | None = None  # as Source has it
    notes: tuple[Message, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    roles: dict[str, Role] = {}
    guessed: bool = False
    chat: Chat | None = None
    findings: tuple[Finding, ...] = ()

    def refusal(self, file: str) -> DataError:
        """Why no row can be learned from."""
        problem = next((problem.sentence for problem in self.problems if problem.severity == "error"), None)
        if problem is None:
            return DataError("data.only_bad_answers", file=file, rows=self.rows)
        return DataError("data.no_good_rows", file=file, problem=problem)


_OF_SOURCE = ("kind", "sha256", "bytes", "encoding", "sheet", "sheets", "header")


def examples_of(
    path: str | Path | Source, format: Format | None = None, choices: Choices = NO_CHOICES
) -> Iterator[tuple[int, Example]]:
    """(row number, example) of every row that can be learned from; what cannot is passed over. Raises DataError where
    the file cannot be read, or no row was good."""
    kept: list[tuple[int, str]] = []
    report = inspect_file(path, format, choices=choices, keep=lambda read: kept.extend(read.good()))
    if not kept:
        raise report.refusal(Path(path).name if not isinstance(path, Source) else path.path.name)
    return ((number, Example.from_dict(json.loads(said))) for number, said in kept)


def inspect_file(
    path: str | Path | Source,
    format: Format | None = None,
    limits: Limits = DEFAULT_LIMITS,
    choices: Choices = NO_CHOICES,
    keep: Callable[[ReadRow], None] = lambda read: None,
    check: Check = go_on,
) -> DataReport:
    """ReadRow all of a file, once, and say what is in it and what is wrong with it.

    keep: is told what became of each row, in order. check: called each CHECK_EVERY rows, and may raise to end it.
    Raises DataError where nothing can be said by row: it cannot be read, has no rows, or no known shape.
    """
    source, chosen, roles, items = _start(path, format, limits, choices, check)
    chat = overview.read_as(source, check) if source.chat else None
    read = _Counts(limits.problems, roles)
    for item in items:
        if read.rows % CHECK_EVERY == 0:
            check(read.rows)
        became = read.broken(item) if isinstance(item, Problem) else read.row(item, chosen, bool(choices.rated))
        if became is not None:
            keep(became)
    assumed = [msg(f"data.note_{name}") for name in sorted(read.left.assumed)]
    of_chat = [chat.note()] if chat else []
    notes = (*source.notes, *assumed, *several.of_files(source, read.files), *of_chat)
    return DataReport(
        format=chosen,
        **{
            name: getattr(source, name) for name in ("kind", "sha256", "bytes", "encoding", "sheet", "sheets", "header")
        },
        notes=(*notes, *_unsaid(source, roles, choices)),
        guessed=bool(roles) and not choices.columns,
        roles=dict(roles),
        chat=chat,
        **read.found(),
    )


class _Counts:
    """Counts over the rows of a file, updated row by row while it is read."""

    def __init__(self, most: int, roles: Mapping[str, Role]):
        self._most, self._roles = most, roles
        self._problems, self._look, self.left = _Problems(most), Look(), Tally()
        self._names: dict[str, None] = dict.fromkeys(roles)
        self._hashes, self._places = array("q"), array("i")  # of good rows; their numbers and lines
        self._before: tuple[Any, ...] = ()  # the names of the row before
        self.files: Counter[str] = Counter()
        self.rows = 0

    def broken(self, problem: Problem) -> ReadRow | None:
        """A row that cannot be read; None for a problem of the file as a whole."""
        self.rows += problem.row > 0
        self._problems.note(problem)
        return ReadRow(problem.row, problem.line, None, None, (problem,)) if problem.row else None

    def row(self, row: Row, format: Format, rated: bool) -> ReadRow:
        self.rows += 1
        if (given := tuple(row.values)) != self._before:
            self._names.update(dict.fromkeys(name for name in map(str, given) if name not in self._roles.values()))
            self._before = given
        self.files[row.file] += 1
        stored, turns, example, problems = _became(row, row.format or format, self.left, rated)
        for problem in problems:
            self._problems.note(problem)
        if stored is not None:
            self._hashes.append(hash(stored))
            if self._look.is_next():
                self._look.add(row.number, example or Example.from_turns(turns or []))
            self._places.extend((row.number, row.line or 0))
        return ReadRow(row.number, row.line, stored, row.values, problems)

    def found(self) -> dict[str, Any]:
        """The counts as fields of a DataReport."""
        again, duplicates = repeated(self._hashes, self._places, self._most)
        return {
            "columns": tuple(self._names)[:100],
            "rows": self.rows,
            "good_rows": len(self._hashes),
            "problems": self._problems.listed(again),
            "problem_count": sum(self._problems.counts.values()) + duplicates,
            "error_count": self._problems.counts["error"],
            "duplicates": duplicates,
            "left_out": self.left.said(),
            "findings": self._look.found(),
        }


def _unsaid(source: Source, roles: Mapping[str, Role], choices: Choices) -> list[Message]:
    """What was taken as it looks, because nobody said it."""
    header = source.header and choices.header is None
    return [*([] if choices.columns else _guessed(roles)), *([msg("data.note_header_unsaid")] if header else [])]


def _became(
    row: Row, format: Format, left: Tally, rated: bool
) -> tuple[str | None, Turns | None, Example | None, list[Problem]]:
    """What is kept of a row, None where it cannot be learned from; its turns, or the example that was made of it; its
    problems."""
    if turns := plain(row.values, format):  # most rows: no more is made of one than is needed
        if row.left:
            left.add_each(row.left)
        return as_json(turns), turns, None, []
    example, problems = check_closely(row, format, left, rated)
    return example.as_json() if example else None, None, example, problems


class _Problems:
    """Of a file, counted; the first of each severity listed, errors before warnings where there are more than
    `most`."""

    def __init__(self, most: int):
        self._most, self.counts = most, {"error": 0, "warning": 0}
        self._first: dict[str, list[Problem]] = {"error": [], "warning": []}

    def note(self, problem: Problem) -> None:
        self.counts[problem.severity] += 1
        if len(self._first[problem.severity]) < self._most:
            self._first[problem.severity].append(problem)

    def listed(self, warnings: list[Problem]) -> tuple[Problem, ...]:
        """In the order of rows, with warnings that were found after all rows had been read."""
        errors = self._first["error"]
        warned = sorted(self._first["warning"] + warnings, key=lambda problem: problem.row)[: self._most - len(errors)]
        return tuple(sorted(errors + warned, key=lambda problem: problem.row))


def _start(
    path: str | Path | Source,
    format: Format | None,
    limits: Limits,
    choices: Choices,
    check: Callable[[], None] = lambda: None,
) -> tuple[Source, Format, dict[str, Role], Iterator[Row | Problem]]:
    """The file, its format, what its columns are taken for where no format has their names, and all its rows."""
    if format is not None and format not in FORMATS:
        raise DataError("data.no_such_format", found=str(format)[:60], expected=list(FORMATS))
    source = path if isinstance(path, Source) else sniff.probe(path, limits, choices, check)
    if source.chat:
        source = replace(source, choices=choices)
        return source, "messages", {}, read_rows(source, limits)
    if source.parts:
        return several.start_each(source, lambda part: _start(part, format, limits, choices, check), limits)
    if choices.voice:
        raise DataError("data.not_a_chat", file=source.path.name, voice=choices.voice[:80])
    # ReadRow from the beginning again afterwards: a file may have a million broken rows before its first good one.
    rows: list[Row] = []
    problem: Problem | None = None
    for number, item in enumerate(read_rows(source, limits)):
        if number % CHECK_EVERY == 0:
            check()
        if isinstance(item, Row):
            rows.append(item)
        elif problem is None and item.severity == "error":
            problem = item
        if len(rows) == (SAMPLE_ROWS if format is None or choices.columns else 1):
            break
    if not rows:
        raise _nothing(source, problem)
    if choices.columns:
        require(choices.columns, rows)
        roles = dict(choices.columns)
    elif format is not None:
        return source, format, {}, read_rows(source, limits)
    else:
        try:
            return source, recognise(rows), {}, read_rows(source, limits)
        except DataError as error:
            guessed = guess(rows) if error.message.key == "data.unknown_format" else None
            if guessed is None:
                raise
            roles = guessed
    chosen: Format = "text" if "text" in roles.values() else "question_answer"
    return (
        source,
        chosen,
        roles,
        (renamed(item, roles) if isinstance(item, Row) else item for item in read_rows(source, limits)),
    )


def repeated(hashes: array[int], places: array[int], most: int) -> tuple[list[Problem], int]:
    """The first rows that say what an earlier one says, and how many there are."""
    first = earliest(np.frombuffer(hashes, np.int64))
    later = np.flatnonzero(first != np.arange(len(first), dtype=np.int32))
    return [
        Problem(row=places[2 * i], line=places[2 * i + 1] or None, text=msg("data.duplicate",
            first=places[2 * first[i]]), severity="warning")
        for i in map(int, later[:most])
    ], len(later)  # fmt: skip


def _guessed(roles: Mapping[str, Role]) -> list[Message]:
    taken = [msg("data.column_as", column=name, role=msg(f"data.role_{role}")) for name, role in roles.items()]
    return [msg("data.note_guessed", taken=taken)] if taken else []


def _nothing(source: Source, problem: Problem | None) -> DataError:
    if problem is None:
        return DataError("data.no_rows", file=source.path.name)
    return DataError("data.no_good_rows", file=source.path.name, problem=problem.sentence)
