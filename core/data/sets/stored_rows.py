"""The rows of a file, stored once in an Arrow file that is mapped and never loaded. No torch.

<name>.arrow: row (int64, its number in the file), line (int64, or null), and either example (the JSON of
Example.as_dict()) or why there is none: problem (the JSON of a Problem, null for an answer that is marked as a bad one)
and values (the JSON of its columns, where it has some). One writer: `writing`, which puts it there whole or not at all,
also where two threads begin at once or the power fails. It is made again from the source wherever it is missing or cut
short. A row is found in some 20 microseconds; the file is as large as the source.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core import files
from core.data.formats import Example, ReadRow
from core.data.reading.file_rows import Problem
from core.values import MIB

if TYPE_CHECKING:
    import pyarrow

ROWS_A_BATCH = 10_000
BATCH_BYTES = 8 * MIB  # a row may have 4 MiB: as many of those would fill the memory
STRETCH, MOST_LOOKS = 1000, 25  # rows that are read of the disk together, half a MiB; how many stay mapped
FIELDS = ("row", "line", "example", "values", "problem")
IN_MEMORY_BYTES = 8 * MIB  # what is smaller is read, and its file not held open
_STALE_S = 3600


class Rows(Sequence[tuple[int, Example]]):
    """What can be learned from, one row at a time: (its number in the file, what it says). `stored` has the others too.

    Threads may share it. `close` lets go of the file, for Windows removes none that is open; whoever asks again opens
    it again.
    """

    def __init__(self, source: Path | pyarrow.Buffer):
        """Raises OSError or ValueError where it is no such file, or not whole."""
        self._source = source
        self._kept: pyarrow.Table | None = None
        self._stretch, self._looks = -1, 0
        is_good = self._table["example"].is_valid().to_numpy()
        self._stored, self._flawed = len(is_good), np.flatnonzero(~is_good)
        self._before = self._flawed - np.arange(len(self._flawed))  # good rows before each
        self.close()

    def _read(self, mapped: bool) -> Any:
        import pyarrow as pa

        source: Any = self._source
        if isinstance(source, Path) and source.stat().st_size <= IN_MEMORY_BYTES:
            source = source.read_bytes()
        if isinstance(source, Path):
            source = pa.memory_map(str(source)) if mapped else pa.OSFile(str(source))
        return pa.ipc.open_file(source)

    @property
    def _table(self) -> pyarrow.Table:
        """All rows of the file, mapped."""
        if (table := self._kept) is None:
            table = self._kept = self._read(mapped=True).read_all()
        return table

    def _cell(self, name: str, place: int) -> Any:
        """place: among all rows of the file."""
        if (stretch := place // STRETCH) != self._stretch:
            self._stretch, self._looks = stretch, self._looks + 1
            if self._looks % MOST_LOOKS == 0:  # what is read of a map counts as memory until it is let go
                self.close()
        return self._table[name][place].as_py()

    def close(self) -> None:
        self._kept = None

    @property
    def path(self) -> Path | None:
        """None where they are in memory alone."""
        return self._source if isinstance(self._source, Path) else None

    @property
    def key(self) -> str:
        """Of which file they are, and how it was read."""
        return self.path.name if self.path else ""

    def __len__(self) -> int:
        return self._stored - len(self._flawed)

    def __getitem__(self, index: int) -> tuple[int, Example]:  # type: ignore[override]  # no caller takes a slice
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._of_file(index)

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        return ((number, example_of(said)) for number, said in self.texts())

    def texts(self) -> Iterator[tuple[int, str]]:
        """The number and the JSON text (`as_json`) of every row that can be learned from.

        ReadRow batch by batch without a memory map, because pages read through a map count as the process's memory.
        """
        file = self._read(mapped=False)
        for batch in map(file.get_batch, range(file.num_record_batches)):
            for number, said in zip(batch.column("row").to_pylist(), batch.column("example").to_pylist(), strict=True):
                if said is not None:
                    yield number, said

    def _place(self, index: int) -> int:
        """The position among all rows of the file. index: of a row among those that can be learned from."""
        return index + int(self._before.searchsorted(index, "right"))

    def _of_file(self, index: int) -> tuple[int, Example]:
        place = self._place(index)
        return self._cell("row", place), example_of(self._cell("example", place))

    def as_json(self, index: int) -> str:
        """What a row says, as `Example.as_json` writes it, in a tenth of the time that an example takes."""
        return self._cell("example", self._place(index))

    def number(self, index: int) -> int:
        """Of a row that can be learned from, in its file."""
        return self._cell("row", self._place(index))

    def numbers(self) -> np.ndarray:
        """(N,) of all of them."""
        return np.delete(self._table["row"].to_numpy(), self._flawed)

    def keys(self, positions: Any) -> Any:
        """By what is kept of each row; the same for the same row in every version."""
        return positions

    @property
    def examples(self) -> Examples:
        return Examples(self)

    @property
    def stored(self) -> int:
        """All rows of the file, those with an error among them."""
        return self._stored

    @property
    def flawed(self) -> np.ndarray:
        """(F,) positions, among all rows of the file, of those that cannot be learned from."""
        return self._flawed

    def flawed_numbers(self) -> np.ndarray:
        """(F,) numbers in the file of those at `flawed`."""
        return self._table["row"].to_numpy()[self._flawed]

    def entry(self, position: int) -> dict[str, Any]:
        """Of all rows, as it is kept: row, line, example, values, problem."""
        if not 0 <= position < self.stored:
            raise IndexError(position)
        return {name: self._cell(name, position) for name in FIELDS}


def opened(file: Path) -> Rows | None:
    """None where it is missing, or damaged: then it is made again."""
    try:
        return Rows(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # pyarrow's are of both kinds
        with contextlib.suppress(OSError):
            file.unlink()
        return None


class Examples(Sequence[Example]):
    """The same without the numbers, as training reads them."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return self.rows[index][1]

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.rows)


