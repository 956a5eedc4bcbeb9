"""An incomplete download: `blobs/<etag>.incomplete`, which only grows at its end, with the sha256 of its contents.

After a kill, a power cut or a full disk the next download reads it once and continues it. It gets its final name, a
blob of the hub's cache, only after its size and sha256 were compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class TooLong(Exception):
    """More bytes arrived than the hub announced: this is not the file that it named."""


def path_of(blob: Path) -> Path:
    """Return the path beside a blob at which its incomplete download lies, `<etag>.incomplete`."""
    return blob.with_name(f"{blob.name}.incomplete")


class PartialFile:
    """The part of a binary file's interface that huggingface_hub's `http_get` uses: write, tell, seek to the start,
    truncate there.

    most: largest size in bytes. grown: called with the size at each step of reading and writing; its exception ends
    both.
    """

    def __init__(self, path: Path, most: int | None, grown: Callable[[int], None]):
        """Open the file and hash what it holds; start anew if it is longer than most, or that is unknown. grown: called
        with each new size."""
        self.size = 0
        self.sha = hashlib.sha256()
        self._position, self._most, self._grown = 0, most, grown
        self._file = open(path, "ab+")
        try:
            self._file.seek(0)
            while piece := self._file.read(1 << 20):
                self.sha.update(piece)
                self.size += len(piece)
                grown(self.size)
        except BaseException:  # no caller has it yet to close it; always raised again
            self._file.close()
            raise
        if most is None or self.size > most:  # without a known size its contents may belong to another file
            self.restart()

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a full disk was reported by the write; closing would report it again
            self._file.close()

    def write(self, chunk: bytes) -> int:
        """Append a chunk, flushed and hashed, and return its length; grown may raise before. Raises TooLong where the
        file would exceed its limit."""
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
        """Return the size so far, which is where the next bytes go."""
        return self.size

    def seek(self, position: int) -> int:
        """Note the position for `truncate`: 0 or the end. Raises OSError for any other."""
        if position not in (0, self.size):
            raise OSError("it only grows at its end")
        self._position = position
        return position

    def truncate(self) -> int:
        """Empty the file unless the last `seek` was to its end; return its size."""
        if self._position == 0:
            self.restart()
        return self.size

    def restart(self) -> None:
        """Empty the file and its checksum."""
        self._file.truncate(0)
        self.size, self.sha = 0, hashlib.sha256()

    def settle(self) -> None:
        """Write everything to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
