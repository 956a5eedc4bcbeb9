"""Versions of a dataset: a log with one line per change, over rows that stay as they were read. No torch.

edits-<reading>.jsonl    one line a change: {version, parent, time, what, remove: [row], change: [[row, written]], add:
                         [written]}, numbers that are
                         many as _said writes them; or, where somebody went back or forth, {head}. The last line says
                         which version the set is at.
                         Version 0 is the file.
written-<reading>.jsonl  one line a row that somebody wrote: {row, example}; a change names them by their number, from 0

A row is named by its number in the file, whatever it says by now; one that was added by a number behind those of the
file. A row of the file that cannot be learned from is changed and removed as any other, and counts among the rows once
it is changed. Written rows are in place before the change that names them, so a crash leaves at most rows that nobody
names. Who writes holds edits.lock (core/data/store). A version costs no copy: a run finds the one that it learned from
for as long as the set is here. While it is open it takes 16 bytes a row and 8 for each row that somebody wrote.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data.formats import Example
from core.data.sets.stored_rows import Rows
from core.errors import DataError
from core.messages import Message, msg


@dataclass(frozen=True, eq=False)
class Change:
    """remove (R,): rows that go. change (C, 2): row, number of what was written in its place. add (A,): numbers of
    written rows. All int64."""

    version: int
    parent: int
    time: float
    what: Message
    remove: np.ndarray
    change: np.ndarray
    add: np.ndarray


class Edited(Rows):
    """The rows of a version. numbers (N,): by which rows are named; source (N,): which written row each says, -1 what
    the file says; places (N,): among the rows of the file that can be learned from. is_flawed (F,) of bool: which of
    the rows that could not be learned from still cannot. Raises OSError."""

    def __init__(
        self,
        base: Rows,
        numbers: np.ndarray,
        source: np.ndarray,
        places: np.ndarray,
        is_flawed: np.ndarray,
        written: WrittenRows,
    ):
        assert base.path is not None
        super().__init__(base.path)
        self._numbers, self._says, self._places, self._is_flawed = numbers, source, places, is_flawed
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

    @property
    def flawed(self) -> np.ndarray:
        return super().flawed[self._is_flawed]

    def flawed_numbers(self) -> np.ndarray:
        return super().flawed_numbers()[self._is_flawed]

    def keys(self, positions: np.ndarray) -> np.ndarray:
        source = self._says[positions]
        return np.where(source < 0, self._places[positions], -1 - source).astype(np.int64)


class WrittenRows(Sequence[Example]):
    """What somebody wrote, read where it lies."""

    def __init__(self, path: Path):
        self._path = path
        self.begins = _begins(path, files.stamp(path))

    def __len__(self) -> int:
        return len(self.begins) - 1

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        begin, end = self.begins[index], self.begins[index + 1]
        with open(self._path, "rb") as file:
            file.seek(begin)
            return Example.from_dict(json.loads(file.read(end - begin))["example"])


@lru_cache(4)
def _begins(path: Path, stamp: tuple[int, ...]) -> array[int]:
    """(N + 1,) where the lines of a file begin, and its end. stamp: of the file; () where there is none."""
    found = array("q", [0])
    if stamp:
        with open(path, "rb") as file:
            for line in file:
                found.append(found[-1] + len(line))
    return found


AS_THEY_ARE = 10_000  # numbers in the log; more would be a list of Python's, 40 bytes each, at every look at the set


def _said(numbers: np.ndarray) -> list[Any] | str:
    """In the log. Many: their int64, zlib's, in base64."""
    if numbers.size <= AS_THEY_ARE:
        return numbers.tolist()
    return base64.b64encode(zlib.compress(np.ascontiguousarray(numbers, "<i8").tobytes(), 1)).decode()


def _heard(said: list[Any] | str) -> np.ndarray:
    return (
        np.frombuffer(zlib.decompress(base64.b64decode(said)), "<i8")
        if isinstance(said, str)
        else np.array(said, np.int64)
    )


