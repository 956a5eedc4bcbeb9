"""Reads rows of Arrow IPC files: feather, and the files of `save_to_disk` of `datasets`, which are streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.data.reading.file_rows import Limits, Problem, RawRow, Source
from core.data.reading.table_rows import batch_rows, check_columns
from core.data.reading.zips import seekable
from core.errors import DataError, reason_of
from core.values import MIB

if TYPE_CHECKING:
    import pyarrow


STREAM = b"\xff\xff\xff\xff"  # the beginning of a stream; a file begins with ARROW1


def arrow_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem]:
    """Yield the rows of an Arrow file or stream; a row larger than limits.row_bytes is a Problem.

    Raises DataError where the file is broken, with the number of the row, and for too many or doubled columns or more
    than limits.bytes in all.
    """
    import pyarrow

    row = 0
    try:
        with seekable(source.path) as file:
            # `datasets` saves streams; Feather is a file.
            is_stream = file.read(len(STREAM)) == STREAM
            file.seek(0)
            opened = (pyarrow.ipc.open_stream if is_stream else pyarrow.ipc.open_file)(file)
            check_columns(opened.schema.names, source, limits)
            for item in batch_rows(_batches(opened, is_stream, source, limits), limits):
                row = item.row
                yield item
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError("data.broken_arrow", file=source.path.name, row=row + 1, reason=reason_of(error)) from None


def _batches(
    opened: pyarrow.ipc.RecordBatchFileReader | pyarrow.ipc.RecordBatchStreamReader,
    is_stream: bool,
    source: Source,
    limits: Limits,
) -> Iterator[pyarrow.RecordBatch]:
    """Yield validated batches of at most 256 rows. Raises DataError once they are together larger than limits.bytes."""
    unpacked = 0
    for batch in opened if is_stream else map(opened.get_batch, range(opened.num_record_batches)):
        batch.validate(full=True)  # offsets beyond the data would be read otherwise
        unpacked += batch.nbytes
        if unpacked > limits.bytes:
            raise DataError("data.too_large_unpacked", file=source.path.name, limit_mib=limits.bytes // MIB)
        # Small slices: a file may be one batch, and its rows become Python objects.
        yield from (batch.slice(start, 256) for start in range(0, batch.num_rows, 256))
