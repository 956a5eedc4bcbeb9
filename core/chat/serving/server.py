"""The server: its routes, who may use them, and streams. One key opens it; it does not encrypt (docs/security.md).

Like the page's guard, it answers only to its own names in Host, so that no name that an attacker points at this PC
reads it, and to no request that a browser sends for another site's page.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from core.chat.answer import Done, Piece
from core.chat.client import ChatClient
from core.chat.serving.batcher import Batcher, Request, ServedModels
from core.chat.serving.replies import Reply
from core.chat.serving.requests import ApiError, Body, ChatBody, TextBody, parse
from core.errors import BusyError, GarageError
from core.files import JsonObject
from core.system.reach import Reach, host_of, is_other_origin

MAX_BYTES = 4 << 20  # of a body
BODY_S = 30  # for a body to arrive
POLL_S = 0.25  # between two looks whether the client has gone
MAX_CONNECTIONS = 256
STATUSES = {"chat.too_long": 400, "chat.too_long_for_card": 400, "chat.no_question": 400, "chat.no_strength": 400}


class ApiServer:
    """An OpenAI-compatible server on one address. chat: the worker's client, which the page may use too."""

    def __init__(self, chat: ChatClient, models: ServedModels, reach: Reach, key: str):
        """Start the batcher's thread, but listen to nothing yet. key: what clients send as "Authorization: Bearer
        KEY"."""
        self.models, self.key, self._reach = models, key, reach
        self._batcher = Batcher(chat)
        self._listening: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        routes = [
            Route("/v1/models", self._list),
            Route("/v1/models/{name:path}", self._one),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._text, methods=["POST"]),
        ]
        errors = {
            ApiError: _error_response,
            HTTPException: _error_response,
            ClientDisconnect: _response_to_gone_client,
            Exception: _error_response,
        }
        self.app = Starlette(routes=routes, exception_handlers=errors)

    def listen(self, port: int) -> str:
        """Take a port (0: any free one), and return the server's URL, such as "http://127.0.0.1:8000/v1"; requests are
        answered once `serve` runs. Raises OSError for a port that is taken."""
        family = socket.AF_INET6 if ":" in self._reach.host else socket.AF_INET
        self._listening = socket.create_server((self._reach.host, port), family=family)
        config = uvicorn.Config(
            self.app, log_level="error", lifespan="off", access_log=False, limit_concurrency=MAX_CONNECTIONS
        )
        self._server = uvicorn.Server(config)
        return f"http://{self._reach.local}:{self._listening.getsockname()[1]}/v1"

    def serve(self) -> None:
        """Answer requests until `stop`, or in the main thread Ctrl-C; `listen` comes first."""
        assert self._server and self._listening, "listen first"
        self._server.run([self._listening])

    def stop(self) -> None:
        """End the server after its present answers; requests that wait get an error."""
        self._batcher.end()
        if self._server is not None:
            self._server.should_exit = True

    # ---- who may ask ------------------------------------------------------------------------------------------------
    def _admit(self, request: HttpRequest) -> None:
        """Raise ApiError for another host's name, another site's page, or a wrong key."""
        host = request.headers.get("host", "")
        if host_of(host) not in self._reach.names:
            raise ApiError(421, "This server does not answer to that name. Use the address that it printed.")
        if is_other_origin(request.headers.get("origin"), host):
            raise ApiError(403, "The request came from a web page of another site.")
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            raise ApiError(401, "The key is missing or wrong: send Authorization: Bearer KEY.", "invalid_api_key")

    # ---- routes -----------------------------------------------------------------------------------------------------
    async def _list(self, request: HttpRequest) -> Response:
        """Answer with the list of served models. Raises ApiError."""
        self._admit(request)
        return JSONResponse({"object": "list", "data": list(map(_model, self.models.names()))})

    async def _one(self, request: HttpRequest) -> Response:
        """Answer with one served model. Raises ApiError (404) for another name."""
        self._admit(request)
        self.models.find(name := request.path_params["name"])
        return JSONResponse(_model(name))

    async def _chat(self, request: HttpRequest) -> Response:
        """Answer a request to /v1/chat/completions."""
        return await self._complete(request, ChatBody)

    async def _text(self, request: HttpRequest) -> Response:
        """Answer a request to /v1/completions, which continues a text without a chat template."""
        return await self._complete(request, TextBody)

    async def _complete(self, http: HttpRequest, kind: type[Body]) -> Response:
        """Answer a request for completions: with the whole response as JSON, or, if its body requests a stream, with
        server-sent events. A stream begins only after its first piece, so that an error before it, such as a
        conversation that is too long, still gets its own HTTP status. kind: ChatBody or TextBody."""
        self._admit(http)
        body = parse(kind, await _content(http))
        items = self._items(http, body)
        reply = Reply(body)
        if not body.stream:
            async with aclosing(items):
                async for item in items:
                    reply.add(item)
            return JSONResponse(reply.response())
        first = await anext(items)
        return StreamingResponse(_events(reply, first, items), media_type="text/event-stream")

    async def _items(self, http: HttpRequest, body: Body) -> AsyncGenerator[Piece | Done]:
        """Have a request answered and yield its items; closing this, or a client that has gone, frees its place. Raises
        ApiError, ClientDisconnect."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Queue[Piece | Done | Exception]()

        def put(item: Piece | Done | Exception) -> None:
            """Hand an item from the batcher's thread to the queue of this request."""
            loop.call_soon_threadsafe(arrived.put_nowait, item)

        questions = body.questions()
        request = Request(self.models.find(body.model), questions, body.sampling, put)
        self._batcher.add(request)
        left = len(questions)
        try:
            while left:
                try:
                    item = await asyncio.wait_for(arrived.get(), POLL_S)
                except TimeoutError:
                    if await http.is_disconnected():
                        raise ClientDisconnect from None
                    continue
                if isinstance(item, Exception):
                    raise as_api_error(item) if isinstance(item, GarageError) else item
                left -= isinstance(item, Done)
                yield item
        finally:
            request.abandoned.set()


