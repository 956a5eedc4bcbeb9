"""The language of a page: English at /, any other at its code, such as /zh.

A first visit to / is redirected to the browser's language; the link in the page's header (/?lang=en) is stored in a
cookie. Each language has its own page, instead of a translation in the browser, because many sentences are made in
Python.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from core.messages import LANGUAGES
from webui.kit.html import Html, tag
from webui.kit.wording import Wording

PATHS = {language: "/" if language == "en" else f"/{language}" for language in LANGUAGES}
COOKIE = "lora_garage_language"


def language_link(language: str, **attributes: str | None) -> Html:
    """Return a link to a language's page, in that language, which also stores the choice."""
    w = Wording(language)
    html = w.t("language.html")
    return tag(
        "a", w.t("language.name"), href=f"{PATHS[language]}?lang={language}", lang=html, hreflang=html, **attributes
    )


class LanguageDoor:
    """ASGI middleware: redirects GET of "/" to the page of the visitor's language, and of any language's page with
    ?lang= to that language's. The page itself, a megabyte, is sent compressed."""

    def __init__(self, app: ASGIApp):
        self.app, self.packed = app, GZipMiddleware(app, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect a page with ?lang= to that language's page and store the language in a cookie; redirect "/" to the
        language of the cookie, else of the browser.

        The page of another language, such as /zh, is served as it is, whatever is preferred. All other requests are
        passed on.
        """
        path = scope.get("path", "")
        page = path.rstrip("/") or "/"  # /de/ as people type it
        if scope["type"] != "http" or scope["method"] != "GET" or page not in PATHS.values():
            return await self.app(scope, receive, send)
        query = scope.get("query_string", b"").decode("latin1")
        chosen = parse_qs(query).get("lang", [""])[0]
        if chosen in LANGUAGES:
            rest = "&".join(part for part in query.split("&") if part and not part.startswith("lang="))
            cookie = f"{COOKIE}={chosen}; Path=/; Max-Age=31536000; SameSite=Lax"
            return await _go(send, PATHS[chosen] + (f"?{rest}" if rest else ""), cookie)
        headers = {name: value.decode("latin1") for name, value in scope["headers"]}
        language = _remembered(headers.get(b"cookie", "")) or preferred(headers.get(b"accept-language", ""))
        there = PATHS[language] if page == PATHS["en"] else page
        if there != path:
            return await _go(send, there + (f"?{query}" if query else ""))
        await self.packed(scope, receive, send)


def preferred(accept_language: str) -> str:
    """Return the first of our languages that a browser accepts, by its weights; English if there is none."""
    weighted = []
    for position, part in enumerate(accept_language.split(",")[:50]):
        name, _, weight = part.strip().partition(";q=")
        try:
            weighted.append((-float(weight or 1), position, name.strip().lower()))
        except ValueError:
            continue
    for _, _, name in sorted(weighted):
        for language in LANGUAGES:
            if name.split("-")[0] == language:
                return language
    return "en"


def _remembered(cookies: str) -> str | None:
    """Return the language in the cookie; None without a valid one."""
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(cookies)
    except CookieError:
        return None
    value = jar[COOKIE].value if COOKIE in jar else None
    return value if value in LANGUAGES else None


async def _go(send: Send, where: str, cookie: str | None = None) -> None:
    """Send a redirect (303) to the address `where`. cookie: value of a Set-Cookie header."""
    headers = [
        (b"location", where.encode("latin1", "replace")),
        (b"content-length", b"0"),
        (b"cache-control", b"no-store"),
    ]
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
