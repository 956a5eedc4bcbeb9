"""Tokens of some rows in one mapped file: their ids, and what all counts are computed from. No torch.

<name>.tokens: eight bytes with the length of what follows, a JSON object with type, number, place and crc32 of each
array, then the arrays
themselves. One writer: whoever counted them, who writes aside and renames. A file that was cut short, or whose bits are
not those that were written, raises
DamagedError when what is wrong is asked for; whoever finds one removes it, and its rows are counted again.
"""

from __future__ import annotations

import json
import mmap
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core import files
from core.data.text_pieces import Borders
from core.messages import Message

# Of rows: their keys, in any order; the first example of each, and the end of the last. Of examples: the first token,
# the first run of learned tokens and the first border, and the ends of the last; a run is two numbers. The others by
# row or by example.
TYPES = {
    "keys": "q", "row_flags": "B", "examples": "q",
    "starts": "q", "flags": "B", "unlearned": "i", "run_starts": "q", "border_starts": "q",
    "runs": "i", "borders": "i", "ids": "i",
}  # fmt: skip
NUMBERS: dict[str, type[np.generic]] = {"q": np.int64, "i": np.int32, "B": np.uint8}
KINDS_OF_BORDERS = 3  # core/data/text_pieces
THOUGHTS, SYSTEM, BAD = (
    1,
    2,
    4,
)  # of a row: a message of it has thinking; it begins with a system message; its answer is marked as a bad one
TEXT, THINKS = 1, 2  # of an example: plain text, which may be cut at its borders; its prompt asks for thinking
_VERSION = 1


@dataclass(frozen=True)
class Counted:
    """An example as it is counted. runs: (first token, after the last) of what is learned; never the first token, which
    nothing predicts.
    borders: of plain text. ids: none where the length is an estimate."""

    length: int
    runs: Sequence[Sequence[int]]
    borders: Borders | None
    ids: Sequence[int] = ()
    thinks: bool = False
    unlearned: int = 0


class DamagedError(Exception):
    """A segment is not, or no longer, what was written."""

    def __init__(self, segment: Segment):
        super().__init__(segment.path)
        self.segment = segment


class Segment:
    """What one file holds, or what was just counted."""

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        refused: dict[int, Message],
        path: Path | None = None,
        places: dict[str, tuple[int, int, int]] | None = None,
        mapped: bool = False,
    ):
        """places: in the file at path, of arrays that are not here yet: where one begins, its bytes and their crc32.
        mapped: all of them, once they are asked for; else the ids alone."""
        self._arrays, self.refused, self.path, self._places, self._mapped = arrays, refused, path, places or {}, mapped
        self._file: mmap.mmap | None = None
        keys = self["keys"]
        self._order = None if (keys[1:] > keys[:-1]).all() else np.argsort(keys, kind="stable")
        self._sorted = keys if self._order is None else keys[self._order]

    @classmethod
    def read(cls, path: Path, mapped: bool = False) -> Segment:
        """Raises OSError, ValueError or DamagedError."""
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= files.OURS:
                raise ValueError("no segment")
            header = json.loads(file.read(size))
        if header.get("v") != _VERSION:
            raise ValueError("of another version")
        begins = 8 + size
        places = {name: (begins + place, size, crc) for name, (place, size, crc) in header["arrays"].items()}
        if path.stat().st_size != begins + sum(size for _, size, _ in places.values()):
            raise ValueError("cut short")
        refused = {int(key): Message.model_validate(why) for key, why in header["refused"].items()}
        return cls({}, refused, path, places, mapped)

    def __getitem__(self, name: str) -> np.ndarray:
        """One of the arrays. Raises DamagedError where it is damaged, or gone."""
        if name not in self._arrays:
            try:
                self._arrays[name] = self._read(name, *self._places[name])
            except (OSError, ValueError) as error:
                self._arrays.clear()  # Windows removes no file that is mapped
                self._file, self._order, self._sorted = None, None, np.empty(0, np.int64)
                raise DamagedError(self) from error
        return self._arrays[name]

    def _read(self, name: str, place: int, size: int, crc: int) -> np.ndarray:
        assert self.path is not None
        kind = np.dtype(NUMBERS[TYPES[name]])
        if self._mapped or name == "ids":
            if self._file is None:
                with open(self.path, "rb") as file:
                    self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            found = np.frombuffer(self._file, np.uint8, size, place)
        else:
            with open(self.path, "rb") as file:
                file.seek(place)
                found = np.frombuffer(file.read(size), np.uint8)
        if zlib.crc32(found.data) != crc:
            del found  # the error would hold it
            raise ValueError("damaged")
        return found.view(kind)

    def check(self) -> None:
        """Raises DamagedError where any of it is."""
        for name in self._places:
            self[name]
        if self._file is not None and hasattr(
            mmap, "MADV_DONTNEED"
        ):  # all of it was read, and counts as memory of this process until it is let go
            self._file.madvise(mmap.MADV_DONTNEED)

    def may_have(self, low: int, high: int) -> bool:
        """Whether a key from low to high may be here."""
        return len(self._sorted) > 0 and low <= self._sorted[-1] and high >= self._sorted[0]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """(N,) for each key the row here, -1 where it is not."""
        if not len(self._sorted):
            return np.full(len(keys), -1)
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        row = place if self._order is None else self._order[place]
        return np.where(self._sorted[place] == keys, row, -1)

    def borders(self, example: int) -> Borders:
        first = self["border_starts"][KINDS_OF_BORDERS * example :][: KINDS_OF_BORDERS + 1]
        return tuple(self["borders"][a:b].tolist() for a, b in zip(first, first[1:], strict=False))


