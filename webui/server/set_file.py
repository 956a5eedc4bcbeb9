"""A set of the workspace as a download: its rows as JSONL, written while they are sent, so that no copy lies anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.data.sets.rows import Rows
from core.errors import GarageError
from core.messages import LANGUAGES
from core.workspace.names import slug
from webui.kit.wording import Wording

PATH = "/set.jsonl"
ROWS_A_CHUNK = 200


class Sets(Protocol):
    """What this needs of core.data.store.DatasetStore."""

    def rows(self, id: str) -> Rows: ...


def address(id: str, language: str) -> str:
    return f"{PATH}?id={quote(id, safe='')}&in={language}"


class SetFile:
    """ASGI middleware, inside of Guard and Door: answers PATH alone."""

    def __init__(self, app: ASGIApp, sets: Sets):
        self.app, self.sets = app, sets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH:
            return await self.app(scope, receive, send)
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        id, language = request.query_params.get("id", ""), request.query_params.get("in", "")
        try:
            rows = self.sets.rows(id)
        except GarageError as error:
            return PlainTextResponse(Wording(language if language in LANGUAGES else "en").of(error.message), 404)
        name = slug(id.rpartition(":")[2], fallback="set")
        kept = {"content-disposition": f'attachment; filename="{name}.jsonl"', "cache-control": "no-store"}
        return StreamingResponse(lines(rows), media_type="application/x-ndjson", headers=kept)


def lines(rows: Rows) -> Iterator[bytes]:
    """As core.data.sets.working.write has them in a file."""
    for begin in range(0, len(rows), ROWS_A_CHUNK):
        some = (rows[position][1].as_dict() for position in range(begin, min(begin + ROWS_A_CHUNK, len(rows))))
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some).encode("utf-8", "replace")
