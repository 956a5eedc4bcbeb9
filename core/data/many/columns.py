"""Columns of per-row numbers in unnamed, memory-mapped files. No torch.

What is mapped the system takes back whenever it needs the room. A file is gone when nobody reads it any more, also
where its process is killed; one that would be smaller than IN_MEMORY_BYTES is never made. Whoever appends gets OSError
where the disk takes nothing more, never later.
"""

from __future__ import annotations

import io
import mmap
import tempfile
import weakref
from array import array
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from core.values import MIB

IN_MEMORY_BYTES = MIB
Order: TypeAlias = "memoryview[int]"
AT_ONCE = 20_000  # rows that are looked at together: what depends on their number is held of so many alone


class Column:
    """Blocks of one kind of number or record, one after the other. folder: where its file lies; None: in memory."""

    def __init__(self, kind: Any, folder: Path | None):
        self._kind, self._folder = np.dtype(kind), folder
        self._file: Any = io.BytesIO()

    def append(self, block: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(block, self._kind).data.cast("B") if len(block) else b"")
        if self._folder and isinstance(self._file, io.BytesIO) and self._file.tell() > IN_MEMORY_BYTES:
            held, self._file = self._file, tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - it goes with the last who maps it
            weakref.finalize(self, self._file.close)
            self._file.write(held.getbuffer())

    def read(self) -> np.ndarray:
        """All of them, not to be written to."""
        if isinstance(self._file, io.BytesIO):
            return np.frombuffer(self._file.getbuffer(), self._kind)
        self._file.flush()
        return np.frombuffer(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ), self._kind)


def kept(numbers: np.ndarray, folder: Path | None) -> np.ndarray:
    """The same numbers, as a column keeps them."""
    column = Column(numbers.dtype, folder)
    column.append(numbers)
    return column.read()


def mapped(order: array[int], folder: Path | None) -> Order:
    """Numbers of four bytes, as a column keeps them."""
    column = Column(np.int32, folder)
    column.append(np.frombuffer(order, np.int32))
    return column.read().data
