"""Access control if the page is open beyond this PC (or started with --auth): one key or one password for everybody.

ASGI middleware inside the Guard, before every route: pages, /config, static files, the queue, uploads, files. gradio's
own `auth` is not used: it leaves /gradio_api/cancel, /reset, /heartbeat, /startup-events, static files and the login
check itself open (6.31).

* Without --auth a random key is generated at each start and printed in each address (`?key=...`). Opening it sets a
  cookie with a second random value: HttpOnly, SameSite=Strict, valid until this app ends, named after the port (cookies
  do not distinguish ports). The answer is a small page that leads on by itself, because a Strict cookie is not sent
  along a redirect that began elsewhere (a link in a chat).
* With --auth the door shows a form for name and password.
* Comparisons take constant time, and each wrong attempt of an address waits longer.

It does not encrypt: on a network with eavesdroppers, use a tunnel (docs/security.md).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from ipaddress import IPv6Address, ip_address
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send

from webui.kit.html import join, tag
from webui.kit.wording import Wording
from webui.server.guard import PLAIN_TEXT, respond
from webui.server.language import PATHS, preferred

KNOCK = "/door"
KEY = "key"  # the query's name for it
# gradio requests it from its own server when it starts: harmless, and without a cookie
STARTUP = "/gradio_api/startup-events"
MAX_FORM = 4096  # bytes
MAX_REMEMBERED = 1000  # addresses with failed attempts
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
MIN_PASSWORD = 8  # characters, where others can reach the page

KeyVerdict = Literal["right", "wrong", "too_soon"]


@dataclass(frozen=True)
class DoorSecret:
    """The secret that opens the door: a user and password, or with user None a generated key."""

    user: str | None
    word: str

    @classmethod
    def generate(cls) -> DoorSecret:
        """Return a secret with a new random key and no user."""
        return cls(None, secrets.token_urlsafe(24))

    def fits(self, user: str, word: str) -> bool:
        """Return whether user and password are right; any user fits a key."""
        good_user = self.user is None or _same(user, self.user)
        return _same(word, self.word) and good_user


def _same(typed: str, expected: str) -> bool:
    """Compare two strings by their digests, in constant time, so that not even the length leaks."""
    one, other = (hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest() for value in (typed, expected))
    return hmac.compare_digest(one, other)


@dataclass
class FailedAttempts:
    """The number of failed attempts of each address since its last success. One attempt at a time waits per address."""

    first_s: float = FIRST_WAIT_S
    _counts: OrderedDict[str, int] = field(default_factory=OrderedDict)
    _turns: OrderedDict[str, asyncio.Lock] = field(default_factory=OrderedDict)

    def turn(self, address: str) -> asyncio.Lock:
        """Return the address's lock, held by its one attempt that waits. The longest unused of more than MAX_REMEMBERED
        addresses are forgotten."""
        lock = self._turns.setdefault(address, asyncio.Lock())
        self._turns.move_to_end(address)
        while len(self._turns) > MAX_REMEMBERED:
            self._turns.popitem(last=False)
        return lock

    def wait_s(self, address: str) -> float:
        """Return the delay before the address's next wrong attempt is answered: 0.5 s, 1 s, 2 s, ... 30 s."""
        return min(LONGEST_WAIT_S, self.first_s * 2 ** min(16, self._counts.get(address, 0)))

    def failed(self, address: str) -> None:
        """Count a failed attempt of the address; the longest unused beyond MAX_REMEMBERED are forgotten."""
        self._counts[address] = self._counts.get(address, 0) + 1
        self._counts.move_to_end(address)
        while len(self._counts) > MAX_REMEMBERED:
            self._counts.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failed attempts of an address."""
        self._counts.pop(address, None)


class Doorkeeper:
    """The secret, the value of a visitor's cookie, and the failed attempts. One per app, created by its starter."""

    def __init__(self, secret: DoorSecret, port: int, attempts: FailedAttempts | None = None):
        """Create the keeper with a new random value for the cookie: cookies from before a restart let nobody in.

        secret: what visitors have to enter. port: the app's, part of the cookie's name. attempts: None for a new count.
        """
        self.secret, self.cookie = secret, f"lora_garage_{port}"
        self.inside = secrets.token_urlsafe(32)
        self.attempts = attempts or FailedAttempts()
        self._tickets: set[str] = set()

    def address(self, url: str) -> str:
        """Return the url to print: with the key, if one was generated."""
        return url if self.secret.user is not None else f"{url.rstrip('/')}/?{KEY}={self.secret.word}"

    def ticket(self, url: str) -> str:
        """Make a new key that is valid once, and return the url with it, for the browser that we open ourselves: other
        programs can see a browser's command line."""
        word = secrets.token_urlsafe(24)
        self._tickets.add(word)
        return f"{url.rstrip('/')}/?{KEY}={word}"

    def secrets(self) -> tuple[str, ...]:
        """Return every text that opens the door (password or key, cookie, unused tickets), for the log to leave out."""
        return (self.secret.word, self.inside, *tuple(self._tickets))

    def is_inside(self, headers: Mapping[str, str]) -> bool:
        """Return whether the request's cookie is that of a visitor who has entered the secret."""
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(headers.get("cookie", "")[:16384])
        except CookieError:
            return False
        return self.cookie in jar and _same(jar[self.cookie].value, self.inside)

    async def try_(self, user: str, word: str, address: str) -> KeyVerdict:
        """Return the verdict on user and password or key (`word`): "right" (also for a ticket, once), "wrong", which is
        answered late, or "too_soon" while another attempt of the same address waits."""
        if word in self._tickets:
            self._tickets.discard(word)
            return "right"
        turn = self.attempts.turn(address)
        if turn.locked():
            return "too_soon"
        async with turn:
            if self.secret.fits(user, word):
                self.attempts.succeeded(address)
                return "right"
            wait_s = self.attempts.wait_s(address)
            self.attempts.failed(address)
            await asyncio.sleep(wait_s)
        return "wrong"


