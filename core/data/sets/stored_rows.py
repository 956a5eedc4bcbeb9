"""The rows of a file, stored once in an Arrow file that is mapped and never loaded. No torch.

<name>.arrow: row (int64, its number in the file), line (int64, or null), and either example (the JSON of
Example.as_dict()) or the reason why there is none: problem (the JSON of a Problem, null for an answer that is marked as
bad) and values (the JSON of its columns, if any); validation (of sets written since 2026-12: whether the set itself
keeps the row for validation); joint (index in JOINTS: how it continues the text of the row before); page (of a PDF,
else 0; since 2026-12). `writing_rows` is the only writer; the file appears complete or not at all, also if two threads
write at once or the power fails. A missing or damaged file is made again from the source.
Reading a row takes some 20 microseconds; the file is as large as the source.
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
from core.data.sets.paragraphs import JOINTS, Paragraphs
from core.values import MIB

if TYPE_CHECKING:
    import pyarrow

ROWS_A_BATCH = 10_000
BATCH_BYTES = 8 * MIB  # a row may have 4 MiB: ROWS_A_BATCH of those would fill the memory
STRETCH, MAX_LOOKS = 1000, 25  # rows that are read together, half a MiB; stretches that stay mapped
FIELDS = ("row", "line", "example", "values", "problem")
VALIDATION, JOINT, PAGE = "validation", "joint", "page"
IN_MEMORY_BYTES = 8 * MIB  # smaller files are read and not kept open
_STALE_S = 3600


class Rows(Sequence[tuple[int, Example]]):
    """The trainable rows of a file, read one at a time as (number in the file, example); an index below 0 raises
    IndexError. `stored` also counts the others.

    Threads may share it. `close` releases the file, because Windows removes no open file; the next access opens it
    again.
    """

    def __init__(self, source: Path | pyarrow.Buffer):
        """Open source and find its rows that cannot be trained. Raises OSError or ValueError if source is no such file,
        or incomplete."""
        self._source = source
        self._kept: pyarrow.Table | None = None
        self._stretch, self._looks = -1, 0
        self.has_splits = True  # False for a set that was added before its files of validation rows were
        self.joins = True  # False for runs that began before the paragraphs of a text were joined
        is_good = self._table["example"].is_valid().to_numpy()
        self._stored, self._flawed = len(is_good), np.flatnonzero(~is_good)
        self._before = self._flawed - np.arange(len(self._flawed))  # good rows before each
        # Closed until a row is read: Windows removes no open file.
        self.close()

    def _read(self, mapped: bool) -> Any:
        """Open the file for reading: in memory if it is small, else mapped or read."""
        import pyarrow as pa

        source: Any = self._source
        if isinstance(source, Path) and source.stat().st_size <= IN_MEMORY_BYTES:
            source = source.read_bytes()
        if isinstance(source, Path):
            # Mapped pages count as memory: a million rows took half a GB.
            source = pa.memory_map(str(source)) if mapped else pa.OSFile(str(source))
        return pa.ipc.open_file(source)

    @property
    def _table(self) -> pyarrow.Table:
        """All rows of the file, mapped; opened anew after `close`."""
        if (table := self._kept) is None:
            table = self._kept = self._read(mapped=True).read_all()
        return table

    def _cell(self, name: str, place: int) -> Any:
        """Return one value of a stored row: column `name`, at the position `place` among all rows of the file.

        After reads in MAX_LOOKS different blocks of STRETCH rows the memory map is closed and opened anew, so that its
        pages are freed.
        """
        if (stretch := place // STRETCH) != self._stretch:
            self._stretch, self._looks = stretch, self._looks + 1
            if self._looks % MAX_LOOKS == 0:  # pages of a map count as memory until it is closed
                self.close()
        return self._table[name][place].as_py()

    def close(self) -> None:
        """Release the file; the next access opens it again."""
        self._kept = None

    @property
    def path(self) -> Path | None:
        """Path of the file; None if the rows are in memory."""
        return self._source if isinstance(self._source, Path) else None

    @property
    def key(self) -> str:
        """Name that identifies the file's bytes and how they were read; "" for rows without a file."""
        return self.path.name if self.path else ""

    def __len__(self) -> int:
        return self._stored - len(self._flawed)

    def __getitem__(self, index: int) -> tuple[int, Example]:  # type: ignore[override]  # no caller takes a slice
        """Return (number in the file, example) of the trainable row at this position, from 0. Raises IndexError beyond
        them and below 0."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._stored_row(index)

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        return ((number, example_of(text)) for number, text in self.texts())

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the JSON text (`as_json`) of every trainable row.

        Read batch by batch without a memory map, because pages read through a map count as the process's memory.
        """
        file = self._read(mapped=False)
        for batch in map(file.get_batch, range(file.num_record_batches)):
            for number, text in zip(batch.column("row").to_pylist(), batch.column("example").to_pylist(), strict=True):
                if text is not None:
                    yield number, text

    def _place(self, index: int) -> int:
        """Return the position among all rows of the file. index: position among the trainable rows."""
        return index + int(self._before.searchsorted(index, "right"))

    def _stored_row(self, index: int) -> tuple[int, Example]:
        """Return (number in the file, example) of the trainable row at this position, as the file has it, whatever a
        version has changed."""
        place = self._place(index)
        return self._cell("row", place), example_of(self._cell("example", place))

    def as_json(self, index: int) -> str:
        """Return a row's example as `Example.as_json` writes it, in a tenth of the time that an Example takes."""
        return self._cell("example", self._place(index))

    def number(self, index: int) -> int:
        """Return the number in the file of a trainable row."""
        return self._cell("row", self._place(index))

    def numbers(self) -> np.ndarray:
        """Return the numbers (N,) of all trainable rows."""
        return np.delete(self._table["row"].to_numpy(), self._flawed)

    def validation(self) -> np.ndarray | None:
        """Return flags (N,), True for each trainable row that the set itself keeps for validation; None if it keeps
        none or all of them, or was added before such rows were recognized."""
        apart = self._validation_numbers()
        is_apart = np.isin(self.numbers(), apart) if len(apart) else np.zeros(0, bool)
        return is_apart if is_apart.any() and not is_apart.all() else None

    def _validation_numbers(self) -> np.ndarray:
        """Return the numbers in the file of the rows that it keeps for validation."""
        if not self.has_splits or VALIDATION not in self._table.column_names:
            return np.zeros(0, np.int64)
        return self._table["row"].to_numpy()[self._table[VALIDATION].to_numpy()]

    def paragraphs(self) -> Paragraphs | None:
        """Return which rows continue the text of the row before; None if none does, or if they are not to be joined."""
        import pyarrow.compute

        if (
            not self.joins
            or JOINT not in self._table.column_names
            or not (joints := self._table[JOINT].to_numpy()).any()
        ):
            return None
        stored, numbers = self._table["row"].to_numpy(), self.numbers()
        place = np.minimum(np.searchsorted(stored, numbers), len(stored) - 1)
        text = np.where(stored[place] == numbers, np.cumsum(joints == 0)[place], -1)  # -1: a row that was added
        joint = np.where((text >= 0) & (np.diff(text, prepend=-1) == 0), joints[place], 0).astype(np.uint8)
        sizes = pyarrow.compute.fill_null(pyarrow.compute.binary_length(self._table["example"]), 0).to_numpy()
        return Paragraphs(joint, sizes[place]) if joint.any() else None

    def pages(self) -> dict[int, int]:
        """Return the pages of the PDF that the rows of the file stand on, by the rows' numbers; empty for others."""
        if PAGE not in self._table.column_names or not (pages := self._table[PAGE].to_numpy()).any():
            return {}
        return dict(zip(self._table["row"].to_pylist(), pages.tolist(), strict=True))

    def keys(self, positions: np.ndarray) -> np.ndarray:
        """Return a number for each row at these positions, by which the same row is known in every version of the
        dataset. In the rows as they were imported it is the position itself; equal contents may have different keys."""
        return positions

    @property
    def examples(self) -> Examples:
        """The examples of the trainable rows, without their numbers."""
        return Examples(self)

    @property
    def stored(self) -> int:
        """Number of rows of the file, including those with an error."""
        return self._stored

    @property
    def flawed(self) -> np.ndarray:
        """Positions (F,), among all rows of the file, of those that cannot be trained."""
        return self._flawed

    def flawed_numbers(self) -> np.ndarray:
        """Return the numbers (F,) in the file of the rows at `flawed`."""
        return self._table["row"].to_numpy()[self._flawed]

    def entry(self, position: int) -> dict[str, Any]:
        """Return a stored row with the keys FIELDS. position: among all rows of the file. Raises IndexError beyond
        them."""
        if not 0 <= position < self.stored:
            raise IndexError(position)
        return {name: self._cell(name, position) for name in FIELDS}