def _found(numbers: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """numbers (N,) rise. Where those of `wanted` (W,) are that are among them, and which of `wanted` are: (F,), (W,) of
    bool."""
    at = np.minimum(np.searchsorted(numbers, wanted), max(0, len(numbers) - 1))
    there = numbers[at] == wanted if len(numbers) else np.zeros(len(wanted), bool)
    return at[there], there


def _named(rows: np.ndarray, numbers: np.ndarray, flawed: np.ndarray) -> None:
    """Raise DataError for the first of rows that a set does not have.

    numbers: of its rows, rising; flawed: of those that cannot be learned from, rising.
    """
    for row in rows[~(_found(numbers, rows)[1] | _found(flawed, rows)[1])][:1].tolist():
        raise DataError("sets.no_such_row", row=row, rows=len(numbers))


class Edits:
    """The versions of one reading of a set."""

    def __init__(self, folder: Path | None, reading: str):
        """folder: None for a set of somebody else, which has no versions."""
        self.head = 0
        self.changes: dict[int, Change] = {}
        if folder is None:
            return
        self._log, self._pool = files_of(folder, reading)
        try:
            records = files.read_lines(self._log, 0, limit_bytes=1 << 30, is_needed=True).records
        except OSError as error:  # taken for no version, the next edit would be written as the first one
            raise DataError("data.cannot_read", file=self._log.name, reason=error.strerror or str(error)) from error
        for record in records:
            if "version" in record:
                change = Change(
                    record["version"], record["parent"], record["time"], _what(record["what"]),
                    _heard(record["remove"]), _heard(record["change"]).reshape(-1, 2), _heard(record["add"]),
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
        places = np.arange(len(numbers), dtype=np.int32)  # of rows of the file, among those that can be learned from
        source = np.full(len(numbers), -1, np.int32)
        flawed = base.flawed_numbers()
        is_flawed = np.ones(len(flawed), bool)
        for change in story:
            # numbers rise all the while: nothing that a million rows would take twice is sorted or kept
            for named in (change.remove, change.change[:, 0]):
                is_flawed[_found(flawed, named)[0]] = False
            gone, _ = _found(numbers, change.remove)
            if len(gone):
                numbers, source, places = np.delete(numbers, gone), np.delete(source, gone), np.delete(places, gone)
            row, written = change.change.T
            at, there = _found(numbers, row)
            source[at] = written[there]
            if not there.all():  # rows that could not be learned from take their places
                row, written = (part[~there][np.argsort(row[~there])] for part in (row, written))
                at = np.searchsorted(numbers, row)
                numbers, source, places = (
                    np.insert(column, at, new).astype(column.dtype)
                    for column, new in ((numbers, row), (source, written), (places, 0))
                )
            if len(change.add):
                numbers = np.concatenate((numbers, base.stored + 1 + change.add))
                source = np.concatenate((source, change.add.astype(np.int32)))
                places = np.concatenate((places, np.zeros(len(change.add), np.int32)))
        return Edited(base, numbers, source, places, is_flawed, WrittenRows(self._pool))

    def change(
        self,
        what: Message,
        base: Rows,
        remove: Iterable[int] = (),
        change: Iterable[tuple[int, Example]] = (),
        add: Iterable[Example] = (),
    ) -> Change:
        """A new version. change: one is held at a time. Raises DataError for a row that the newest does not have, and
        where nothing would change; OSError."""
        newest = self.rows(base)
        now, flawed = newest.numbers(), newest.flawed_numbers()
        gone, new, changed = np.fromiter(dict.fromkeys(remove), np.int64), list(add), array("q")
        _named(gone, now, flawed)

        def written() -> Iterator[tuple[int, Example]]:
            for row, example in change:
                _named(np.array([row]), now, flawed)
                changed.append(row)
                yield row, example
            if not (len(gone) or changed or new):
                raise DataError("sets.nothing_to_change")
            mended = len(_found(flawed, np.frombuffer(changed, np.int64))[0])
            if len(now) + mended + len(new) <= len(_found(now, gone)[0]):
                raise DataError("sets.nothing_left")
            yield from ((0, example) for example in new)

        first = self._write(written())
        behind = first + len(changed)
        made = Change(
            max(self.changes, default=0) + 1, self.head, round(time.time(), 3), what, gone,
            np.stack((np.frombuffer(changed, np.int64), np.arange(first, behind)), 1), np.arange(behind,
                behind + len(new)),
        )  # fmt: skip
        record: dict[str, Any] = {
            "version": made.version,
            "parent": made.parent,
            "time": made.time,
            "what": what.model_dump(),
        }
        numbers = {"remove": _said(made.remove), "change": _said(made.change), "add": _said(made.add)}
        files.append_line(self._log, record | numbers)
        self.changes[made.version], self.head = made, made.version
        return made

    def _write(self, rows: Iterator[tuple[int, Example]]) -> int:
        """The number of the first. What `rows` raises leaves nothing behind."""
        first, one = len(WrittenRows(self._pool)), next(rows, None)
        if one is None:
            return first
        with open(self._pool, "ab+") as file:
            size = file.seek(0, 2)
            try:
                if size and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                    file.write(b"\n")  # after half a line of a full disk or a crash
                for row, example in chain((one,), rows):
                    file.write(
                        json.dumps({"row": row, "example": example.as_dict()}, ensure_ascii=False).encode() + b"\n"
                    )
                file.flush()
                os.fsync(file.fileno())
            except BaseException:  # a cancel and Ctrl-C too; all of them go on
                file.truncate(size)
                raise
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
            (change for change in self.changes.values() if change.parent == self.head),
            key=lambda c: c.version,
            default=None,
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


def what(removed: int = 0, changed: int = 0, added: int = 0) -> Message:
    """A change in words, without what did not happen."""
    counts = {"removed": removed, "changed": changed, "added": added}
    return msg("sets.change", parts=[msg(f"sets.{name}", rows=rows) for name, rows in counts.items() if rows])


def _what(logged: Any) -> Message:
    """A change as the log has it. Versions before 0.2 wrote the three numbers of `what`."""
    found = Message.model_validate(logged)
    return what(**found.params) if "removed" in found.params else found
