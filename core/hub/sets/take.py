"""The first rows of a part without the rest of its files: Parquet group by group, text line by line, until there are enough.

What has come of Parquet lies in pieces of up to PIECE rows, each there only when it is whole, so that a kill or a pause costs one piece. Text begins
anew: 20,000 lines are a few megabytes.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import get_session, hf_raise_for_status

from core import files
from core.errors import DataError, reason_of
from core.hub.answers import NotAHub
from core.hub.listing import TIMEOUT_S, File
from core.hub.sets.parts import PACKED, Part
from core.hub.sets.ranged import RangedFile

PIECE = 1_000  # rows
BUFFER = 2 << 20  # bytes of a column of Parquet
LONGEST_LINE = 16 << 20  # bytes; four times what a row may be


class Taking:
    """rows: how many are wanted. check: called often, may raise. done may be read from any thread."""

    def __init__(self, part: Part, rows: int, endpoint: str, check: Callable[[], None]):
        self._part, self._rows, self._endpoint, self._check = part, rows, endpoint, check
        self.done = 0

    # --- Parquet
    def parquet(self, folder: Path) -> list[Path]:
        """The pieces, in order. Raises DataError, HTTPError, NotAHub, OSError."""
        import pyarrow
        import pyarrow.parquet

        folder.mkdir(parents=True, exist_ok=True)
        pieces: list[Path] = []
        while (piece := folder / f"{self.done:09}.parquet").is_file() and self.done < self._rows:
            pieces.append(piece)
            self.done += pyarrow.parquet.read_metadata(piece).num_rows
        for batch in self._batches(self.done):
            batch = batch.slice(0, self._rows - self.done)
            piece = folder / f"{self.done:09}.parquet"
            aside = piece.with_name(f".{piece.name}")
            pyarrow.parquet.write_table(pyarrow.Table.from_batches([batch]), aside)
            files.rename(aside, piece)
            pieces.append(piece)
            self.done += batch.num_rows
            if self.done >= self._rows:
                break
        return pieces

    def _batches(self, skip: int) -> Iterator[Any]:
        import pyarrow
        import pyarrow.parquet

        for file in self._part.files:
            raw = RangedFile(self._part.listing, file, self._endpoint, self._check)
            try:
                with pyarrow.parquet.ParquetFile(pyarrow.PythonFile(raw, "r"), buffer_size=BUFFER, pre_buffer=False) as parquet:
                    for group in range(parquet.num_row_groups):
                        if skip >= (rows := parquet.metadata.row_group(group).num_rows):
                            skip -= rows
                            continue
                        for batch in parquet.iter_batches(PIECE, row_groups=[group], use_threads=False):
                            passed = min(skip, batch.num_rows)
                            skip -= passed
                            if passed < batch.num_rows:
                                yield batch.slice(passed)
            except (NotAHub, HTTPError):
                raise
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise
                raise DataError(
                    "hub_set.broken_file", repo=self._part.listing.repo_id, file=file.name, reason=reason_of(error)
                ) from None

    # --- text
    def text(self, target: Path) -> None:
        """Written whole or not at all. Raises DataError, HTTPError, NotAHub, OSError."""
        self.done = 0
        header: list[bytes] = []
        aside = target.with_name(f".{target.name}")
        with open(aside, "wb") as sink:
            for file in self._part.files:
                records = self._records(file)
                if self._part.kind in ("csv", "tsv") and (first := next(records, None)) is not None:
                    if not header:
                        header.append(first)
                        sink.write(first)
                    elif first.strip() != header[0].strip():
                        raise DataError("hub_set.other_columns", repo=self._part.listing.repo_id, file=file.name)
                for record in records:
                    sink.write(record)
                    self.done += 1
                    if self.done >= self._rows:
                        break
                if self.done >= self._rows:
                    break
        files.rename(aside, target)

    def _records(self, file: File) -> Iterator[bytes]:
        """Each with its line end: lines of JSON, records of a table with the lines in their cells, paragraphs of text."""
        lines = self._lines(file)
        if self._part.kind == "jsonl":
            yield from (line for line in lines if line.strip())
        elif self._part.kind == "txt":
            paragraph = bytearray()
            for line in chain(lines, [b""]):
                paragraph += line
                if not line.strip() and paragraph.strip():
                    yield bytes(paragraph)
                    paragraph.clear()
        else:
            yield from _table(lines)

    def _lines(self, file: File) -> Iterator[bytes]:
        rest = b""
        for chunk in self._chunks(file):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line + b"\n" for line in lines)
            if len(rest) > LONGEST_LINE:
                raise DataError("hub_set.long_line", repo=self._part.listing.repo_id, file=file.name, most_mib=LONGEST_LINE >> 20)
        if rest:
            yield rest + b"\n"

    def _chunks(self, file: File) -> Iterator[bytes]:
        """Of the file as it is read; unpacked where it is packed."""
        url, headers = self._part.listing.address(file, self._endpoint)
        packing = next((packing for ending, packing in PACKED.items() if file.name.lower().endswith(ending)), None)
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            hf_raise_for_status(response)
            came = self._watched(response.iter_raw())
            if packing is None:
                yield from came
            elif packing == "gzip":
                yield from self._of_gzip(came, file)
            else:
                raise DataError("hub_set.packed", repo=self._part.listing.repo_id, file=file.name)

    def _watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._check()
            yield chunk

    def _of_gzip(self, chunks: Iterator[bytes], file: File) -> Iterator[bytes]:
        unpacking = zlib.decompressobj(wbits=31)
        try:
            for chunk in chunks:
                rest = chunk
                while rest:  # bounded, whatever a megabyte unpacks to
                    yield unpacking.decompress(rest, 1 << 20)
                    rest = unpacking.unconsumed_tail
                    if unpacking.eof and (rest := unpacking.unused_data):  # several members in a row
                        unpacking = zlib.decompressobj(wbits=31)
        except zlib.error as error:
            raise DataError(
                "hub_set.broken_file", repo=self._part.listing.repo_id, file=file.name, reason=reason_of(error)
            ) from None


def _table(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Records whole. Latin-1 leaves every byte one character; quotes and line ends are the same in all encodings that a table is in."""
    held = bytearray()

    def told() -> Iterator[str]:
        for line in lines:
            held.extend(line)
            yield line.decode("latin-1")

    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    try:
        for _ in csv.reader(told()):
            yield bytes(held)
            held.clear()
    except csv.Error:  # what follows is told by whoever reads it
        yield bytes(held)