def example_of(stored: str) -> Example:
    return Example.from_dict(json.loads(stored))


class Writer:
    """Takes what became of each row, in order."""

    def __init__(self, sink: Any):
        import pyarrow as pa

        kinds = (pa.int64(), pa.int64(), pa.string(), pa.string(), pa.string())
        self._schema = pa.schema(list(zip(FIELDS, kinds, strict=True)))
        self._writer = pa.ipc.new_file(sink, self._schema)
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._size = 0

    def add(self, read: ReadRow) -> None:
        example, values, problem = read.example, None, None
        if example is None:
            values = None if read.values is None else json.dumps(read.values, ensure_ascii=False, default=str)
            problem = read.problems[0].model_dump_json() if read.problems else None
        self._rows.append((read.number, read.line, example, values, problem))
        self._size += len(example or values or "")
        if len(self._rows) >= ROWS_A_BATCH or self._size >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        arrays = [
            pa.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._begin()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()


def problem_of(stored: str | None) -> Problem | None:
    return Problem.model_validate_json(stored) if stored else None


@contextlib.contextmanager
def writing(target: Path) -> Iterator[Writer]:
    """What is added inside becomes target at its end, whole, and nothing if it ends early. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear(target)
    aside = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with open(aside, "wb") as sink:
            writer = Writer(sink)
            yield writer
            writer.close()
            sink.flush()
            os.fsync(sink.fileno())
        try:
            if not target.exists():
                files.rename(aside, target)
        except OSError:
            if not target.exists():  # else another one was quicker, and has it mapped: Windows lets nobody replace it
                raise
    finally:
        aside.unlink(missing_ok=True)


def _clear(target: Path) -> None:
    """What a killed process left, and rows as other versions of this app read them."""
    of_now = target.name.rpartition("-")[0] + "-"
    for left in target.parent.glob("*.arrow*"):
        with contextlib.suppress(OSError):  # still written, or mapped
            is_old = left.name.startswith("rows-") and not left.name.startswith(of_now)
            if is_old or (left.name.startswith(".") and time.time() - left.stat().st_mtime > _STALE_S):
                left.unlink()
