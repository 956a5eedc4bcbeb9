"""A model behind a server with OpenAI's chat completions (OpenAI's, Ollama's, llama.cpp's, LM Studio's, vLLM's), named
by the user. The key is kept only in memory. No torch."""

from __future__ import annotations

import http.client
import json
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from core.data.conversation import Turn
from core.errors import ChatError
from core.files import JsonObject

TIMEOUT_S = 180.0  # for one answer: a large model on a CPU thinks for a minute or two
MAX_BYTES = 1 << 20  # of an answer
LOCAL = ("127.0.0.1", "localhost", "::1")


class BadAnswer(Exception):
    """The server answered, but not with a text in OpenAI's format."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirects, so that the data goes only to the address that the user named."""

    def redirect_request(self, *_: object) -> None:
        """Follow no redirect; urllib then raises HTTPError with the redirect's status."""


@dataclass(frozen=True)
class Endpoint:
    """An address and a model of it. url: all of .../chat/completions."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = TIMEOUT_S

    @classmethod
    def parse(cls, url: str, model: str, key: str = "") -> Endpoint:
        """Check and complete the user's input and return the endpoint. url: up to /v1, or all of it. Raises ChatError
        for an invalid address, no model, or a key that would be sent unencrypted to another PC."""
        url, model, key = url.strip().rstrip("/"), model.strip(), key.strip()
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises ValueError for an invalid port
        except ValueError:
            parts = urlsplit("")
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or re.search(r"[\s\x00-\x1f]", url)
        ):
            raise ChatError("endpoint.bad_url", found=url[:100])
        if not model:
            raise ChatError("endpoint.no_model")
        if not key.isascii() or not key.isprintable():
            raise ChatError("endpoint.bad_key")
        if key and parts.scheme == "http" and parts.hostname not in LOCAL:
            raise ChatError("endpoint.plain_key", host=parts.hostname)
        if not url.endswith("/chat/completions"):
            url += ("" if parts.path else "/v1") + "/chat/completions"
        return cls(url, model[:200], key)

    @property
    def host(self) -> str:
        """Return the host of the address, with its port if the URL has one, such as "127.0.0.1:8080"."""
        return urlsplit(self.url).netloc

    @property
    def name(self) -> str:
        """Return the model and its server for messages, such as "qwen3 @ 127.0.0.1:8080"."""
        return f"{self.model} @ {self.host}"

    @property
    def is_on_this_pc(self) -> bool:
        """Return True if the address is a local one (LOCAL), so that nothing is sent to another PC."""
        return urlsplit(self.url).hostname in LOCAL

    def body(self, turns: Sequence[Turn], **options: object) -> JsonObject:
        """The body of a request. options: of OpenAI's API, such as temperature, max_tokens, response_format."""
        return {"model": self.model, "messages": [dict(turn) for turn in turns], "stream": False} | options

    def answer(self, body: JsonObject, stopped: Callable[[], bool] = lambda: False) -> str:
        """Return the text of the model's answer to `body`, requested in a thread, so that stopped is asked while it
        waits. Raises ChatError (unreachable, refused, late, stopped), BadAnswer."""
        results: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()

        def post_into_queue() -> None:
            """Put the answer, or the error in its place, into the queue."""
            try:
                results.put(_post(self, body))
            except (ChatError, BadAnswer, OSError, http.client.HTTPException, ValueError) as error:
                results.put(error)

        # In a thread, so that a server that sends a byte a minute is abandoned too.
        threading.Thread(target=post_into_queue, daemon=True).start()
        deadline = time.monotonic() + self.timeout_s
        while True:
            try:
                answer = results.get(timeout=min(0.2, self.timeout_s))
            except queue.Empty:
                if stopped():
                    raise ChatError("compare.stopped") from None
                if time.monotonic() > deadline:
                    raise ChatError("endpoint.timeout", server=self.name, seconds=round(self.timeout_s)) from None
                continue
            if isinstance(answer, TimeoutError):
                raise ChatError("endpoint.timeout", server=self.name, seconds=round(self.timeout_s))
            if isinstance(answer, ChatError | BadAnswer):
                raise answer
            if isinstance(answer, Exception):
                reason = getattr(answer, "reason", None) or answer
                raise ChatError("endpoint.unreachable", host=self.host, reason=str(reason)[:200])
            return answer


def _post(endpoint: Endpoint, body: JsonObject) -> str:
    """Send one chat request and return the answer's text. Raises OSError or HTTPException without an answer, ChatError
    with an HTTP status, BadAnswer for an answer of another form; the key occurs in neither of these."""
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    )
    request = urllib.request.Request(endpoint.url, json.dumps(body).encode(), headers)
    direct = [urllib.request.ProxyHandler({})] if endpoint.is_on_this_pc else []
    try:
        with urllib.request.build_opener(_NoRedirects, *direct).open(request, timeout=endpoint.timeout_s) as response:
            content_bytes = response.read(MAX_BYTES)
    except urllib.error.HTTPError as error:
        with error:
            reason = _reason(error.read(MAX_BYTES))
        reason = reason.replace(endpoint.key, "…") if endpoint.key else reason
        raise ChatError("endpoint.refused", server=endpoint.name, status=error.code, reason=reason) from None
    try:
        content = json.loads(content_bytes)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise BadAnswer(content_bytes[:200].decode("utf-8", "replace")) from None
    if not isinstance(content, str):
        raise BadAnswer(str(content)[:200])
    return content


def _reason(body: bytes) -> str:
    """Return the message of an error in OpenAI's format, at most 200 characters; "?" for anything else, which may be
    another site's page."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:200]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "?"