@dataclass
class Builder:
    """Rows as they are counted, until they are enough for a segment."""

    arrays: dict[str, array[int]] = field(default_factory=lambda: {name: array(kind) for name, kind in TYPES.items()})
    refused: dict[int, Message] = field(default_factory=dict)
    tokens: int = 0

    def __post_init__(self) -> None:
        for name in ("examples", "starts", "run_starts", "border_starts"):
            self.arrays[name].append(0)

    def __len__(self) -> int:
        return len(self.arrays["keys"])

    def refuse(self, key: int, why: Message) -> None:
        self.refused[key] = why
        self.add(key, 0, ())

    def add(self, key: int, row_flags: int, examples: Sequence[Counted]) -> None:
        arrays = self.arrays
        for one in examples:
            self.tokens += one.length
            arrays["starts"].append(self.tokens)
            arrays["flags"].append(TEXT * (one.borders is not None) + THINKS * one.thinks)
            arrays["unlearned"].append(one.unlearned)
            arrays["ids"].extend(one.ids)
            for run in one.runs:
                arrays["runs"].extend(run)
            arrays["run_starts"].append(len(arrays["runs"]) // 2)
            for number in range(KINDS_OF_BORDERS):
                if one.borders:
                    arrays["borders"].extend(one.borders[number])
                arrays["border_starts"].append(len(arrays["borders"]))
        arrays["keys"].append(key)
        arrays["row_flags"].append(row_flags)
        arrays["examples"].append(len(arrays["flags"]))

    def segment(self) -> Segment:
        return Segment(
            {name: np.frombuffer(held, NUMBERS[TYPES[name]]) for name, held in self.arrays.items()}, self.refused
        )

    def write(self, path: Path) -> None:
        """Raises OSError."""
        header: dict[str, Any] = {}
        place = 0
        for name, held in self.arrays.items():
            size = len(held) * held.itemsize
            header[name] = (place, size, zlib.crc32(held))
            place += size
        refused = {key: why.model_dump() for key, why in self.refused.items()}
        said = json.dumps({"v": _VERSION, "arrays": header, "refused": refused}).encode()
        said += b" " * (-len(said) % 8)  # numbers of eight bytes begin at a multiple of eight
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(
            path, b"".join((len(said).to_bytes(8, "little"), said, *(held.tobytes() for held in self.arrays.values())))
        )
