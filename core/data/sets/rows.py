"""The rows of a file, stored once in an Arrow file that is mapped and never loaded. No torch.

<name>.arrow: row (int64, its number in the file), line (int64, or null), and either example (the JSON of
Example.as_dict()) or why there
is none: problem (the JSON of a Problem, null for an answer that is marked as a bad one) and values (the JSON of its
columns, where it has some). One writer: `writing`, which puts it there whole or not at all, also where two threads
begin at once or the power fails. It is made again from the source wherever it is missing or cut short. A row is found
in some 20 microseconds; the file is as large as the source.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import files
from core.data.formats import Example, Read
from core.data.reading.rows import Problem
from core.values import MIB

if TYPE_CHECKING:
    import pyarrow

ROWS_A_BATCH = 1000
BATCH_BYTES = 8 * MIB  # a row may have 4 MiB: a thousand of those would fill the memory
MOST_MAPPED = 8  # batches, of up to 8 MiB and most often of half a MiB, until what was read is let go
IN_MEMORY_BYTES = 8 * MIB  # what is smaller is read, and its file not held open
_STALE_S = 3600


class Rows(Sequence[tuple[int, Example]]):
    """What can be learned from, one row at a time: (its number in the file, what it says). `stored` has the others too.

    Threads may share it. `close` lets go of the file, for Windows removes none that is open; whoever asks again opens
    it again.
    """

    def __init__(self, source: Path | pyarrow.Buffer):
        """Raises OSError or ValueError where it is no such file, or not whole."""
        self._source, self._guard = source, threading.Lock()
        self._file: Any = None
        self._reader: Any = None
        self._last: tuple[int, Any] = (-1, None)
        self._fetched = 0  # batches
        self._starts: list[int] = [0]
        self._flawed: Any = None  # (F,) positions, among all rows, of those that cannot be learned from
        self._open()

    def _open(self) -> Any:
        import numpy as np

        if self._reader is None:
            self._map()
            self._starts, flawed = [0], []
            for batch in self._each():
                flawed.append(np.flatnonzero(batch.column("example").is_null()) + self._starts[-1])
                self._starts.append(self._starts[-1] + batch.num_rows)
            self._flawed = np.concatenate([np.empty(0, np.int64), *flawed])
            self._before = self._flawed - np.arange(len(self._flawed))  # good rows before each
        return self._reader

    def _each(self) -> Iterator[Any]:
        """All batches, one after the other; nobody keeps one, for it would keep what is mapped of all before it."""
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number)
            if number % MOST_MAPPED == MOST_MAPPED - 1:
                self._map()
        self._map()

    def _map(self) -> None:
        """Anew, where it is mapped already: what was read of a mapped file counts as memory of this process until it is
        let go."""
        import pyarrow as pa

        source = self._source
        if not isinstance(source, Path):
            file: Any = pa.BufferReader(source)
        elif source.stat().st_size <= IN_MEMORY_BYTES:
            if self._reader is not None:
                return
            file = pa.BufferReader(source.read_bytes())
        else:
            file = pa.memory_map(str(source))
        reader = pa.ipc.open_file(file)
        if self._reader is not None:
            self._file.close()
        self._file, self._reader = file, reader

    def close(self) -> None:
        with self._guard:
            if self._reader is not None:
                self._reader, self._last = None, (-1, None)
                self._file.close()

    @property
    def path(self) -> Path | None:
        """None where they are in memory alone."""
        return self._source if isinstance(self._source, Path) else None

    @property
    def key(self) -> str:
        """Of which file they are, and how it was read."""
        return self.path.name if self.path else ""

    def _batch(self, position: int) -> tuple[Any, int]:
        """Of all rows: the batch that has it, and where."""
        number = bisect_right(self._starts, position) - 1
        last, batch = self._last
        if last != number:
            with self._guard:
                self._last = (-1, None)
                self._fetched += 1
                if self._fetched % MOST_MAPPED == 0 and self._reader is not None:
                    self._map()
                batch = self._open().get_batch(number)
            self._last = number, batch
        return batch, position - self._starts[number]

    def __len__(self) -> int:
        return self._starts[-1] - len(self._flawed)

    def __getitem__(self, index: int) -> tuple[int, Example]:  # type: ignore[override]  # no slice is ever asked for
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._of_file(index)

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        return ((number, example_of(said)) for number, said in self.texts())

    def texts(self) -> Iterator[tuple[int, str]]:
        """Of each row its number and what it says, as `as_json`: one after the other, in a third of the time of asking
        for each."""
        for begin in self._starts[:-1]:
            batch, _ = self._batch(begin)
            for number, said in zip(batch.column("row").to_pylist(), batch.column("example").to_pylist(), strict=True):
                if said is not None:
                    yield number, said

    def _good(self, index: int) -> tuple[Any, int]:
        """Of those that can be learned from: the batch that has it, and where."""
        return self._batch(index + (int(self._before.searchsorted(index, "right")) if len(self._before) else 0))

    def _of_file(self, index: int) -> tuple[int, Example]:
        batch, at = self._good(index)
        return batch.column("row")[at].as_py(), example_of(batch.column("example")[at].as_py())

    def as_json(self, index: int) -> str:
        """What a row says, as `Example.as_json` writes it, in a tenth of the time that an example takes."""
        batch, at = self._good(index)
        return batch.column("example")[at].as_py()

    def number(self, index: int) -> int:
        """Of a row that can be learned from, in its file."""
        batch, at = self._good(index)
        return batch.column("row")[at].as_py()

    def numbers(self) -> Any:
        """(N,) of all of them."""
        return self._numbers_of(self._starts[-1] - len(self._flawed), is_good=True)

    def _numbers_of(self, count: int, is_good: bool) -> Any:
        """(count,) numbers in the file of the rows that can be learned from, or of those that cannot."""
        import numpy as np

        with self._guard:
            self._open()
            found, at = np.empty(count, np.int64), 0
            for batch in self._each():
                example = batch.column("example")
                rows = batch.column("row").filter(example.is_valid() if is_good else example.is_null())
                found[at : at + len(rows)] = rows
                at += len(rows)
        return found

    def keys(self, positions: Any) -> Any:
        """By what is kept of each row; the same for the same row in every version."""
        return positions

    @property
    def examples(self) -> Examples:
        return Examples(self)

    @property
    def stored(self) -> int:
        """All rows of the file, those with an error among them."""
        return self._starts[-1]

    @property
    def flawed(self) -> Any:
        """(F,) positions, among all rows of the file, of those that cannot be learned from."""
        return self._flawed

    def flawed_numbers(self) -> Any:
        """(F,) numbers in the file of those at `flawed`."""
        return self._numbers_of(len(self._flawed), is_good=False)

    def entry(self, position: int) -> dict[str, Any]:
        """Of all rows, as it is kept: row, line, example, values, problem."""
        if not 0 <= position < self.stored:
            raise IndexError(position)
        batch, at = self._batch(position)
        return {name: batch.column(name)[at].as_py() for name in batch.schema.names}


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

        text = pa.string()
        fields = [("row", pa.int64()), ("line", pa.int64()), ("example", text), ("values", text), ("problem", text)]
        self._schema = pa.schema(fields)
        self._writer = pa.ipc.new_file(sink, self._schema)
        self._begin()

    def _begin(self) -> None:
        self._rows: list[tuple[Any, ...]] = []
        self._size = 0

    def add(self, read: Read) -> None:
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
