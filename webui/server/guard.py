"""Guards the page on this PC against other web pages open in the same browser.

* Host must be one of ours, else a name that an attacker points at this PC reads everything (DNS rebinding).
* Origin must be the Host if a browser names one, and only a click may lead here from another site; else any web page
  could post here or read from here, other local ports included. gradio's own CORS answer allows other sites on any Host
  but localhost: its headers are removed.
* The content security policy keeps a model's output from loading pictures from elsewhere or posting forms there.
* Bodies are limited, counted as they arrive; uploads have gradio's own limit.
* Only the routes that the page needs are served. gradio has some sixty more, among them files by their path (/file=),
  a proxy, calls by name around the queue, recordings, its API's description: 404, whatever a later version makes of
  them.

Passwords are the work of webui/server/door, which stands inside.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.system.reach import LOOPBACK, host_of, is_other_origin
from webui.server import script
from webui.server.language import PATHS
from webui.server.set_file import FILES

MAX_BYTES = 8 << 20
SERVED = re.compile(
    rf"{'|'.join([*(f'{path}/?' for path in PATHS.values()), *map(re.escape, FILES)])}|"
    r"/door|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/pwa_icon|/robots\.txt|/(?:assets|static"
    r"|svelte)/[^\0]*|"
    r"/gradio_api/(?:queue/join|queue/data|heartbeat/[\w-]+|cancel|reset|upload|upload_progress|component_server"
    r"|run/predict|"
    r"startup-events|app_id|theme\.css)/?"
)
UPLOAD = "/gradio_api/upload"  # the only route with a larger body: gradio limits it to max_file_size
# gr.HTML needs unsafe-inline and unsafe-eval; no user data is ever part of a script.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # under no-referrer the door's own form would come with Origin: null
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
# The names of these files contain a hash of their contents (except the scripts patched here), so that a reload requests
# none of eighty.
FOR_GOOD = [(b"cache-control", b"public, max-age=31536000, immutable")]
# No proxy stands before this app, so a request with these headers tries to make gradio use another address.
PROXYS = (
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
    b"x-forwarded-prefix",
    b"x-gradio-server",
)
STRANGERS = ("cross-site", "same-site")


class Guard:
    """ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...] = LOOPBACK, most_bytes: int = MAX_BYTES):
        """hosts: the names that the Host header may have. most_bytes: of a request's body; uploads have gradio's
        limit."""
        self.app, self.hosts, self.most_bytes = app, frozenset(host.lower() for host in hosts), most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse requests for another host, from another site, above the size limit or to an unknown path, and
        websockets; pass on others without proxy headers, with our headers on the answer."""
        if scope["type"] == "websocket":
            return  # none is used here
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        is_upload = scope["path"] == UPLOAD and headers.get("content-type", "").startswith("multipart/")
        refusal = self._refusal(scope["method"], headers, is_upload)
        if refusal is None and not SERVED.fullmatch(scope["path"]):
            refusal = 404, "There is nothing here."
        if refusal:
            status, sentence = refusal
            return await respond(receive, send, status, [*PLAIN_TEXT, *HEADERS], sentence.encode())

        async def send_with_headers(message: Message) -> None:
            """Send a message; the response's start gets our headers in place of gradio's CORS ones."""
            if message["type"] == "http.response.start":
                passed = [
                    pair for pair in message.get("headers", []) if not pair[0].lower().startswith(b"access-control-")
                ]
                asset = scope["path"].removeprefix("/assets/")
                is_for_good = message["status"] == 200 and asset != scope["path"] and not script.NAME.fullmatch(asset)
                message = {**message, "headers": [*passed, *HEADERS, *(FOR_GOOD if is_for_good else ())]}
            await send(message)

        inner = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() not in PROXYS]}
        await self.app(inner, receive if is_upload else self._limited(receive), send_with_headers)

    def _refusal(self, method: str, headers: dict[str, str], is_upload: bool) -> tuple[int, str] | None:
        """Return status and text for a request that must not pass (unknown host, another site, too large), else
        None."""
        host = headers.get("host", "")
        if host_of(host) not in self.hosts:
            return 421, "This app does not answer to that name. Open the address that it printed when it started."
        if is_other_origin(headers.get("origin"), host):
            return 403, "Refused: the request came from another site."
        # A link on another site that opens our page in a tab shows it to the person, not to that site.
        is_click = (
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        if headers.get("sec-fetch-site") in STRANGERS and not is_click:
            return 403, "Refused: the request came from another site."
        length = headers.get("content-length", "0")
        if not is_upload and (not length.isdecimal() or int(length) > self.most_bytes):
            return 413, f"Refused: more than {self.most_bytes >> 20} MiB in one request."
        return None

    def _limited(self, receive: Receive) -> Receive:
        """Return a `receive` that ends a body of unknown length once it is above the limit. The route then gets broken
        JSON, and answers with its error."""
        received = 0

        async def receive_up_to_limit() -> Message:
            """Receive a part of the body; end the body empty once it is above the limit."""
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most_bytes:
                return {"type": "http.request", "body": b"", "more_body": False}
            return message

        return receive_up_to_limit


PATIENCE_S = 5.0
PLAIN_TEXT = [(b"content-type", b"text/plain; charset=utf-8")]


async def respond(
    receive: Receive | None, send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Send a response with this status, headers and body. It ends once the rest of the request was read, up to
    MAX_BYTES: a connection that is closed over unread bytes is reset, and Windows then discards the response. A client
    that sends nothing more is not waited for. receive: None if there is nothing more to read."""
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    left = MAX_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while receive and left > 0 and (message := await receive()).get("more_body"):
                left -= len(message.get("body", b""))
    await send({"type": "http.response.body"})
