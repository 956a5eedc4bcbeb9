"""Versions of a set: what was changed, one line a change, over rows that stay as they were read. No torch.

edits-<reading>.jsonl    one line a change: {version, parent, time, what, remove: [row], change: [[row, written]], add: [written]}; or, where
                         somebody went back or forth, {head}. The last line says which version the set is at. Version 0 is the file.
written-<reading>.jsonl  one line a row that somebody wrote: {row, example}; a change names them by their number, from 0

A row is named by its number in the file, whatever it says by now; one that was added by a number behind those of the file. Written rows are in
place before the change that names them, so a crash leaves at most rows that nobody names. Who writes holds edits.lock (core/data/store). A version
costs no copy: a run finds the one that it learned from for as long as the set is here. While it is open, which row says what is mapped from files
without a name, 24 bytes a row; of memory it holds 8 bytes for each row that somebody wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data.formats import Example
from core.data.many.columns import kept
from core.data.sets.rows import Rows
from core.errors import DataError
from core.messages import Message, msg


@dataclass(frozen=True)
class Change:
    """remove: rows that go. change: (row, number of what was written in its place). add: numbers of written rows."""

    version: int
    parent: int
    time: float
    what: Message
    remove: tuple[int, ...] = ()
    change: tuple[tuple[int, int], ...] = ()
    add: tuple[int, ...] = ()


class Edited(Rows):
    """The rows of a version: numbers (N,) by which they are named, source (N,) which written row each says, -1 what the file says. folder: where they
    are mapped from. Raises OSError."""

    def __init__(self, base: Rows, numbers: np.ndarray, source: np.ndarray, written: WrittenRows, folder: Path):
        assert base.path is not None
        super().__init__(base.path)
        places = np.searchsorted(base.numbers(), numbers)  # of rows of the file, among those that can be learned from
        self._numbers, self._says, self._places = (kept(column, folder) for column in (numbers, source, places))
        self._written = written

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[int, Example]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if (source := int(self._says[index])) >= 0:
            return self.number(index), self._written[source]
        return self._of_file(int(self._places[index]))

    def texts(self) -> Iterator[tuple[int, str]]:
        file, at, of_file = super().texts(), -1, (0, "")
        for number, source, place in zip(self._numbers, self._says, self._places, strict=True):
            if source >= 0:
                yield int(number), self._written[source].as_json()
                continue
            while at < place:  # rows of the file are never put in another order
                at, of_file = at + 1, next(file)
            yield of_file

    def as_json(self, index: int) -> str:
        if (source := int(self._says[index])) >= 0:
            return self._written[source].as_json()
        return super().as_json(int(self._places[index]))

    def number(self, index: int) -> int:
        return int(self._numbers[index])

    def numbers(self) -> np.ndarray:
        return self._numbers

    def keys(self, positions: np.ndarray) -> np.ndarray:
        source = self._says[positions]
        return np.where(source < 0, self._places[positions], -1 - source)


class WrittenRows(Sequence[Example]):
    """What somebody wrote, read where it lies."""

    def __init__(self, path: Path):
        self._path = path
        self._begins = array("q", [0])
        if path.exists():
            with open(path, "rb") as file:
                self._begins.extend(file.tell() for _ in iter(file.readline, b""))

    def __len__(self) -> int:
        return len(self._begins) - 1

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        begin, end = self._begins[index], self._begins[index + 1]
        with open(self._path, "rb") as file:
            file.seek(begin)
            return Example.from_dict(json.loads(file.read(end - begin))["example"])


class Edits:
    """The versions of one reading of a set."""

    def __init__(self, folder: Path | None, reading: str):
        """folder: None for a set of somebody else, which has no versions."""
        self.head = 0
        self.changes: dict[int, Change] = {}
        if folder is None:
            return
        self._log, self._pool = files_of(folder, reading)
        for record in files.read_lines(self._log, 0, limit_bytes=1 << 30).records:
            if "version" in record:
                change = Change(
                    record["version"], record["parent"], record["time"], Message.model_validate(record["what"]),
                    tuple(record["remove"]), tuple((row, written) for row, written in record["change"]), tuple(record["add"]),
                )  # fmt: skip
                self.changes[change.version] = change
            self.head = record.get("head", record.get("version", self.head))

    def story(self, version: int | None = None) -> list[Change]:
        """The changes that led to a version, the first one first. Raises DataError for one that is not there."""
        at = self.head if version is None else version
        found = []
        while at:
            if at not in self.changes:
                raise DataError("sets.no_such_version", version=at, newest=max(self.changes, default=0))
            found.append(self.changes[at])
            at = found[-1].parent
        return found[::-1]

    def rows(self, base: Rows, version: int | None = None) -> Rows:
        """base: as the file was read."""
        story = self.story(version)
        if not story:
            return base
        numbers = base.numbers()
        source = np.full(len(numbers), -1, np.int64)
        for change in story:
            stays = ~np.isin(numbers, change.remove)
            numbers, source = numbers[stays], source[stays]
            if change.change and len(numbers):
                row, written = np.array(change.change, np.int64).T
                order = np.argsort(numbers, kind="stable")
                place = order[np.minimum(np.searchsorted(numbers, row, sorter=order), len(numbers) - 1)]
                there = numbers[place] == row
                source[place[there]] = written[there]
            added = np.array(change.add, np.int64)
            numbers, source = np.concatenate((numbers, base.stored + 1 + added)), np.concatenate((source, added))
        return Edited(
            base, numbers, source, WrittenRows(self._pool), self._pool.parent.parent
        )  # not where Windows would keep the set for it

    def change(
        self,
        what: Message,
        base: Rows,
        remove: Iterable[int] = (),
        change: Iterable[tuple[int, Example]] = (),
        add: Iterable[Example] = (),
    ) -> Change:
        """A new version. Raises DataError for a row that the newest does not have, and where nothing would change; OSError."""
        now = self.rows(base).numbers()
        removed, changed = tuple(dict.fromkeys(remove)), dict(change)
        asked = np.array([*removed, *changed], np.int64)
        for row in asked[~np.isin(asked, now)][:1].tolist():
            raise DataError("sets.no_such_row", row=row, rows=len(now))
        new = list(add)
        if not (removed or changed or new):
            raise DataError("sets.nothing_to_change")
        if len(now) + len(new) <= len(removed):
            raise DataError("sets.nothing_left")
        first = self._write([*changed.items(), *((0, example) for example in new)])
        behind = first + len(changed)
        made = Change(
            max(self.changes, default=0) + 1, self.head, round(time.time(), 3), what, removed,
            tuple(zip(changed, range(first, behind), strict=True)), tuple(range(behind, behind + len(new))),
        )  # fmt: skip
        record: dict[str, Any] = {"version": made.version, "parent": made.parent, "time": made.time, "what": what.model_dump()}
        files.append_line(self._log, record | {"remove": made.remove, "change": made.change, "add": made.add})
        self.changes[made.version], self.head = made, made.version
        return made

    def _write(self, rows: Sequence[tuple[int, Example]]) -> int:
        """The number of the first."""
        first = len(WrittenRows(self._pool))
        if rows:
            with open(self._pool, "ab+") as file:
                if file.seek(0, 2):
                    file.seek(-1, 2)
                    file.write(b"" if file.read(1) == b"\n" else b"\n")  # after half a line of a full disk or a crash
                for row, example in rows:
                    file.write(json.dumps({"row": row, "example": example.as_dict()}, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        return first

    def undo(self) -> Change:
        """What is taken back; it can be done again. Raises DataError where the set is as it was added."""
        if not self.head:
            raise DataError("sets.nothing_to_undo")
        undone = self.changes[self.head]
        self._go(undone.parent)
        return undone

    def redo(self) -> Change:
        """The newest change that was taken back from here. Raises DataError where none was."""
        again = max(
            (change for change in self.changes.values() if change.parent == self.head), key=lambda c: c.version, default=None
        )
        if again is None:
            raise DataError("sets.nothing_to_redo")
        self._go(again.version)
        return again

    def _go(self, version: int) -> None:
        files.append_line(self._log, {"head": version})
        self.head = version


def files_of(folder: Path, reading: str) -> tuple[Path, Path]:
    key = hashlib.sha256(reading.encode()).hexdigest()[:16]
    return folder / f"edits-{key}.jsonl", folder / f"written-{key}.jsonl"


def what(removed: int, changed: int, added: int) -> Message:
    """Of a change, in a sentence."""
    return msg("sets.change", removed=removed, changed=changed, added=added)
