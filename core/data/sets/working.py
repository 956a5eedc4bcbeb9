"""Work on a dataset: search, edit and repair rows, export, join and split. No torch."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data.findings.finding import Repair
from core.data.findings.look import findings
from core.data.findings.repairs import repaired
from core.data.formats import Example, check
from core.data.large import dataset_process
from core.data.reading.file_rows import Row
from core.data.sets.edits import Change, what
from core.data.sets.info import DatasetInfo
from core.data.sets.inspection import CHECK_EVERY
from core.data.sets.stored_rows import Rows, problem_of
from core.data.shapes.known import recognise
from core.data.shapes.tools import as_json
from core.data.store import DatasetStore
from core.errors import DataError
from core.messages import Message, msg
from core.progress import Check, go_on
from core.workspace.names import short_id

LOOKED_AT = 200_000  # rows that a search goes through before it answers with what it has


@dataclass(frozen=True)
class ShownRow:
    """One row of a table. example: None where the row cannot be learned from, and problem says why; values: its columns
    then."""

    number: int
    example: Example | None
    values: dict[str, Any] | None = None
    problem: Message | None = None


@dataclass(frozen=True)
class Page:
    """next: where the rows after these begin, None at the end of the set."""

    rows: list[ShownRow]
    next: int | None


def page(rows: Rows, begin: int = 0, count: int = 50, words: str = "") -> Page:
    """Rows that can be learned from, from the one at `begin` on, those with `words` in them where some are given. Never
    more than a page is held."""
    found: list[ShownRow] = []
    for position in range(max(0, begin), len(rows)):
        if len(found) == count or position - begin >= LOOKED_AT:
            return Page(found, position)
        found += with_words(words, rows, position)
    return Page(found, None)


def with_words(words: str, rows: Rows, position: int) -> list[ShownRow]:
    """The row at `position`, or none where it lacks the words. Most rows without them are told by their JSON, where
    only what words do not begin or end with is escaped."""
    sought = words.casefold()
    if sought and "\n" not in sought and as_json(sought)[1:-1] not in rows.as_json(position).casefold():
        return []
    number, example = rows[position]
    return [ShownRow(number, example)] if sought in text_of(example).casefold() else []


def problems(rows: Rows, begin: int = 0, count: int = 50) -> Page:
    """Rows of the file that cannot be learned from, each with its reason. begin: among all rows of the file."""
    flawed = rows.flawed
    places = flawed[np.searchsorted(flawed, begin) :][: count + 1].tolist()
    found = [unusable(rows, place) for place in places[:count]]
    return Page(found, places[count] if len(places) > count else None)


def unusable(rows: Rows, place: int) -> ShownRow:
    """A row that cannot be learned from, by its position among all rows of the file (Rows.flawed)."""
    entry = rows.entry(place)
    problem = problem_of(entry["problem"])
    values = json.loads(entry["values"]) if entry["values"] else None
    return ShownRow(entry["row"], None, values, problem.text if problem else None)


def row_of(rows: Rows, number: int) -> ShownRow:
    """A row by its number, also one that cannot be learned from. Raises DataError where the set has it no more."""
    for place in (rows.numbers() == number).nonzero()[0][:1].tolist():
        return ShownRow(number, rows[place][1])
    for place in rows.flawed[rows.flawed_numbers() == number][:1].tolist():
        return unusable(rows, place)
    raise DataError("sets.no_such_row", row=number, rows=len(rows))


def text_of(example: Example) -> str:
    said = [part for message in example.messages for part in (message.content, message.reasoning)]
    return "\n".join([*said, *(part for part in (example.prompt, example.completion, example.text) if part)])


def example_of(values: Any) -> Example:
    """A row that somebody wrote, in any shape that a file may have. Raises DataError with what is wrong with it."""
    if not isinstance(values, dict):
        raise DataError("sets.no_object")
    row = Row(1, values)
    example, found = check(row, recognise([row]))
    if example is None:
        raise DataError("sets.bad_row", problem=found[0].text if found else "")
    return example


def changed(
    store: DatasetStore,
    id: str,
    remove: Iterable[int] = (),
    change: Iterable[tuple[int, Any]] = (),
    add: Iterable[Any] = (),
) -> Change:
    """A new version of a set. change, add: rows as somebody writes them. Raises DataError, with nothing changed."""
    gone, new = list(remove), [example_of(values) for values in add]
    other = [(row, example_of(values)) for row, values in change]
    with store.editing(id) as (edits, base):
        return edits.change(what(len(gone), len(other), len(new)), base, gone, other, new)


def mended(
    store: DatasetStore, id: str, kind: str, value: str = "", argument: str = "", action: str = "", check: Check = go_on
) -> Change:
    """A new version without a kind of problem, in every row. value: what fills a placeholder. argument, action: of
    which of the kind's repairs (Repair), "" for the first that there is. Raises DataError where there is none of that
    kind.

    Of a large set in a process of its own. check: called often.
    """
    if dataset_process.is_needed(rows=len(store.rows(id))):
        version = dataset_process.run(store.path(id), "mend", kind, value, argument, action, check=check)
        return store.edits(id).changes[version]
    with store.editing(id) as (edits, base):
        now = edits.rows(base)
        repair = _repair(now, kind, argument, action, check)
        if repair.action == "remove":
            return edits.change(repair.done, base, remove=repair.rows)
        wanted = np.flatnonzero(np.isin(now.numbers(), np.array(repair.rows, np.int64)))
        new = ((number, repaired(example, repair, value)) for number, example in map(now.__getitem__, wanted.tolist()))
        return edits.change(
            repair.done, base, change=((number, example) for number, example in new if example is not None)
        )


def _repair(rows: Rows, kind: str, argument: str, action: str, check: Check) -> Repair:
    found = {finding.id: finding for finding in findings(_told(rows, check), kind)}
    offered = found[kind].repairs if kind in found else ()
    repairs = [each for each in offered if argument in ("", each.argument) and action in ("", each.action)]
    if not repairs:
        found = {finding.id: finding for finding in findings(_told(rows, check))}
        mendable = [finding.id for finding in found.values() if finding.repairs]
        raise DataError("sets.no_such_problem", kind=kind, found=mendable or ["–"])
    return repairs[0]


def _told(rows: Rows, check: Check) -> Iterator[tuple[int, Example]]:
    for count, row in enumerate(rows):
        if count % CHECK_EVERY == 0:
            check(count)
        yield row


def write(rows: Iterable[tuple[int, Example]], target: Path) -> int:
    """As JSONL that any trainer reads, whole or not at all; how many rows. Raises OSError."""
    aside = target.with_name(f".{target.name}.part")
    count = 0
    try:
        with open(aside, "w", encoding="utf-8", newline="\n") as file:
            for _, example in rows:
                file.write(json.dumps(example.as_dict(), ensure_ascii=False) + "\n")
                count += 1
        files.rename(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return count


def joined(store: DatasetStore, ids: Iterable[str], name: str, folder: Path) -> DatasetInfo:
    """One new set of the rows of several, one after the other. folder: where its file is written first.

    Raises DataError where they are of several kinds: of one file the rows of one kind alone can be read again.
    """
    return _added(store, (row for id in ids for row in store.rows(id)), name, folder)


def split(
    store: DatasetStore, id: str, part: float, seed: int, names: tuple[str, str], folder: Path
) -> tuple[DatasetInfo, DatasetInfo]:
    """Two new sets, the second of rows that the seed decides. part: of the rows, where it is a float; an int says how
    many.

    Raises DataError where one would be empty.
    """
    rows = store.rows(id)
    count = round(part * len(rows)) if isinstance(part, float) else part
    if not 0 < count < len(rows):
        raise DataError("sets.empty_part", rows=len(rows), count=count)
    held = set(random.Random(seed).sample(range(len(rows)), count))
    parts: tuple[Callable[[int], bool], ...] = (lambda i: i not in held, lambda i: i in held)

    def of(takes: Callable[[int], bool]) -> Iterator[tuple[int, Example]]:
        return (rows[i] for i in range(len(rows)) if takes(i))

    first, second = (_added(store, of(takes), name, folder) for takes, name in zip(parts, names, strict=True))
    return first, second


def _added(store: DatasetStore, rows: Iterable[tuple[int, Example]], name: str, folder: Path) -> DatasetInfo:
    file = folder / f"{short_id()}.jsonl"  # a name may hold what no file's may, or be too long for one
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(_of_one_kind(rows), file)
        return store.import_file(file, name or "set")
    except OSError as error:
        raise DataError("data.cannot_store", name=name, reason=error.strerror or str(error)) from error
    finally:
        with suppress(OSError):
            file.unlink()


def _of_one_kind(rows: Iterable[tuple[int, Example]]) -> Iterator[tuple[int, Example]]:
    first = ""
    for row in rows:
        kind = "text" if row[1].text is not None else "messages" if row[1].messages else "prompt"
        first = first or kind
        if kind != first:
            raise DataError("sets.several_kinds", first=msg(f"sets.kind_{first}"), second=msg(f"sets.kind_{kind}"))
        yield row
