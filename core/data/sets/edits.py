"""Versions of a dataset: a log with one line per change, over rows that stay as they were read. No torch.

edits-<reading>.jsonl    one line a change: {version, parent, time, what, remove: [row], change: [[row, written]],
                         add: [written]}; many numbers as `_encode_numbers` writes them. After undo or redo: {head}.
                         The last line gives the current version. Version 0 is the file.
written-<reading>.jsonl  one line a row that a person wrote: {row, example}; a change refers to it by number, from 0

A row is identified by its number in the file, whatever its content is by now; an added row by a number after those of
the file. A row of the file that cannot be trained is changed and removed like any other, and counts among the rows once
it is changed. Written rows are in place before the change that refers to them, so a crash leaves at most unused rows.
Writers hold edits.lock (core/data/store). A version needs no copy: a run finds the one that it was trained on as long
as the dataset exists. An open version takes 16 bytes a row and 8 for each written row.
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

import numpy as np

from core import files
from core.data.formats import Example
from core.data.sets.stored_rows import Rows
from core.errors import DataError
from core.messages import Message, msg


@dataclass(frozen=True, eq=False)
class Change:
    """One change of a dataset; all arrays are int64.

    remove (R,): removed rows. change (C, 2): row, and number of the written row in its place. add (A,): numbers of
    written rows.
    """

    version: int
    parent: int
    time: float
    what: Message
    remove: np.ndarray
    change: np.ndarray
    add: np.ndarray


class EditedRows(Rows):
    """The rows of a version. Raises OSError.

    numbers (N,): number of each row; source (N,): number of the written row with its content, -1 for the content of the
    file; places (N,): position among the trainable rows of the file. is_flawed (F,) of bool: which rows of the file
    that could not be trained still cannot.
    """

    def __init__(
        self,
        base: Rows,
        numbers: np.ndarray,
        source: np.ndarray,
        places: np.ndarray,
        is_flawed: np.ndarray,
        written: WrittenRows,
    ):
        """Keep the columns of a version's rows, as the class describes them; base gives the rows of the file.

        places (N,): position among the file's trainable rows; 0, without meaning, for rows that were added or that
        could not be trained at first. is_flawed (F,): which of base's untrainable rows still cannot be trained and were
        not removed.
        """
        assert base.path is not None
        super().__init__(base.path)
        self.has_splits, self.joins = base.has_splits, base.joins
        self._numbers, self._written_numbers, self._places, self._is_flawed = numbers, source, places, is_flawed
        self._written = written

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> tuple[int, Example]:  # type: ignore[override]
        """Return (row number, example) of the trainable row at this position of the version, a rewritten or added one
        with its new content. Raises IndexError beyond the rows and below 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        if (source := int(self._written_numbers[index])) >= 0:
            return self.number(index), self._written[source]
        return self._stored_row(int(self._places[index]))

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield (number, row as JSON) of each trainable row of the version: written rows from their own file, others
        from that of the set. A row's number is that in the file, from 1, and stays; added rows have numbers after
        those."""
        file, at, of_file = super().texts(), -1, (0, "")
        for number, source, place in zip(self._numbers, self._written_numbers, self._places, strict=True):
            if source >= 0:
                yield int(number), self._written[source].as_json()
                continue
            while at < place:  # rows of the file keep their order
                at, of_file = at + 1, next(file)
            yield of_file

    def as_json(self, index: int) -> str:
        """Return a row's example as `Example.as_json` writes it."""
        if (source := int(self._written_numbers[index])) >= 0:
            return self._written[source].as_json()
        return super().as_json(int(self._places[index]))

    def number(self, index: int) -> int:
        """Return the number of a trainable row of this version, which edits do not change. index: its position, from
        0."""
        return int(self._numbers[index])

    def numbers(self) -> np.ndarray:
        """Return the numbers (N,) of all trainable rows of this version, in order."""
        return self._numbers

    @property
    def flawed(self) -> np.ndarray:
        """Positions, among all rows of the file, of the rows that could not be trained and in this version were neither
        rewritten nor removed."""
        return super().flawed[self._is_flawed]

    def flawed_numbers(self) -> np.ndarray:
        """Return the numbers in the file of the rows at `flawed`: those that could not be trained and in this version
        were neither rewritten nor removed."""
        return super().flawed_numbers()[self._is_flawed]

    def keys(self, positions: np.ndarray) -> np.ndarray:
        """Return the keys (P,) of the rows at these positions; a row that a person wrote has one below 0."""
        # A row of the file keeps its key in every version; one that a person wrote has one of its own below 0.
        source = self._written_numbers[positions]
        return np.where(source < 0, self._places[positions], -1 - source).astype(np.int64)


