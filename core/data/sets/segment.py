"""Tokens of some rows as one Arrow file, a line for each example or refused row. No torch.

<crc32 of the file>-<name>.tokens, with the columns of `_columns`. The process that counted the rows writes a temporary
file and renames it. A damaged file raises ValueError when it is read; its rows are counted again.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core import files
from core.data.text_pieces import Borders
from core.files import JsonObject
from core.messages import Message
from core.workspace.names import short_id

if TYPE_CHECKING:
    import pyarrow

# Marks of a row: it has a message with thinking; it begins with a system message; its answer is marked as bad.
THOUGHTS, SYSTEM, BAD = 1, 2, 4


@dataclass(frozen=True)
class Counted:
    """An example with its counted tokens.

    runs: (first token, after the last) of what is learned; never the first token, which nothing predicts. borders: of
    plain text. ids: empty if the length is an estimate. thinks: its prompt asks for thinking. unlearned: earlier
    answers that are not learned.
    """

    length: int
    runs: Sequence[Sequence[int]]
    borders: Borders | None
    ids: Sequence[int] = ()
    thinks: bool = False
    unlearned: int = 0


def _columns() -> pyarrow.Schema:
    """Return the columns of a segment; a line is one example."""
    import pyarrow as pa

    numbers = pa.list_(pa.int32())
    return pa.schema(
        {
            "key": pa.int64(),  # of the row
            "marks": pa.uint8(),  # of the row
            "refused": pa.string(),  # the Message why the template refuses the row, as JSON
            "length": pa.int32(),
            "thinks": pa.bool_(),
            "unlearned": pa.int32(),
            "runs": numbers,  # first token, after the last, first token, ...
            "borders": pa.list_(numbers),  # of plain text alone
            "ids": numbers,
        }
    )


@dataclass(eq=False)
class Segment:
    """Token ids of some examples, in the file at path or in memory."""

    path: Path | None
    column: pyarrow.ListArray | None = None

    @cached_property
    def ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (T,) int32 of all examples, and (E + 1,) where each begins. Raises OSError if the file is gone."""
        import pyarrow as pa

        column = self.column
        if column is None:
            column = pa.ipc.open_file(pa.memory_map(str(self.path))).get_batch(0)["ids"]  # all of it is one batch
        return column.values.to_numpy(), column.offsets.to_numpy()


class Builder:
    """Collects counted rows until there are enough for a segment."""

    def __init__(self) -> None:
        self._lines: list[JsonObject] = []
        self.rows = self.tokens = 0

    def refuse(self, key: int, why: Message) -> None:
        """Add a row that the template refuses, as a line without an example."""
        self._lines.append({"key": key, "marks": 0, "refused": why.model_dump_json()})
        self.rows += 1

    def add(self, key: int, marks: int, examples: Sequence[Counted]) -> None:
        """Add a row's examples, one line each. key: by which the row is recognized later; marks: sum of THOUGHTS,
        SYSTEM and BAD as they apply to the row."""
        for one in examples:
            self._lines.append(
                {
                    "key": key,
                    "marks": marks,
                    "length": one.length,
                    "thinks": one.thinks,
                    "unlearned": one.unlearned,
                    "runs": [place for run in one.runs for place in run],
                    "borders": None if one.borders is None else [list(kind) for kind in one.borders],
                    "ids": np.array(one.ids, np.int32),
                }
            )
            self.tokens += one.length
        self.rows += 1

    def table(self) -> pyarrow.Table:
        """Return the lines that were added, with the columns of a segment."""
        import pyarrow as pa

        return pa.Table.from_pylist(self._lines, _columns())


def write(table: pyarrow.Table, folder: Path) -> Path:
    """Write a segment into a new file of folder and return its path, whose name begins with the checksum. Raises
    OSError."""
    import pyarrow as pa

    # In memory first: the file's name begins with the checksum of its bytes.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    raw = sink.getvalue().to_pybytes()
    path = folder / f"{zlib.crc32(raw):08x}-{short_id()}.tokens"
    folder.mkdir(parents=True, exist_ok=True)
    files.replace(path, raw)
    return path


def read(path: Path) -> pyarrow.Table:
    """Return all columns but the ids, in memory. Raises OSError, ValueError if the checksum or the format is
    another."""
    import pyarrow as pa

    raw = path.read_bytes()
    if not path.name.startswith(f"{zlib.crc32(raw):08x}-"):
        raise ValueError("damaged")
    return without_ids(pa.ipc.open_file(raw).read_all())


def without_ids(table: pyarrow.Table) -> pyarrow.Table:
    """Return a copy without the ids, so that those need not stay in memory."""
    return table.drop_columns(["ids"]).take(np.arange(len(table)))
