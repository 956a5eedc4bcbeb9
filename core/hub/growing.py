"""A partial download: `blobs/<etag>.incomplete`, which only grows at its end, with the sha256 of its contents.

What a kill, a power cut or a full disk leaves behind is its beginning, which the next download reads once and goes on
from. It gets its name (a blob of the hub's cache) only after its size and its sha256 were compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class TooLong(Exception):
    """More arrived than the hub announced: this is another file than it named."""


def path_of(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


class Growing:
    """As much of a binary file as huggingface_hub's `http_get` uses: write, tell, seek to the start, truncate there.

    most: bytes it may grow to. grown: told its size, at each step of reading and writing; what it raises ends both.
    """

    def __init__(self, path: Path, most: int | None, grown: Callable[[int], None]):
        self.size = 0
        self.sha = hashlib.sha256()
        self._place, self._most, self._grown = 0, most, grown
        self._file = open(path, "ab+")
        try:
            self._file.seek(0)
            while piece := self._file.read(1 << 20):
                self.sha.update(piece)
                self.size += len(piece)
                grown(self.size)
        except BaseException:  # nobody has it yet who would close it; all of them go on
            self._file.close()
            raise
        if most is None or self.size > most:  # nothing tells what it is the beginning of
            self.restart()

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk was reported by the write; closing would report it again
            self._file.close()

    def write(self, chunk: bytes) -> int:
        if self._most is not None and self.size + len(chunk) > self._most:
            raise TooLong
        self._grown(self.size)
        self._file.write(chunk)
        self._file.flush()  # so that a kill loses nothing that was counted
        self.sha.update(chunk)
        self.size += len(chunk)
        self._grown(self.size)
        return len(chunk)

    def tell(self) -> int:
        return self.size

    def seek(self, place: int) -> int:
        if place not in (0, self.size):
            raise OSError("it only grows at its end")
        self._place = place
        return place

    def truncate(self) -> int:
        """At the place that `seek` went to."""
        if self._place == 0:
            self.restart()
        return self.size

    def restart(self) -> None:
        self._file.truncate(0)
        self.size, self.sha = 0, hashlib.sha256()

    def settle(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