def open_rows(file: Path) -> Rows | None:
    """Open a file of rows. Return None if it is missing, or damaged; a damaged file is removed."""
    try:
        return Rows(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # pyarrow raises both
        with contextlib.suppress(OSError):
            file.unlink()
        return None


class Examples(Sequence[Example]):
    """The examples of rows without their numbers, as training reads them."""

    def __init__(self, rows: Rows):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        return self.rows[index][1]

    def __iter__(self) -> Iterator[Example]:
        return (example for _, example in self.rows)


def example_of(stored: str) -> Example:
    """Return the example that is stored as this JSON."""
    return Example.from_dict(json.loads(stored))


class Writer:
    """Writes the results of reading rows, in order."""

    def __init__(self, sink: Any):
        """Begin an Arrow file in sink."""
        import pyarrow as pa

        kinds = (pa.int64(), pa.int64(), pa.string(), pa.string(), pa.string())
        others = (VALIDATION, pa.bool_()), (JOINT, pa.uint8()), (PAGE, pa.int32())
        self._schema = pa.schema([*zip(FIELDS, kinds, strict=True), *others])
        self._writer = pa.ipc.new_file(sink, self._schema)
        self._begin_batch()

    def _begin_batch(self) -> None:
        """Forget the rows that were collected, to begin an empty batch. Nothing is written."""
        self._rows: list[tuple[object, ...]] = []
        self._size = 0

    def add(self, row: ReadRow) -> None:
        """Add a row: its example, or its values with the first problem. Full batches are written."""
        example, values, problem = row.example, None, None
        if example is None:
            values = None if row.values is None else json.dumps(row.values, ensure_ascii=False, default=str)
            problem = row.problems[0].model_dump_json() if row.problems else None
        joint = 0 if row.joint is None or example is None else JOINTS.index(row.joint)
        self._rows.append((row.number, row.line, example, values, problem, row.validation, joint, row.page))
        self._size += len(example or values or "")
        if len(self._rows) >= ROWS_A_BATCH or self._size >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write the rows that wait as one batch, and begin a new one."""
        import pyarrow as pa

        arrays = [
            pa.array(column, field.type)
            for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        self._begin_batch()

    def close(self) -> None:
        """Write the rows that still wait, and complete the file."""
        if self._rows:
            self._flush()
        self._writer.close()


class InMemory:
    """Collects the results of reading rows, for Rows without a file."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._sink = pa.BufferOutputStream()
        self._writer = Writer(self._sink)
        self.add = self._writer.add

    def rows(self) -> Rows:
        """End the writing, and return all rows; nothing can be added after that."""
        self._writer.close()
        return Rows(self._sink.getvalue())


def problem_of(stored: str | None) -> Problem | None:
    """Return the problem that is stored as this JSON; None for a row without one."""
    return Problem.model_validate_json(stored) if stored else None


@contextlib.contextmanager
def writing_rows(target: Path) -> Iterator[Writer]:
    """Context manager: a Writer; target appears at the end, complete, and not at all after an exception, kept as it is
    if another process wrote it. Raises OSError."""
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
            if not target.exists():  # else another thread wrote and mapped it first: Windows cannot replace it
                raise
    finally:
        aside.unlink(missing_ok=True)


def _clear(target: Path) -> None:
    """Remove files beside target of killed processes, and rows in the format of another version of this app; errors are
    ignored."""
    current_prefix = target.name.rpartition("-")[0] + "-"
    for file in target.parent.glob("*.arrow*"):
        with contextlib.suppress(OSError):  # being written, or mapped
            is_old = file.name.startswith("rows-") and not file.name.startswith(current_prefix)
            if is_old or (file.name.startswith(".") and time.time() - file.stat().st_mtime > _STALE_S):
                file.unlink()
