"""The rows in the table of the Data page, in the order of their file: all of them, those with one kind of problem, or
those with some words. Each is accessible by its place, so that a table of a million rows can be scrolled."""

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
LOOKED_AT = 50_000  # rows that one call searches for words
KEPT = 4  # cached views of all visitors, 8 bytes a row each


class View:
    """Rows of one version of a dataset. Threads may share it."""

    def __init__(self, rows: Rows, only: Collection[int] | None = None, unusable: bool = False, words: str = ""):
        """Select rows. only: their numbers, None for all. unusable: select only rows that cannot be used. words: for
        `search_more` to search."""
        self.rows, self.words = rows, words
        good, flawed = rows.numbers(), rows.flawed_numbers()
        numbers = np.concatenate((good, flawed))
        # code of a usable row: its position; of another: -1 - its position among all rows of the file
        codes = np.concatenate((np.arange(len(good)), -1 - np.asarray(rows.flawed, np.int64)))
        if len(flawed):
            order = np.argsort(numbers, kind="stable")
            numbers, codes = numbers[order], codes[order]
        if unusable:
            numbers, codes = numbers[codes < 0], codes[codes < 0]
        elif only is not None:
            selected = np.isin(numbers, np.fromiter(only, np.int64))
            numbers, codes = numbers[selected], codes[selected]
        self._numbers, self._codes = numbers.astype(np.int32), codes.astype(np.int32)
        self._matches, self._guard = array("i"), threading.Lock()
        self.looked_at = 0 if words else len(codes)

    def __len__(self) -> int:
        """Number of rows; during a search, of the matches so far."""
        return len(self._matches) if self.words else len(self._codes)

    @property
    def row_count(self) -> int:
        """The number of rows of this selection, whether they have the words or not."""
        return len(self._codes)

    def search_more(self) -> None:
        """Search the next LOOKED_AT rows for the words and keep the matches."""
        with self._guard:
            end = min(self.looked_at + LOOKED_AT, len(self._codes))
            for at in range(self.looked_at, end):
                if self._has_words(int(self._codes[at])):
                    self._matches.append(at)
            self.looked_at = end

    def _has_words(self, code: int) -> bool:
        """Return whether the words occur as one phrase, in any case, in the row of a code; negative: an unusable
        row."""
        if code >= 0:
            return bool(working.with_words(self.words, self.rows, code))
        raw = self.rows.entry(-1 - code)["values"] or ""
        return self.words.casefold() in "\n".join(_texts(json.loads(raw) if raw else "")).casefold()

    def numbers(self) -> list[int]:
        """Return the numbers of all rows shown."""
        places = np.array(self._matches, np.int64) if self.words else slice(None)
        return self._numbers[places].tolist()

    def part(self, begin: int, count: int) -> list[ShownRow]:
        """Return the shown rows from place begin on, at most count."""
        places = self._matches[begin : begin + count] if self.words else range(begin, min(begin + count, len(self)))
        return [self._row(int(self._codes[at])) for at in places]

    def _row(self, code: int) -> ShownRow:
        """Return the row of a code; negative: an unusable row."""
        if code < 0:
            return working.flawed_row(self.rows, -1 - code)
        number, example = self.rows[code]
        return ShownRow(number, example)


def _texts(values: object) -> list[str]:
    """Return all values of a JSON value as texts, without keys."""
    if isinstance(values, dict | list):
        return [text for part in (values.values() if isinstance(values, dict) else values) for text in _texts(part)]
    return [str(values)]


@dataclass(frozen=True)
class RowFilter:
    """The selection of a table's rows: the dataset's id, the kind of rows, and words to search for."""

    id: str
    show: str = ALL
    words: str = ""

    @classmethod
    def from_request(cls, request: object) -> RowFilter:
        """Read a filter from any JSON of a browser; unknown fields are as if left out. Raises DataError without a
        dataset."""
        fields = request if isinstance(request, dict) else {}
        id, show, words = (fields.get(name, "") for name in ("set", "show", "words"))
        if not isinstance(id, str):
            raise DataError("data.unknown", id="")
        return cls(id, show if isinstance(show, str) and show else ALL, words.strip() if isinstance(words, str) else "")


class Views:
    """The last views of all visitors. A view is replaced when its dataset has a new version."""

    def __init__(self, services: Services):
        self._sets, self._guard = services.datasets, threading.Lock()
        self._kept: dict[tuple[str, RowFilter], View] = {}  # least recently used first

    def stamp(self, id: str) -> str:
        """Return a value that differs for each version and reading of a dataset. Raises DataError."""
        choices = self._sets.choices(id)
        return f"{files.stamp(self._sets.path(id))} {choices.key} {self._sets.version(id, choices=choices)}"

    def get(self, row_filter: RowFilter) -> tuple[RowFilter, str, View]:
        """Return the filter that can be shown, the version's stamp and the view, kept or made. A filter for a kind of
        problem that the dataset no longer has selects all rows. Raises DataError."""
        stamp = self.stamp(row_filter.id)
        with self._guard:
            view = self._kept.pop((stamp, row_filter), None)
        if view is None:
            row_filter, view = self._view_for(row_filter)
        with self._guard:
            self._kept[stamp, row_filter] = view
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return row_filter, stamp, view

    def _view_for(self, row_filter: RowFilter) -> tuple[RowFilter, View]:
        """Return the filter and its view; a filter by a finding that no longer exists shows all rows."""
        rows = self._sets.rows(row_filter.id)
        if row_filter.show == UNUSABLE and len(rows.flawed):
            return row_filter, View(rows, unusable=True, words=row_filter.words)
        only = None
        if row_filter.show not in (ALL, UNUSABLE):
            findings = self._sets.report(row_filter.id).findings
            only = next((finding.rows for finding in findings if finding.id == row_filter.show), None)
        shown = row_filter if only is not None else RowFilter(row_filter.id, ALL, row_filter.words)
        return shown, View(rows, only, words=row_filter.words)