class WrittenRows(Sequence[Example]):
    """The rows that a person wrote, read from disk one at a time."""

    def __init__(self, path: Path):
        self._path = path
        self.begins = _begins(path, files.stamp(path))

    def __len__(self) -> int:
        return len(self.begins) - 1

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        """Read from disk and return the example of one written row, by its place in the file, from 0."""
        begin, end = self.begins[index], self.begins[index + 1]
        with open(self._path, "rb") as file:
            file.seek(begin)
            return Example.from_dict(json.loads(file.read(end - begin))["example"])


@lru_cache(4)
def _begins(path: Path, stamp: tuple[int, ...]) -> array[int]:
    """Return (N + 1,) byte offsets of the lines of a file, the last its size. stamp: of the file, so that a change is
    read anew; () if there is none."""
    offsets = array("q", [0])
    if stamp:
        with open(path, "rb") as file:
            for line in file:
                offsets.append(offsets[-1] + len(line))
    return offsets


PLAIN_NUMBERS = 10_000  # numbers in the log; more would be a list of Python's, 40 bytes each, whenever the log is read


def _encode_numbers(numbers: np.ndarray) -> list[int] | str:
    """Return numbers as the log has them: a list, or base64 of their zlib-compressed int64 if there are many."""
    if numbers.size <= PLAIN_NUMBERS:
        return numbers.tolist()
    return base64.b64encode(zlib.compress(np.ascontiguousarray(numbers, "<i8").tobytes(), 1)).decode()


def _decode_numbers(encoded: list[int] | str) -> np.ndarray:
    """Return the numbers that `_encode_numbers` has written, as int64."""
    return (
        np.frombuffer(zlib.decompress(base64.b64decode(encoded)), "<i8")
        if isinstance(encoded, str)
        else np.array(encoded, np.int64)
    )