class Door:
    """ASGI middleware: a visitor who has not been let in sees only the door."""

    def __init__(self, app: ASGIApp, keeper: Doorkeeper):
        self.app, self.keeper = app, keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on requests of visitors who are inside; answer others with the form, a sent form with its check, and an
        address with the key by letting them in."""
        if scope["type"] != "http" or scope["path"] == STARTUP:
            return await self.app(scope, receive, send)
        headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        query = parse_qsl(scope.get("query_string", b"").decode("latin1"), max_num_fields=50) if method == "GET" else []
        w = Wording(preferred(headers.get("accept-language", "")))
        if method == "POST" and path == KNOCK:
            return await self._knock(scope, receive, send, w)
        if key := dict(query).get(KEY, ""):
            rest = urlencode([pair for pair in query if pair[0] != KEY])
            where = (path if path in PATHS.values() else "/") + (f"?{rest}" if rest else "")
            if self.keeper.is_inside(headers):
                return await _page(send, 200, _onward(where, w))
            return await self._let_in(send, "", key, scope, where, w)
        if self.keeper.is_inside(headers):
            return await self.app(scope, receive, send)
        await self._refuse(receive, send, headers, method, w)

    async def _refuse(self, receive: Receive, send: Send, headers: dict[str, str], method: str, w: Wording) -> None:
        """Answer a visitor who is not inside with 401: a request for a page with the form, any other with a
        sentence."""
        if method == "GET" and "text/html" in headers.get("accept", ""):
            return await _page(send, 401, _form(self.keeper, w, ""))
        await respond(receive, send, 401, [*PLAIN_TEXT, *NO_STORE], w.t("door.closed").encode())

    async def _knock(self, scope: Scope, receive: Receive, send: Send, w: Wording) -> None:
        """Answer the sent form: let the visitor in, or show why not. A form above MAX_FORM is refused; a visitor who
        has gone gets no answer."""
        body, more = b"", True
        while more and len(body) <= MAX_FORM:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if len(body) > MAX_FORM:
            return await respond(
                receive if more else None, send, 413, [*PLAIN_TEXT, *NO_STORE], w.t("door.too_long").encode()
            )
        try:
            fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=10))
        except ValueError:
            fields = {}
        await self._let_in(send, fields.get("user", ""), fields.get("word", ""), scope, "/", w)

    async def _let_in(self, send: Send, user: str, word: str, scope: Scope, where: str, w: Wording) -> None:
        """Answer an attempt: set the cookie and go to `where`, or show the form again with the reason."""
        verdict = await self.keeper.try_(user, word, _address(scope))
        if verdict == "too_soon":
            return await _page(send, 429, _form(self.keeper, w, w.t("door.too_soon")))
        if verdict == "wrong":
            return await _page(
                send, 401, _form(self.keeper, w, w.t("door.wrong" if self.keeper.secret.user else "door.wrong_key"))
            )
        cookie = f"{self.keeper.cookie}={self.keeper.inside}; Path=/; HttpOnly; SameSite=Strict"
        await _page(send, 200, _onward(where, w), cookie)


def _address(scope: Scope) -> str:
    """Return the visitor's address; for IPv6 its /64 network, as each network has 2**64 addresses."""
    host = (scope.get("client") or ("",))[0]
    try:
        parsed = ip_address(host)
    except ValueError:
        return host
    return str(IPv6Address(int(parsed) >> 64 << 64)) if isinstance(parsed, IPv6Address) else host


