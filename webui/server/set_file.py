"""A set of the workspace, or conversations, as a download: JSONL, written while it is sent, so that no copy lies anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.chat.conversations import Conversations
from core.chat.conversations import lines as jsonl
from core.data.sets.rows import Rows
from core.errors import GarageError
from core.messages import LANGUAGES
from core.workspace.names import slug
from webui.kit.wording import Wording

PATH, TALKS = "/set.jsonl", "/conversations.jsonl"
ROWS_A_CHUNK = 200


class Sets(Protocol):
    """What this needs of core.data.store.DatasetStore."""

    def rows(self, id: str) -> Rows: ...


def address(id: str, language: str, path: str = PATH) -> str:
    return f"{path}?id={quote(id, safe='')}&in={language}"


class SetFile:
    """ASGI middleware, inside of Guard and Door: answers PATH and TALKS alone."""

    def __init__(self, app: ASGIApp, sets: Sets, talks: Conversations):
        self.app, self.sets, self.talks = app, sets, talks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (PATH, TALKS):
            return await self.app(scope, receive, send)
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        id, language = request.query_params.get("id", ""), request.query_params.get("in", "")
        try:
            if request.url.path == TALKS:  # no id: all of them
                found = [self.talks.get(id)] if id else self.talks.find()
                return _sent((line.encode("utf-8", "replace") for line in jsonl(found)), id or "conversations")
            rows = self.sets.rows(id)
        except GarageError as error:
            return PlainTextResponse(Wording(language if language in LANGUAGES else "en").of(error.message), 404)
        return _sent(lines(rows), id.rpartition(":")[2])


def _sent(content: Iterator[bytes], name: str) -> Response:
    kept = {"content-disposition": f'attachment; filename="{slug(name, fallback="set")}.jsonl"', "cache-control": "no-store"}
    return StreamingResponse(content, media_type="application/x-ndjson", headers=kept)


def lines(rows: Rows) -> Iterator[bytes]:
    """As core.data.sets.working.write has them in a file."""
    for begin in range(0, len(rows), ROWS_A_CHUNK):
        some = (rows[position][1].as_dict() for position in range(begin, min(begin + ROWS_A_CHUNK, len(rows))))
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some).encode("utf-8", "replace")
