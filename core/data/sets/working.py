"""Operations on the rows of a dataset: search, edit, repair, export, join and split. No torch."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data.findings.checks import findings
from core.data.findings.finding import Repair
from core.data.findings.repairs import repaired
from core.data.formats import Example, read_example
from core.data.large import dataset_process
from core.data.reading import zips
from core.data.reading.file_rows import Row
from core.data.sets.edits import Change, describe_change
from core.data.sets.info import DatasetInfo
from core.data.sets.inspection import undecided_error
from core.data.sets.interpretation import CHECK_EVERY
from core.data.sets.stored_rows import Rows, problem_of
from core.data.shapes.known import recognize_format
from core.data.shapes.tools import as_json
from core.data.store import DatasetStore
from core.data.validation_split import own_validation
from core.errors import DataError
from core.messages import Message, msg
from core.progress import Check, go_on
from core.workspace.names import short_id

LOOKED_AT = 200_000  # rows that one search goes through at most


@dataclass(frozen=True)
class ShownRow:
    """One row of a table. example: None if the row cannot be trained; then problem has the reason, and values its
    columns."""

    number: int
    example: Example | None
    values: dict[str, Any] | None = None
    problem: Message | None = None


@dataclass(frozen=True)
class Page:
    """Some rows of a dataset. next: position of the first row after them, None at the end of the dataset."""

    rows: list[ShownRow]
    next: int | None


def page(rows: Rows, begin: int = 0, count: int = 50, words: str = "") -> Page:
    """Return at most `count` trainable rows from position `begin` on, and the position at which the next page begins
    (None at the end of the dataset).

    words: only rows that have this phrase in a text, in any case; "" takes all. One call searches at most LOOKED_AT
    rows, so a page may be short, or empty, before the end.
    """
    shown: list[ShownRow] = []
    for position in range(max(0, begin), len(rows)):
        if len(shown) == count or position - begin >= LOOKED_AT:
            return Page(shown, position)
        shown += with_words(words, rows, position)
    return Page(shown, None)


def with_words(words: str, rows: Rows, position: int) -> list[ShownRow]:
    """Return [the row at `position`], or [] if it lacks the words as one phrase, in any case. Most rows without them
    are rejected by their JSON text, in which the words are only escaped, not split."""
    sought = words.casefold()
    if sought and "\n" not in sought and as_json(sought)[1:-1] not in rows.as_json(position).casefold():
        return []
    number, example = rows[position]
    return [ShownRow(number, example)] if sought in text_of(example).casefold() else []


def problems(rows: Rows, begin: int = 0, count: int = 50) -> Page:
    """Return at most `count` rows of the file that cannot be trained, each with its reason, and where the next page
    begins. begin: position among all rows of the file."""
    flawed = rows.flawed
    places = flawed[np.searchsorted(flawed, begin) :][: count + 1].tolist()
    return Page([flawed_row(rows, place) for place in places[:count]], places[count] if len(places) > count else None)


def flawed_row(rows: Rows, place: int) -> ShownRow:
    """Return a row that cannot be trained, to be shown: its number, its columns as they were read (None if not kept),
    and why it cannot be trained (None for an answer that is marked as bad). place: its position among all rows of the
    file, trainable or not, from 0."""
    entry = rows.entry(place)
    problem = problem_of(entry["problem"])
    values = json.loads(entry["values"]) if entry["values"] else None
    return ShownRow(entry["row"], None, values, problem.text if problem else None)


def row_of(rows: Rows, number: int) -> ShownRow:
    """Return a row by its number, also one that cannot be trained. Raises DataError if the dataset does not have it."""
    for place in (rows.numbers() == number).nonzero()[0][:1].tolist():
        return ShownRow(number, rows[place][1])
    for place in rows.flawed[rows.flawed_numbers() == number][:1].tolist():
        return flawed_row(rows, place)
    raise DataError("sets.no_such_row", row=number, rows=len(rows))


def text_of(example: Example) -> str:
    """Return the texts of an example joined by line breaks: of messages their contents and thinking, else prompt and
    completion, or the text. Tool calls and a worse answer are left out."""
    texts = [part for message in example.messages for part in (message.content, message.reasoning)]
    return "\n".join([*texts, *(part for part in (example.prompt, example.completion, example.text) if part)])


def example_of(values: object) -> Example:
    """Return the example of a row that a person wrote, in any shape that a file may have. Raises DataError with its
    problem."""
    if not isinstance(values, dict):
        raise DataError("sets.no_object")
    row = Row(1, values)
    example, row_problems = read_example(row, recognize_format([row]))
    if example is None:
        raise DataError("sets.bad_row", problem=row_problems[0].text if row_problems else "")
    return example


def edit_rows(
    store: DatasetStore,
    id: str,
    remove: Iterable[int] = (),
    change: Iterable[tuple[int, object]] = (),
    add: Iterable[object] = (),
) -> Change:
    """Store a new version of a dataset and return its change. remove, change: by row numbers; change, add: rows as a
    person writes them. Raises DataError, with nothing changed."""
    removed, added = list(remove), [example_of(values) for values in add]
    rewritten = [(row, example_of(values)) for row, values in change]
    with store.editing(id) as (edits, base):
        return edits.change(describe_change(len(removed), len(rewritten), len(added)), base, removed, rewritten, added)


def repair_rows(
    store: DatasetStore, id: str, kind: str, value: str = "", argument: str = "", action: str = "", check: Check = go_on
) -> Change:
    """Store a new version of a dataset in which all problems of one kind are repaired, in every row that has it, and
    return its change.

    kind: id of a finding. value: what to fill in for a placeholder. argument, action: select one of the finding's
    repairs; "" for the first. check: called often, and may raise. Raises DataError if the dataset has no such problem
    that can be repaired. A large dataset is repaired in a separate process.
    """
    if dataset_process.is_needed(rows=len(store.rows(id))):
        version = dataset_process.run(store.path(id), "mend", kind, value, argument, action, check=check)
        return store.edits(id).changes[version]
    with store.editing(id) as (edits, base):
        rows = edits.rows(base)
        repair = _repair(rows, kind, argument, action, check)
        if repair.action == "remove":
            return edits.change(repair.done, base, remove=repair.rows)
        # One row at a time: a repair of every row of a large dataset never has all of them in memory.
        positions = np.flatnonzero(np.isin(rows.numbers(), np.array(repair.rows, np.int64)))
        changes = (
            (number, repaired(example, repair, value)) for number, example in map(rows.__getitem__, positions.tolist())
        )
        return edits.change(
            repair.done, base, change=((number, example) for number, example in changes if example is not None)
        )


def _repair(rows: Rows, kind: str, argument: str, action: str, check: Check) -> Repair:
    """Return the first repair of a kind of problem that fits argument and action, with all its rows. Raises DataError
    with the kinds that can be repaired."""
    by_kind = {finding.id: finding for finding in findings(_checked_rows(rows, check), kind)}
    offered = by_kind[kind].repairs if kind in by_kind else ()
    repairs = [each for each in offered if argument in ("", each.argument) and action in ("", each.action)]
    if not repairs:
        by_kind = {finding.id: finding for finding in findings(_checked_rows(rows, check))}
        mendable = [finding.id for finding in by_kind.values() if finding.repairs]
        raise DataError("sets.no_such_problem", kind=kind, found=mendable or ["–"])
    return repairs[0]


def _checked_rows(rows: Rows, check: Check) -> Iterator[tuple[int, Example]]:
    """Yield the rows, calling check with their number so far, which may raise."""
    for count, row in enumerate(rows):
        if count % CHECK_EVERY == 0:
            check(count)
        yield row


def write(rows: Iterable[tuple[int, Example]], target: Path) -> int:
    """Write rows as JSONL that any trainer reads, complete or not at all, over a file of that name; return their
    number. Raises OSError."""
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


def join(store: DatasetStore, ids: Iterable[str], name: str, folder: Path) -> DatasetInfo:
    """Add one new dataset with the rows of several, one after the other, and return it. folder: for its temporary file.
    Raises DataError if they are of several kinds: a file is read as rows of one kind; or as `_decided_rows`."""
    every = [_decided_rows(store, id) for id in ids]
    return _added(store, [(rows, range(len(rows))) for rows in every], name, folder)


def split(
    store: DatasetStore, id: str, part: float, seed: int, names: tuple[str, str], folder: Path
) -> tuple[DatasetInfo, DatasetInfo]:
    """Add two new datasets with the rows of one in their order, the second with those chosen at random by the seed.
    part: share of the rows if it is a float, their number if it is an int. Raises DataError if one would be empty; or
    as `_decided_rows`."""
    rows = _decided_rows(store, id)
    count = round(part * len(rows)) if isinstance(part, float) else part
    if not 0 < count < len(rows):
        raise DataError("sets.empty_part", rows=len(rows), count=count)
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    first, second = (
        _added(store, [(rows, [i for i in range(len(rows)) if (i in chosen) == is_second])], name, folder)
        for is_second, name in zip((False, True), names, strict=True)
    )
    return first, second


def _decided_rows(store: DatasetStore, id: str) -> Rows:
    """Return the rows of a dataset to copy. Raises DataError if nothing shows which column is the answer: the copy
    would be conversations, of which nobody could tell any more."""
    report = store.report(id)
    if report.undecided:
        raise undecided_error(report)
    return store.rows(id)


def _added(store: DatasetStore, sources: Sequence[tuple[Rows, Iterable[int]]], name: str, folder: Path) -> DatasetInfo:
    """Add the rows at these positions of datasets as one, and return it. Their own validation rows stay such: a file of
    their own. Temporary files in folder are removed. Raises DataError."""
    own = [own_validation(rows) for rows, _ in sources]
    kinds = (False, True) if any(apart is not None for apart in own) else (False,)
    paths = [folder / f"{short_id()}.jsonl" for _ in kinds]  # the dataset's name may not be a valid file name
    archive = paths[0].with_suffix(".zip")

    def rows_with_split(is_validation: bool) -> Iterator[tuple[int, Example]]:
        """Yield the chosen rows of all sources in their order: only the sets' own validation rows, or only the
        others."""
        for (rows, positions), apart in zip(sources, own, strict=True):
            for i in positions:
                if (apart is not None and bool(apart[i])) == is_validation:
                    yield rows[i]

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, is_validation in zip(paths, kinds, strict=True):
            write(_of_one_kind(rows_with_split(is_validation)), file)
        if len(paths) == 1:
            return store.import_file(paths[0], name or "set")
        zips.pack([("train.jsonl", paths[0]), ("validation.jsonl", paths[1])], archive)
        return store.import_file(archive, name or "set")
    except OSError as error:
        raise DataError("data.cannot_store", name=name, reason=error.strerror or str(error)) from error
    finally:
        for file in (*paths, archive):
            with suppress(OSError):
                file.unlink()


def _of_one_kind(rows: Iterable[tuple[int, Example]]) -> Iterator[tuple[int, Example]]:
    """Yield the rows; raise DataError at one of another kind (text, messages, prompt) than the first."""
    first = ""
    for row in rows:
        kind = "text" if row[1].text is not None else "messages" if row[1].messages else "prompt"
        first = first or kind
        if kind != first:
            raise DataError("sets.several_kinds", first=msg(f"sets.kind_{first}"), second=msg(f"sets.kind_{kind}"))
        yield row