async def _events(reply: Reply, first: Piece | Done, items: AsyncGenerator[Piece | Done]) -> AsyncIterator[str]:
    """Yield the server-sent events of a stream; an error that comes too late for a status is an event. Ends without
    [DONE] for a client that has gone."""
    try:
        for chunk in reply.beginning():
            yield _event(chunk)
        for chunk in reply.chunks(first):
            yield _event(chunk)
        async for item in items:
            for chunk in reply.chunks(item):
                yield _event(chunk)
        for chunk in reply.ending():
            yield _event(chunk)
    except ClientDisconnect:
        return
    except Exception as error:  # noqa: BLE001 - the client gets every error in OpenAI's format
        yield _event(as_api_error(error).body())
    finally:
        await items.aclose()
    yield "data: [DONE]\n\n"


def _event(value: JsonObject) -> str:
    """Return a value as one server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


async def _content(request: HttpRequest) -> bytes:
    """Return a body. Raises ApiError for one that is too large or late."""
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                content += part
                if len(content) > MAX_BYTES:
                    raise ApiError(413, f"The body is larger than {MAX_BYTES >> 20} MiB.")
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {BODY_S} seconds.") from None
    return bytes(content)


def _model(name: str) -> JsonObject:
    """Return the object of OpenAI's list of models for a served model's name."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "lora-garage"}


def as_api_error(error: Exception) -> ApiError:
    """Return any error as one with an HTTP status: 503 if the app is busy, 400 for a template's refusal, 500 for
    unknown ones without their text."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, error.detail)
    if isinstance(error, BusyError):
        return ApiError(503, str(error))
    if isinstance(error, GarageError):
        key = error.message.key
        status = STATUSES.get(key, 400 if key.startswith("template.") else 503 if key.startswith("lease.") else 500)
        return ApiError(status, str(error), "context_length_exceeded" if "too_long" in key else None)
    return ApiError(500, f"An unexpected error: {type(error).__name__}. The details are in chat.log in the workspace.")


async def _error_response(request: HttpRequest, error: Exception) -> Response:
    """Return any error as a response in OpenAI's format with its HTTP status (`as_api_error`)."""
    refusal = as_api_error(error)
    return JSONResponse(refusal.body(), refusal.status)


async def _response_to_gone_client(request: HttpRequest, error: Exception) -> Response:
    """Return an empty response with status 499, which nobody reads because the client has gone."""
    return Response(status_code=499)  # nobody reads it