# ---- the pages of the door -----------------------------------------------------------------------

STYLE = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;min-height:100vh;display:grid;place-items:center;background:#f4f4f5;
  color:#18181b}
main{background:#fff;padding:2rem;border-radius:12px;box-sizing:border-box;width:min(24rem,92vw);
  border:1px solid #d4d4d8}
h1{font-size:1.25rem;margin:0 0 .75rem}label{display:block;margin:.75rem 0 .25rem}p{margin:.5rem 0}
input{font:inherit;width:100%;box-sizing:border-box;padding:.5rem;border:1px solid #71717a;border-radius:6px;
  background:#fff;color:inherit}
button{font:inherit;margin-top:1rem;padding:.5rem 1.25rem;border:0;border-radius:6px;background:#0f766e;color:#fff;
  cursor:pointer}
[role=alert]{color:#b91c1c}
@media(prefers-color-scheme:dark){body{background:#18181b;color:#f4f4f5}main{background:#27272a;border-color:#52525b}
input{background:#18181b;border-color:#a1a1aa}[role=alert]{color:#fca5a5}}
"""


def _form(keeper: Doorkeeper, w: Wording, message: str) -> str:
    """Return the form as a page: user name (if there is one) and password or key, with a message."""
    with_name = keeper.secret.user is not None
    label = w.t("door.password" if with_name else "door.key")
    name = join(
        [
            tag("label", w.t("door.user"), for_="user"),
            tag("input", id="user", name_="user", autocomplete="username", autofocus="", maxlength="200"),
        ]
    )
    fields = [
        tag("p", w.t("door.about" if with_name else "door.about_key")),
        tag("p", message, role="alert") if message else None,
        name if with_name else None,
        tag("label", label, for_="word"),
        tag("input", id="word", name_="word", type="password", autocomplete="current-password", maxlength="1000"),
        tag("button", w.t("door.enter"), type="submit"),
    ]
    return _document(join([tag("h1", "LoRA Garage"), tag("form", *fields, method="post", action=KNOCK)]), w)


def _onward(where: str, w: Wording) -> str:
    """Return a page that leads on to the address `where` by itself, with a link to it."""
    link = tag("p", tag("a", w.t("door.onward"), href=where))
    return _document(
        join([tag("h1", "LoRA Garage"), link]), w, tag("meta", http_equiv="refresh", content=f"0;url={where}")
    )


def _document(body: str, w: Wording, more: str = "") -> str:
    viewport = "<meta name='viewport' content='width=device-width,initial-scale=1'>"
    head = f"<meta charset='utf-8'>{viewport}{more}<title>LoRA Garage</title><style>{STYLE}</style>"
    return (
        f"<!doctype html><html lang='{w.t('language.html')}'><head>{head}</head><body><main>{body}</main></body></html>"
    )


NO_STORE = [(b"cache-control", b"no-store"), (b"vary", b"cookie")]


async def _page(send: Send, status: int, document: str, cookie: str | None = None) -> None:
    """Send one of the door's pages, not to be stored. cookie: value of its Set-Cookie header."""
    headers = [(b"content-type", b"text/html; charset=utf-8"), *NO_STORE]
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await respond(None, send, status, headers, document.encode("utf-8", "replace"))
