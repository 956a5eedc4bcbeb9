"""The first rows of a Hub dataset before it is downloaded: from the datasets server, otherwise from the start of its first file."""

from __future__ import annotations

import json
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HTTPError

from core.data.reading.reader import read_rows
from core.data.reading.rows import Row
from core.data.sets.inspection import inspect_file
from core.errors import DataError, reason_of
from core.hub import peek
from core.hub.answers import NotAHub, TooSlow, endpoint_of
from core.hub.sets import viewer
from core.hub.sets.about import AboutSet, request
from core.hub.sets.parts import PACKED, Part
from core.hub.sets.ranged import RangedFile
from core.hub.sets.said import refusal
from core.hub.sets.viewer import FirstRows, NoViewer
from core.messages import Message, msg

MOST_ROWS = 10
HEAD = 256 << 10  # bytes of a file of text
BUFFER = 1 << 20  # bytes of a column of Parquet


@dataclass(frozen=True)
class SetHead:
    """rows: {column: value}. cut: by row, the columns that whoever told of them shortened. note: what must be said beside them."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    cut: tuple[frozenset[str], ...]
    notes: tuple[Message, ...] = ()


def head_of(told: AboutSet, part: Part) -> SetHead:
    """Raises DataError: of a gate, and where nothing in its rows is text."""
    try:
        found, notes = viewer.first_rows(told.repo, part.config, part.split), []
    except NoViewer:
        found, notes = _of_file(told, part), [msg("hub_set.head_of_file", file=part.files[0].name)]
    rows, cut = found.rows[:MOST_ROWS], found.cut[:MOST_ROWS]
    if found.columns and set(found.columns) == set(found.media):
        raise DataError("hub_set.no_text", repo=told.repo, columns=list(found.columns)[:10])
    if found.media:
        notes.append(msg("hub_set.some_media", columns=list(found.media)[:10]))
    if any(cut):
        notes.append(msg("hub_set.cells_cut"))
    return SetHead(found.columns, rows, cut, tuple(notes))


def is_recognised(head: SetHead) -> bool:
    """Whether its rows are of a format that is known here without a word of what columns are for; where cells were cut, as if they were."""
    if any(head.cut) or not head.rows:
        return True
    lines = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in head.rows)
    with tempfile.TemporaryDirectory(prefix="lora-garage-head-") as folder:
        path = Path(folder) / "head.jsonl"
        path.write_text(lines, "utf-8", newline="\n")
        try:
            inspect_file(path)
        except DataError as error:
            return error.message.key != "data.unknown_format"
    return True


def _of_file(told: AboutSet, part: Part) -> FirstRows:
    try:
        rows = _parquet_rows(part) if part.kind == "parquet" else _text_rows(part)
    except (NotAHub, HTTPError, OSError) as error:
        raise refusal(error, request(told.repo)) from None
    names = tuple(dict.fromkeys(str(name) for row in rows for name in row))
    media = tuple(name for name in names if all(_is_media(row.get(name)) for row in rows))
    return FirstRows(names, tuple(rows), (frozenset(),) * len(rows), media)


def _is_media(value: Any) -> bool:
    """Of a picture or a sound Parquet has the bytes, and its path."""
    return isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value and "path" in value)


def _parquet_rows(part: Part) -> list[dict[str, Any]]:
    """Raises DataError where it is no Parquet."""
    import pyarrow
    import pyarrow.parquet

    end = time.monotonic() + 2 * peek.PEEK_S

    def check() -> None:
        if time.monotonic() > end:
            raise TooSlow("")

    raw = RangedFile(part.listing, part.files[0], endpoint_of(), check)
    try:
        # Buffered, so that of a column only as much comes as its first rows take.
        with pyarrow.parquet.ParquetFile(pyarrow.PythonFile(raw, "r"), buffer_size=BUFFER, pre_buffer=False) as file:
            batch = next(file.iter_batches(batch_size=MOST_ROWS, row_groups=[0], use_threads=False), None)
            return batch.to_pylist() if batch is not None else []
    except (NotAHub, HTTPError):
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "hub_set.broken_file", repo=part.listing.repo_id, file=part.files[0].name, reason=reason_of(error)
        ) from None


def _text_rows(part: Part) -> list[dict[str, Any]]:
    """As many whole rows as the head of the first file holds."""
    file = part.files[0]
    url, _ = part.listing.address(file, endpoint_of())
    start = peek.answer_with_or_without_token(url, HEAD, min(HEAD, file.size or HEAD))
    name = file.name.rpartition("/")[2]
    if packing := PACKED.get(Path(name).suffix.lower()):
        start, name = _unpacked(start, packing), Path(name).stem
    if len(start) == HEAD or file.size != len(start):
        start = start[: start.rfind(b"\n") + 1] or start
    with tempfile.TemporaryDirectory(prefix="lora-garage-head-") as folder:
        path = Path(folder) / name
        path.write_bytes(start)
        return list(islice(_rows(path), MOST_ROWS))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with suppress(DataError):  # an array that ends in its middle; what came before are its rows
        for item in read_rows(path):
            if isinstance(item, Row):
                yield item.values


def _unpacked(start: bytes, packing: str) -> bytes:
    if packing == "gzip":
        with suppress(zlib.error):
            return zlib.decompressobj(wbits=31).decompress(start, HEAD)
        return b""
    import pyarrow

    with suppress(pyarrow.ArrowException, OSError):
        return pyarrow.CompressedInputStream(pyarrow.BufferReader(start), packing).read(HEAD)
    return b""


def cell(value: Any, most: int) -> str | Message:
    """A cell for a small table: text in one line, of other things their kind."""
    if isinstance(value, str):
        line = " ".join(value.split())
        return line if len(line) <= most else line[: most - 1] + "…"
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return str(value)
    if _is_media(value) or (isinstance(value, dict) and "src" in value):
        return msg("hub_set.a_file")
    text = " ".join(json.dumps(value, ensure_ascii=False, default=str).split())
    return text if len(text) <= most else text[: most - 1] + "…"
