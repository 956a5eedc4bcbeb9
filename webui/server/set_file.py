"""Downloads a dataset, made rows with their sources, conversations, a test set, or the questions of a blind test as
JSONL, written while it is sent, without a copy on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from core.chat.conversations import Conversations
from core.chat.conversations import lines as jsonl
from core.chat.evaluation import sets
from core.chat.making.making import Making
from core.data.sets.stored_rows import Rows
from core.errors import GarageError
from core.messages import LANGUAGES
from core.workspace.folder import Workspace
from core.workspace.names import slug
from webui.kit.wording import Wording

# the guard lets these through
FILES = PATH, MADE, TALKS, TESTS = "/set.jsonl", "/made.jsonl", "/conversations.jsonl", "/tests.jsonl"
PLAIN = "sources=no"  # of MADE: the rows alone
ROWS_A_CHUNK = 200


class Sets(Protocol):
    """The part of core.data.store.DatasetStore that SetFile needs."""

    def rows(self, id: str) -> Rows: ...


def address(id: str, language: str, path: str = PATH) -> str:
    """Return the address of a download. id: of the dataset or of what the path (one of FILES) stands for. language: of
    the reason if it fails."""
    return f"{path}?id={quote(id, safe='')}&in={language}"


class SetFile:
    """ASGI middleware inside Guard and Door that answers the paths of FILES with downloads of JSON lines: a dataset,
    made rows, conversations or a test set."""

    def __init__(self, app: ASGIApp, sets: Sets, workspace: Workspace):
        self.app, self.sets, self.workspace = app, sets, workspace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of FILES with the download, and pass on any other. The file is read in a thread."""
        if scope["type"] != "http" or scope["path"] not in FILES:
            return await self.app(scope, receive, send)
        await (await run_in_threadpool(self._answer, Request(scope)))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        """Answer with the JSON lines of what the path stands for, or 404 with the reason in the language `in`. The
        paths are those of FILES: a dataset, made rows, conversations (all of them without an id), a test
        set; `id` says which one."""
        id, language = request.query_params.get("id", ""), request.query_params.get("in", "")
        try:
            if request.url.path == TALKS:  # without an id: all
                talks = Conversations(self.workspace)
                return _sent(_bytes(jsonl([talks.get(id)] if id else talks.find())), id or "conversations")
            if request.url.path == TESTS:
                return _sent(_bytes(sets.lines(sets.open_set(self.workspace, id))), id)
            if request.url.path == MADE:
                making = Making.open(self.workspace, id)
                values = making.values(with_source=PLAIN not in request.url.query.split("&"))
                made = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
                return _sent(_bytes(made), making.order.title)
            rows = self.sets.rows(id)
        except GarageError as error:
            return PlainTextResponse(Wording(language if language in LANGUAGES else "en").render(error.message), 404)
        return _sent(lines(rows), id.rpartition(":")[2])


def _sent(content: Iterator[bytes], name: str) -> Response:
    """Return a response that downloads the lines as `<name>.jsonl`; characters of the name that a file may not have are
    replaced."""
    headers = {
        "content-disposition": f'attachment; filename="{slug(name, fallback="set")}.jsonl"',
        "cache-control": "no-store",
    }
    return StreamingResponse(content, media_type="application/x-ndjson", headers=headers)


def _bytes(lines: Iterator[str]) -> Iterator[bytes]:
    """Return the lines one by one as UTF-8 bytes, each encoded as it is sent; characters that cannot be encoded,
    such as half a surrogate pair, become "?"."""
    return (line.encode("utf-8", "replace") for line in lines)


def lines(rows: Rows) -> Iterator[bytes]:
    """Yield the rows as JSON lines in UTF-8, in chunks of ROWS_A_CHUNK, in the format of
    core.data.sets.working.write."""
    for begin in range(0, len(rows), ROWS_A_CHUNK):
        some = (rows[position][1].as_dict() for position in range(begin, min(begin + ROWS_A_CHUNK, len(rows))))
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some).encode("utf-8", "replace")
