"""The rows that the table of the Data page shows, in the order of their file: all of them, those with one kind of
problem, or those with some words. Any of them is found by its place, so that a table of a million rows can be scrolled.
"""

from __future__ import annotations

import json
import threading
from array import array
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from core import files
from core.data.sets import working
from core.data.sets.stored_rows import Rows
from core.data.sets.working import ShownRow
from core.errors import DataError
from webui.state.services import Services

ALL, UNUSABLE = "all", "problems"  # else a kind of finding
LOOKED_AT = 50_000  # rows that one call searches for words before it answers with what it has
KEPT = 4  # views of all visitors: 8 bytes a row each


class View:
    """Rows of one version of a set. Threads may share it."""

    def __init__(self, rows: Rows, only: Collection[int] | None = None, unusable: bool = False, words: str = ""):
        """only: numbers of the rows that are wanted, None for all. unusable: those alone that cannot be used."""
        self.rows, self.words = rows, words
        good, flawed = rows.numbers(), rows.flawed_numbers()
        numbers = np.concatenate((good, flawed))
        # of a row that can be learned from its position, of another -1 - its position among all rows of the file
        codes = np.concatenate((np.arange(len(good)), -1 - np.asarray(rows.flawed, np.int64)))
        if len(flawed):
            order = np.argsort(numbers, kind="stable")
            numbers, codes = numbers[order], codes[order]
        if unusable:
            numbers, codes = numbers[codes < 0], codes[codes < 0]
        elif only is not None:
            wanted = np.isin(numbers, np.fromiter(only, np.int64))
            numbers, codes = numbers[wanted], codes[wanted]
        self._numbers, self._codes = numbers.astype(np.int32), codes.astype(np.int32)
        self._found, self._guard = array("i"), threading.Lock()
        self.looked_at = 0 if words else len(codes)

    def __len__(self) -> int:
        """Those that were found so far, where words are sought."""
        return len(self._found) if self.words else len(self._codes)

    @property
    def of(self) -> int:
        """Rows that may be looked at for the words."""
        return len(self._codes)

    def look(self) -> None:
        """Search some more rows for the words."""
        with self._guard:
            end = min(self.looked_at + LOOKED_AT, len(self._codes))
            for at in range(self.looked_at, end):
                if self._has_words(int(self._codes[at])):
                    self._found.append(at)
            self.looked_at = end

    def _has_words(self, code: int) -> bool:
        if code >= 0:
            return bool(working.with_words(self.words, self.rows, code))
        said = self.rows.entry(-1 - code)["values"] or ""
        return self.words.casefold() in "\n".join(_texts(json.loads(said) if said else "")).casefold()

    def _places(self) -> np.ndarray:
        return np.array(self._found, np.int64) if self.words else np.arange(len(self._codes))

    def numbers(self) -> list[int]:
        """The numbers of all rows shown."""
        return self._numbers[self._places()].tolist()

    def part(self, begin: int, count: int) -> list[ShownRow]:
        found = self._found[begin : begin + count] if self.words else range(begin, min(begin + count, len(self)))
        return [self._row(int(self._codes[at])) for at in found]

    def _row(self, code: int) -> ShownRow:
        if code < 0:
            return working.unusable(self.rows, -1 - code)
        number, example = self.rows[code]
        return ShownRow(number, example)


def _texts(values: object) -> list[str]:
    if isinstance(values, dict | list):
        return [text for part in (values.values() if isinstance(values, dict) else values) for text in _texts(part)]
    return [str(values)]


@dataclass(frozen=True)
class RowFilter:
    """Selects the rows a table shows: the set's id, the kind of rows, and words to search for."""

    id: str
    show: str = ALL
    words: str = ""

    @classmethod
    def of(cls, given: object) -> RowFilter:
        """given: from a browser. Raises DataError."""
        known = given if isinstance(given, dict) else {}
        id, show, words = (known.get(name, "") for name in ("set", "show", "words"))
        if not isinstance(id, str):
            raise DataError("data.unknown", id="")
        return cls(id, show if isinstance(show, str) and show else ALL, words.strip() if isinstance(words, str) else "")


class Views:
    """The last views that were asked for, of all visitors. One that another version has replaced is made anew."""

    def __init__(self, services: Services):
        self._sets, self._guard = services.datasets, threading.Lock()
        self._kept: dict[tuple[str, RowFilter], View] = {}  # least recently used first

    def stamp(self, id: str) -> str:
        """Another one for each version, and each reading, of a set. Raises DataError."""
        choices = self._sets.choices(id)
        return f"{files.stamp(self._sets.path(id))} {choices.key} {self._sets.version(id, choices=choices)}"

    def of(self, asked: RowFilter) -> tuple[RowFilter, str, View]:
        """asked: as it can be shown; of a kind of problem that is in the set no more, all rows. Raises DataError."""
        stamp = self.stamp(asked.id)
        with self._guard:
            view = self._kept.pop((stamp, asked), None)
        if view is None:
            asked, view = self._made(asked)
        with self._guard:
            self._kept[stamp, asked] = view
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return asked, stamp, view

    def _made(self, asked: RowFilter) -> tuple[RowFilter, View]:
        rows = self._sets.rows(asked.id)
        if asked.show == UNUSABLE and len(rows.flawed):
            return asked, View(rows, unusable=True, words=asked.words)
        only = None
        if asked.show not in (ALL, UNUSABLE):
            found = self._sets.report(asked.id).findings
            only = next((finding.rows for finding in found if finding.id == asked.show), None)
        shown = asked if only is not None else RowFilter(asked.id, ALL, asked.words)
        return shown, View(rows, only, words=asked.words)
