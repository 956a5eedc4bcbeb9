"""Joins several files of one kind: Parquet shards, line files, tables with one header; unpacks compressed ones. Holds one group of rows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from core import files
from core.errors import DataError, reason_of
from core.hub.sets.parts import PACKED, Part

CHUNK = 1 << 20  # bytes


def is_packed(path: Path) -> bool:
    return path.suffix.lower() in PACKED


def opened(path: Path) -> IO[bytes]:
    """For reading, unpacked where its name says that it is packed."""
    packing = PACKED.get(path.suffix.lower())
    if packing is None:
        return open(path, "rb")
    import pyarrow

    stream: IO[bytes] = pyarrow.input_stream(str(path), compression=packing)
    return stream


def joined(part: Part, came: Sequence[Path], target: Path) -> list[Path]:
    """What came as one file, target; arrays of JSON only unpacked, each on its own. Raises DataError."""
    aside = target.with_name(f".{target.name}")
    try:
        if part.kind == "json":
            return [_unpacked(path, target.with_name(f"{number:05}.json")) for number, path in enumerate(came)]
        if part.kind == "parquet":
            _parquet(part, came, aside)
        else:
            _text(part, came, aside)
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _broken(part, came[0], error) from None
    files.rename(aside, target)
    return [target]


def _unpacked(path: Path, target: Path) -> Path:
    with closing(opened(path)) as source, open(target, "wb") as file:
        while chunk := source.read(CHUNK):
            file.write(chunk)
    return target


def _parquet(part: Part, came: Sequence[Path], target: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    writer: Any = None
    try:
        for path in came:
            with pyarrow.parquet.ParquetFile(path) as file:
                writer = writer or pyarrow.parquet.ParquetWriter(target, file.schema_arrow)
                for batch in file.iter_batches(batch_size=1_000, use_threads=False):
                    table = pyarrow.Table.from_batches([batch])
                    if table.schema != writer.schema:
                        table = table.select(writer.schema.names).cast(writer.schema)
                    writer.write_table(table)
    except (KeyError, pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError) as error:
        raise _broken(part, path, error) from None
    finally:
        if writer is not None:
            writer.close()


def _text(part: Part, came: Sequence[Path], target: Path) -> None:
    """A file's last line may have no end; a table's header stands once, and an empty line between texts."""
    header = b""
    with open(target, "wb") as file:
        for number, path in enumerate(came):
            with closing(opened(path)) as source:
                first = _first_line(source) if part.kind in ("csv", "tsv") else b""
                if number == 0:
                    header = first
                elif first.strip() != header.strip():
                    raise DataError("hub_set.other_columns", repo=part.listing.repo_id, file=part.files[number].name)
                if number:
                    file.write(b"\n\n" if part.kind == "txt" else b"")
                else:
                    file.write(first)
                last = first
                while chunk := source.read(CHUNK):
                    file.write(chunk)
                    last = chunk
                if not last.endswith(b"\n"):
                    file.write(b"\n")


def _first_line(source: IO[bytes]) -> bytes:
    line = bytearray()
    while (byte := source.read(1)) and len(line) < CHUNK:
        line += byte
        if byte == b"\n":
            break
    return bytes(line)


def _broken(part: Part, path: Path, error: Exception) -> DataError:
    return DataError("hub_set.broken_file", repo=part.listing.repo_id, file=path.name, reason=reason_of(error))
