"""Joins the files of a batch API by `custom_id`: requests, which have the questions, and results with the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from core.data.reading.file_rows import Limits, RawRow, Source
from core.data.reading.json_rows import jsonl_rows
from core.data.shapes.traces import BATCHES
from core.messages import msg
from core.values import MIB

LARGEST = 256 * MIB  # of all requests, which are held; OpenAI takes files of 200 MB
_LOOKED_AT = 5  # rows


def with_requests_attached(read: Sequence[Source], limits: Limits) -> list[Source]:
    """Attach the requests of a batch API, by custom_id, to each file of results (Source.requests, with a note) and
    return the sources without the files of requests.

    All sources are returned unchanged without results, without requests, or if the requests have more than LARGEST
    bytes.
    """
    fields = [_batch_field(source, limits) for source in read]
    requests = [source for source, field in zip(read, fields, strict=True) if field in BATCHES.values()]
    if (
        not requests
        or not any(field in BATCHES for field in fields)
        or sum(source.bytes for source in requests) > LARGEST
    ):
        return list(read)
    # All are held: results may come in another order.
    questions = {
        raw.value["custom_id"]: raw.value
        for source in requests
        for raw in jsonl_rows(source, limits)
        if isinstance(raw, RawRow) and isinstance(raw.value, dict) and isinstance(raw.value.get("custom_id"), str)
    }
    names = [source.path.name for source in requests]
    return [
        replace(source, requests=questions, notes=(*source.notes, msg("data.note_batch", files=names)))
        if field in BATCHES
        else source
        for source, field in zip(read, fields, strict=True)
        if source not in requests
    ]


def _batch_field(source: Source, limits: Limits) -> str:
    """Return the field by which a JSONL file is one of a batch API: "response" or "result" for answers, "body" or
    "params" for questions (BATCHES); "" for any other file.

    Each of the first _LOOKED_AT rows must have the field and a custom_id; unreadable ones are left out. A chat export
    is no such file.
    """
    if source.kind != "jsonl" or source.chat:
        return ""
    rows = [raw.value for raw in islice(jsonl_rows(source, limits), _LOOKED_AT) if isinstance(raw, RawRow)]
    are_of_batch = rows and all(isinstance(row, dict) and "custom_id" in row for row in rows)
    names = (*BATCHES, *BATCHES.values()) if are_of_batch else ()
    return next((name for name in names if all(name in row for row in rows)), "")


def with_request(row: object, source: Source) -> object:
    """Return a row of a batch API's results with the question of its request added: the "body" or "params" of the entry
    of source.requests that has the same custom_id.

    A key that the row itself has is kept. Any other row, and one without a request, is returned as it is.
    """
    if not isinstance(row, dict) or not (request := source.requests.get(str(row.get("custom_id")))):
        return row
    return {name: request[name] for name in BATCHES.values() if name in request} | row
