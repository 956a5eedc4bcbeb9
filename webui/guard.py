"""What a page on 127.0.0.1 still has to be guarded from: other web pages open in the same browser.

* Host must be one of ours, else a name that an attacker points at 127.0.0.1 reads everything (DNS rebinding).
* Origin must be the Host on everything that changes something, else any web page can post here, other local ports included.
* The content security policy keeps what a model writes from loading pictures from elsewhere or posting forms there.
* Bodies are limited, counted as they arrive; uploads have gradio's own limit.

Not a password: whoever reaches the port by one of our names is let in. That is why only loopback addresses are served.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_BYTES = 8 << 20
# gr.HTML needs unsafe-inline and unsafe-eval; nothing of a person's data is ever put where they would matter.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] = LOOPBACK, most_bytes: int = MOST_BYTES):
        self.app, self.hosts, self.most_bytes = app, frozenset(hosts), most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return  # none is used here
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal:
            return await _answer(send, *refusal)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        multipart = headers.get("content-type", "").startswith("multipart/")
        await self.app(scope, receive if multipart else self._counted(receive), with_headers)

    def _refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.lower() not in self.hosts:
            return 421, "This app answers only to localhost and 127.0.0.1."
        if method in ("GET", "HEAD", "OPTIONS"):
            return None
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "Refused: the request came from another site."
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return 403, "Refused: the request came from another site."
        length = headers.get("content-length", "0")
        if not headers.get("content-type", "").startswith("multipart/") and (
            not length.isdecimal() or int(length) > self.most_bytes
        ):
            return 413, f"Refused: more than {self.most_bytes >> 20} MiB in one request."
        return None

    def _counted(self, receive: Receive) -> Receive:
        """A body without a length is cut off at the limit; what is left is no JSON, and is answered as such."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message: dict[str, Any] = dict(await receive())
            seen += len(message.get("body", b""))
            if seen > self.most_bytes:
                return {"type": "http.request", "body": b"", "more_body": False}
            return message

        return counted


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = sentence.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