def _locate(numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find rows (W,) among numbers (N,), which rise. Return the positions in numbers of those that are present (F,),
    and which of rows are present (W,) of bool."""
    places = np.minimum(np.searchsorted(numbers, rows), max(0, len(numbers) - 1))
    is_present = numbers[places] == rows if len(numbers) else np.zeros(len(rows), bool)
    return places[is_present], is_present


def _require_rows(rows: np.ndarray, numbers: np.ndarray, flawed: np.ndarray) -> None:
    """Raise DataError with the first of these row numbers that the dataset does not have; rows that cannot be trained
    count as present.

    rows: numbers to check. numbers: of its trainable rows, rising; flawed: of those that cannot be trained, rising.
    """
    for row in rows[~(_locate(numbers, rows)[1] | _locate(flawed, rows)[1])][:1].tolist():
        raise DataError("sets.no_such_row", row=row, rows=len(numbers))


class Edits:
    """The versions of one reading of a dataset."""

    def __init__(self, folder: Path | None, reading: str):
        """Read the log of changes. folder: None for a dataset that was not imported and has no versions. Raises
        DataError if it cannot be read."""
        self.head = 0
        self.changes: dict[int, Change] = {}
        if folder is None:
            return
        self._log, self._pool = files_of(folder, reading)
        try:
            records = files.read_lines(self._log, 0, limit_bytes=1 << 30, is_needed=True).records
        except OSError as error:  # without the log the next edit would be written as the first one
            raise DataError("data.cannot_read", file=self._log.name, reason=error.strerror or str(error)) from error
        for record in records:
            if "version" in record:
                change = Change(
                    record["version"], record["parent"], record["time"], _parse_description(record["what"]),
                    _decode_numbers(record["remove"]), _decode_numbers(record["change"]).reshape(-1, 2),
                    _decode_numbers(record["add"]),
                )  # fmt: skip
                self.changes[change.version] = change
            self.head = record.get("head", record.get("version", self.head))

    def history(self, version: int | None = None) -> list[Change]:
        """Return the changes that led to a version (None: the current one), the first one first. Raises DataError for
        an unknown version."""
        at = self.head if version is None else version
        changes = []
        while at:
            if at not in self.changes:
                raise DataError("sets.no_such_version", version=at, newest=max(self.changes, default=0))
            changes.append(self.changes[at])
            at = changes[-1].parent
        return changes[::-1]

    def rows(self, base: Rows, version: int | None = None) -> Rows:
        """Return the rows of a version: base, if it has no changes. base: the rows as the file was read. Raises
        DataError for an unknown version."""
        changes = self.history(version)
        if not changes:
            return base
        numbers = base.numbers()
        places = np.arange(len(numbers), dtype=np.int32)  # position among the trainable rows of the file
        source = np.full(len(numbers), -1, np.int32)
        flawed = base.flawed_numbers()
        is_flawed = np.ones(len(flawed), bool)
        for change in changes:
            # numbers stay sorted, so that no second copy of a million rows is needed
            for named in (change.remove, change.change[:, 0]):
                is_flawed[_locate(flawed, named)[0]] = False
            removed, _ = _locate(numbers, change.remove)
            if len(removed):
                numbers, source, places = (
                    np.delete(numbers, removed),
                    np.delete(source, removed),
                    np.delete(places, removed),
                )
            row, written = change.change.T
            at, is_present = _locate(numbers, row)
            source[at] = written[is_present]
            if not is_present.all():  # flawed rows of the file that were rewritten are inserted
                row, written = (part[~is_present][np.argsort(row[~is_present])] for part in (row, written))
                at = np.searchsorted(numbers, row)
                numbers, source, places = (
                    np.insert(column, at, new).astype(column.dtype)
                    for column, new in ((numbers, row), (source, written), (places, 0))
                )
            if len(change.add):
                numbers = np.concatenate((numbers, base.stored + 1 + change.add))
                source = np.concatenate((source, change.add.astype(np.int32)))
                places = np.concatenate((places, np.zeros(len(change.add), np.int32)))
        return EditedRows(base, numbers, source, places, is_flawed, WrittenRows(self._pool))

    def change(
        self,
        what: Message,
        base: Rows,
        remove: Iterable[int] = (),
        change: Iterable[tuple[int, Example]] = (),
        add: Iterable[Example] = (),
    ) -> Change:
        """Store a new version of the dataset, make it the current one and return its change. Its new and rewritten rows
        are appended to the file of written rows, then one line to the log.

        what: the sentence that describes it. base: the rows as the file was read. remove: row numbers; change: (row
        number, its new example), consumed one at a time; add: new examples. Raises DataError for a row that the current
        version does not have, and if nothing would change or no row would be left; OSError. Then there is no new
        version.
        """
        # Rows are checked against the newest version: a number of an older one may have been removed since.
        newest = self.rows(base)
        numbers, flawed = newest.numbers(), newest.flawed_numbers()
        removed, added, changed = np.fromiter(dict.fromkeys(remove), np.int64), list(add), array("q")
        _require_rows(removed, numbers, flawed)

        def checked_rows() -> Iterator[tuple[int, Example]]:
            """Yield (row number, example) of each changed row, then (0, example) of each added one.

            Raises DataError for a row that does not exist, and, after the changed rows, if nothing would change or no
            row would be left.
            """
            for row, example in change:
                _require_rows(np.array([row]), numbers, flawed)
                changed.append(row)
                yield row, example
            if not (len(removed) or changed or added):
                raise DataError("sets.nothing_to_change")
            # A flawed row that a person has written anew counts as one more.
            no_longer_flawed = len(_locate(flawed, np.frombuffer(changed, np.int64))[0])
            if len(numbers) + no_longer_flawed + len(added) <= len(_locate(numbers, removed)[0]):
                raise DataError("sets.nothing_left")
            yield from ((0, example) for example in added)

        # The rows first, then the line of the log that names them: after a power cut the log names none that is
        # missing.
        first = self._write(checked_rows())
        after = first + len(changed)
        version = Change(
            max(self.changes, default=0) + 1, self.head, round(time.time(), 3), what, removed,
            np.stack((np.frombuffer(changed, np.int64), np.arange(first, after)), 1), np.arange(after,
                after + len(added)),
        )  # fmt: skip
        record: dict[str, object] = {
            "version": version.version,
            "parent": version.parent,
            "time": version.time,
            "what": what.model_dump(),
        }
        encoded = {
            "remove": _encode_numbers(version.remove),
            "change": _encode_numbers(version.change),
            "add": _encode_numbers(version.add),
        }
        files.append_line(self._log, record | encoded)
        self.changes[version.version], self.head = version, version.version
        return version

    def _write(self, rows: Iterator[tuple[int, Example]]) -> int:
        """Append (row number, example) pairs to the file of written rows, flushed to disk, and return the number, from
        0, of the first of them in that file.

        If `rows` raises, nothing is appended. Without rows no file is made.
        """
        first, one = len(WrittenRows(self._pool)), next(rows, None)
        if one is None:  # no file is made for a change that writes no row
            return first
        with open(self._pool, "ab+") as file:
            size = file.seek(0, 2)
            try:
                if size and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                    file.write(b"\n")  # end an incomplete line, left by a full disk or a crash
                for row, example in chain((one,), rows):
                    file.write(
                        json.dumps({"row": row, "example": example.as_dict()}, ensure_ascii=False).encode() + b"\n"
                    )
                file.flush()
                os.fsync(file.fileno())
            except BaseException:  # also cancel and Ctrl-C; raised again
                file.truncate(size)
                raise
        return first

    def undo(self) -> Change:
        """Return to the parent version; `redo` reverses it. Return the undone change. Raises DataError if the dataset
        is as it was imported."""
        if not self.head:
            raise DataError("sets.nothing_to_undo")
        undone = self.changes[self.head]
        self._move_head(undone.parent)
        return undone

    def redo(self) -> Change:
        """Go forward again to the newest version that was made from the current one, and return its change. Raises
        DataError if there is none."""
        # Several branches may begin at one version.
        again = max(
            (change for change in self.changes.values() if change.parent == self.head),
            key=lambda c: c.version,
            default=None,
        )
        if again is None:
            raise DataError("sets.nothing_to_redo")
        self._move_head(again.version)
        return again

    def _move_head(self, version: int) -> None:
        """Make an existing version the current one, and write that into the log."""
        files.append_line(self._log, {"head": version})
        self.head = version


def files_of(folder: Path, reading: str) -> tuple[Path, Path]:
    """Return the paths of a dataset's log of changes and of the file with the rows that people wrote, in its folder.
    reading: the key of how its file is read; other ways to read it have other changes."""
    key = hashlib.sha256(reading.encode()).hexdigest()[:16]
    return folder / f"edits-{key}.jsonl", folder / f"written-{key}.jsonl"


def describe_change(removed: int = 0, changed: int = 0, added: int = 0) -> Message:
    """Return the sentence of a change, without counts that are 0."""
    counts = {"removed": removed, "changed": changed, "added": added}
    return msg("sets.change", parts=[msg(f"sets.{name}", rows=rows) for name, rows in counts.items() if rows])


def _parse_description(logged: object) -> Message:
    """Return the sentence of a change in the log. Versions before 0.2 wrote the three numbers of `describe_change`."""
    message = Message.model_validate(logged)
    return describe_change(**message.params) if "removed" in message.params else message
