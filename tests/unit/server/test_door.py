"""Who comes in where others can reach the page: a key or a password before every route there is."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from core.system.reach import Reach
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.waits import wait_until
from webui.__main__ import secret_of
from webui.kit.wording import Wording
from webui.server import guard
from webui.server.door import Door, Doorkeeper, DoorSecret, FailedAttempts
from webui.server.guard import LOOPBACK, Guard

HTML = {"accept": "text/html"}


def keeper(secret: DoorSecret, first_s: float = 0.0) -> Doorkeeper:
    return Doorkeeper(secret, 7860, FailedAttempts(first_s))


def visitor(kept: Doorkeeper) -> TestClient:
    async def inside(request):
        return PlainTextResponse("inside")

    routes = [
        Route(path, inside, methods=["GET", "POST"]) for path in ("/", "/zh", "/config", "/gradio_api/startup-events")
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard), Middleware(Door, keeper=kept)])
    return TestClient(app, base_url="http://127.0.0.1:7860", follow_redirects=False)


# ---- the door alone ------------------------------------------------------------------------------


def test_a_key_in_the_address_opens_once_and_for_all_and_is_not_the_cookie():
    kept = keeper(DoorSecret.generate())
    client = visitor(kept)
    assert client.get("/", headers=HTML).status_code == 401 and client.get("/config").status_code == 401
    came = client.get(f"/zh?lang=zh&key={kept.secret.word}", headers=HTML)
    assert came.status_code == 200 and "0;url=/zh?lang=zh" in came.text and "inside" not in came.text
    cookie = came.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and kept.secret.word not in cookie
    assert client.get("/config").text == "inside"


def test_name_and_password_are_asked_for_and_both_have_to_be_right():
    kept = keeper(DoorSecret("me", "correct horse"))
    client = visitor(kept)
    assert 'name="user"' in client.get("/", headers=HTML).text
    for given in (
        {"user": "me", "word": "wrong"},
        {"user": "you", "word": "correct horse"},
        {"word": "correct horse"},
        {},
    ):
        response = client.post("/door", data=given)
        assert response.status_code == 401 and "Wrong" in response.text and "set-cookie" not in response.headers
    assert client.get("/config").status_code == 401
    assert client.post("/door", data={"user": "me", "word": "correct horse"}).status_code == 200
    assert client.get("/config").text == "inside"


def test_an_umlaut_and_a_chinese_password_open_too():
    client = visitor(keeper(DoorSecret("Jürgen", "密码密码密码密码")))
    assert client.post("/door", data={"user": "Jürgen", "word": "密码密码密码密码"}).status_code == 200


def test_a_cookie_of_somebody_elses_making_is_worth_nothing():
    kept = keeper(DoorSecret.generate())
    for value in ("", "1", kept.secret.word, "true; lora_garage_7860", '"' * 9, "x" * 20000):
        assert visitor(kept).get("/config", headers={"cookie": f"lora_garage_7860={value}"}).status_code == 401
    assert visitor(kept).get("/config", headers={"cookie": f"lora_garage_7861={kept.inside}"}).status_code == 401


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "/zh/../x"])
def test_the_way_on_from_the_door_leads_nowhere_else(path: str):
    kept = keeper(DoorSecret.generate())
    scope_path = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": f"key={kept.secret.word}".encode(),
        "headers": [],
    }
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(Door(None, kept)(scope_path, None, send))
    assert b"0;url=/" in sent[1]["body"] and b"evil" not in sent[1]["body"]


def test_a_ticket_for_our_own_browser_is_good_for_one_visit():
    kept = keeper(DoorSecret.generate())
    ticket = kept.ticket("http://127.0.0.1:7860/").split("7860")[1]
    assert visitor(kept).get(ticket).status_code == 200 and visitor(kept).get(ticket).status_code == 401


def test_who_was_wrong_waits_twice_as_long_each_time_and_others_do_not():
    wrongs = FailedAttempts(0.5)
    waits = []
    for _ in range(9):
        waits.append(wrongs.wait_s("10.0.0.1"))
        wrongs.failed("10.0.0.1")
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30] and wrongs.wait_s("10.0.0.2") == 0.5
    wrongs.succeeded("10.0.0.1")
    assert wrongs.wait_s("10.0.0.1") == 0.5
    for i in range(5000):
        wrongs.failed(str(i)), wrongs.turn(str(i))
    assert len(wrongs._counts) <= 1000 and len(wrongs._turns) <= 1000


def test_while_a_wrong_try_waits_not_even_the_right_one_of_the_same_address_is_compared():
    kept = keeper(DoorSecret("me", "correct horse"), first_s=0.2)

    async def tries() -> list[str]:
        wrong = asyncio.create_task(kept.try_("me", "x", "10.0.0.1"))
        await asyncio.sleep(0.01)
        verdicts = [
            await kept.try_("me", "correct horse", "10.0.0.1"),
            await kept.try_("me", "correct horse", "10.0.0.2"),
        ]
        return [*verdicts, await wrong, await kept.try_("me", "correct horse", "10.0.0.1")]

    assert asyncio.run(tries()) == ["too_soon", "right", "wrong", "right"]


def test_a_huge_form_is_refused():
    assert visitor(keeper(DoorSecret("a", "b"))).post("/door", content=b"word=" + b"x" * 9000).status_code == 413


@pytest.mark.parametrize(
    ("host", "path"), [("evil.example", "/config"), ("127.0.0.1:7860", "/config"), ("127.0.0.1:7860", "/door")]
)
def test_what_is_refused_is_answered_at_once_and_ends_when_its_body_was_read(host: str, path: str):
    """A connection that was closed over unread bytes was reset, and a program on Windows saw that in place of the
    sentence."""
    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"host", host.encode())]}
    chunks = [b"word=" + b"x" * 5000, b"", b"x" * 10, b"y"]
    happened: list[bytes | str] = []

    async def receive() -> dict:
        happened.append(chunk := chunks.pop(0))
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: dict) -> None:
        happened.append(
            "ends" if message["type"] == "http.response.body" and not message.get("more_body") else "answers"
        )

    asyncio.run(Guard(Door(None, keeper(DoorSecret("me", "correct horse"))))(scope, receive, send))
    assert chunks == [] and happened[-2:] == [b"y", "ends"] and "answers" in happened[:3]


def test_a_refused_body_without_end_is_not_read_for_ever():
    async def receive() -> dict:
        return {"type": "http.request", "body": b"x" * 100_000, "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    sent: list[dict] = []
    asyncio.run(Guard(None)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    assert sent[-1] == {"type": "http.response.body"}


def test_who_sends_nothing_more_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "PATIENCE_S", 0.05)

    async def receive() -> dict:
        await asyncio.Event().wait()
        raise AssertionError("it never comes")

    async def send(message: dict) -> None:
        sent.append(message)

    sent: list[dict] = []
    asyncio.run(Guard(None)({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    assert sent[-1] == {"type": "http.response.body"}


# ---- where the page answers ----------------------------------------------------------------------


def test_loopback_has_no_door_and_no_other_name():
    for host in ("127.0.0.1", "localhost", "::1", "[::1]"):
        assert Reach.from_host(host).is_this_pc_only and Reach.from_host(host).names == LOOPBACK
    assert Reach.from_host("::1").bound == "[::1]"
    other = Reach.from_host("127.0.0.2")  # as Debian's 127.0.1.1 of the PC's own name: it was answered to nobody
    assert other.is_this_pc_only and other.names == (*LOOPBACK, "127.0.0.2")


def test_on_the_network_it_answers_to_its_own_addresses_and_names_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("core.system.reach._own_addresses", lambda: ["192.0.2.5", "2001:db8::5"])
    monkeypatch.setattr("socket.gethostname", lambda: "Gaming-PC.lan")
    reach = Reach.from_host("0.0.0.0")
    assert set(reach.names) == {
        *LOOPBACK,
        "0.0.0.0",
        "192.0.2.5",
        "[2001:db8::5]",
        "gaming-pc.lan",
        "gaming-pc",
        "gaming-pc.local",
    }
    assert reach.remote == ("192.0.2.5",) and reach.local == "127.0.0.1", "asyncio listens on one family"
    assert Reach.from_host("::").remote == ("[2001:db8::5]",) and Reach.from_host("::").local == "[::1]"
    assert Reach.from_host("192.0.2.9").remote == ("192.0.2.9",)


def test_where_there_is_no_network_yet_there_is_a_door_all_the_same(monkeypatch: pytest.MonkeyPatch):
    """It was left open: a PC whose network came after the start was open to all of it."""
    monkeypatch.setattr("core.system.reach._own_addresses", list)
    reach = Reach.from_host("0.0.0.0")
    assert reach.remote == () and secret_of(None, reach, Wording("en")) is not None


# ---- the whole app -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kit.App]:
    """Served to the network, with variables in its shell that would open more."""
    root = Workspace.open(tmp_path_factory.mktemp("door") / "workspace").root
    widening = {
        "GRADIO_SHARE": "True",
        "GRADIO_SERVER_NAME": "0.0.0.0",
        "GRADIO_ALLOWED_PATHS": "/",
        "GRADIO_ROOT_PATH": "/x",
    }
    widening |= {
        "GRADIO_MCP_SERVER": "True",
        "GRADIO_VIBE_MODE": "1",
        "GRADIO_LOCAL_DEV_MODE": "1",
        "GRADIO_RUN_HISTORY": "True",
    }
    widening |= {"GRADIO_ANALYTICS_ENABLED": "True", "SYSTEM": "spaces", "SPACE_ID": "x/y", "GRADIO_SSR_MODE": "True"}
    app = kit.start_app(root, options=("--host", "0.0.0.0"), **widening)
    yield app
    app.stop()


def key_of(app: kit.App) -> str:
    return re.search(r"[?]key=([\w-]+)", app.log.read_text("utf-8"))[1]


def test_every_printed_address_opens_the_door(open_app: kit.App):
    """Those after the first came without the key, and with IPv6, which nothing listened on."""
    wait_until(lambda: "?key=" in open_app.log.read_text("utf-8"))
    printed = re.findall(r"http://[^\s,]+", open_app.log.read_text("utf-8"))
    assert printed and {urllib.request.urlopen(url, timeout=10).status for url in printed} == {200}


def test_the_printed_key_is_not_in_the_log(open_app: kit.App):
    log = Workspace(open_app.workspace).log
    wait_until(lambda: "serving http" in log.read_text("utf-8") and "?key=" in open_app.log.read_text("utf-8"))
    assert key_of(open_app) not in log.read_text("utf-8")


def status(url: str, method: str = "GET", **headers: str) -> int:
    try:
        request = urllib.request.Request(url, method=method, data=b"{}" if method == "POST" else None, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def gradios_routes() -> list[tuple[str, str]]:
    """(path, method) of every route of a gradio app, by its own list."""
    import gradio as gr
    from gradio.routes import App

    with gr.Blocks(analytics_enabled=False) as demo:
        gr.File()
    routes, routers = [], [App.create_app(demo)]
    while routers:
        for route in routers.pop().routes:
            if hasattr(route, "path"):
                routes += [(route.path, method) for method in getattr(route, "methods", None) or ("GET",)]
            elif hasattr(route, "original_router"):
                routers.append(route.original_router)
    return routes


def test_no_route_of_gradios_is_open_without_the_key(open_app: kit.App):
    routes = gradios_routes()
    assert len(routes) > 70, "gradio's own list was not found"
    statuses = {}
    for path, method in routes:
        filled = re.sub(r"\{\w+(:path)?\}", "x", path)
        statuses[method, filled] = status(open_app.url + filled, method)
    opened = {route: answer for route, answer in statuses.items() if answer not in (401, 404)}
    assert {path for _, path in opened} <= {"/gradio_api/startup-events"}, opened
    assert (
        statuses["GET", "/config"]
        == statuses["POST", "/gradio_api/queue/join"]
        == statuses["POST", "/gradio_api/upload"]
        == 401
    )


def test_variables_of_the_shell_open_nothing(open_app: kit.App):
    log = open_app.log.read_text("utf-8")
    assert "gradio.live" not in log and "Traceback" not in log
    cookie = {
        "Cookie": urllib.request.urlopen(f"{open_app.url}/?key={key_of(open_app)}").headers["Set-Cookie"].split(";")[0]
    }
    assert status(open_app.url + "/config", **cookie) == 200
    for path in (
        "/gradio_api/mcp/",
        "/gradio_api/vibe-code",
        "/monitoring",
        "/docs",
        "/gradio_api/runs",
        "/gradio_api/file=/etc/hostname",
    ):
        assert status(open_app.url + path, **cookie) == 404, path
    with urllib.request.urlopen(urllib.request.Request(open_app.url + "/config", headers=cookie)) as answer:
        config = answer.read().decode()
    assert '"analytics_enabled":false' in config and '"/x' not in config


@pytest.mark.browser
def test_the_page_can_be_installed_over_the_key(open_app: kit.App):
    with kit.browser() as chrome:
        page, _ = kit.open_page(chrome, open_app, f"/?lang=en&key={key_of(open_app)}")
        page.locator("nav.lg-rail").wait_for()
        devtools = page.context.new_cdp_session(page)
        manifest = devtools.send("Page.getAppManifest")
        assert not manifest["errors"] and json.loads(manifest["data"])["name"] == "LoRA Garage"
        [icon] = json.loads(manifest["data"])["icons"]
        drawn = page.request.get(f"{open_app.url}/{icon['src'].lstrip('/')}")
        assert (
            drawn.ok and drawn.headers["content-type"].startswith("image/svg+xml") and b"linearGradient" in drawn.body()
        )
        errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert {error["errorId"] for error in errors} <= {"in-incognito"}, errors


@pytest.mark.browser
def test_a_person_comes_in_by_the_printed_address_or_by_the_key_alone(open_app: kit.App):
    key = key_of(open_app)
    with kit.browser() as chrome:
        page, watch = kit.open_page(chrome, open_app, f"/?lang=en&key={key}")
        page.locator("nav.lg-rail").get_by_role("link", name="Chat", exact=True).click()
        page.locator("#chat-message").wait_for()
        # the language's, not the door's
        assert key not in page.url and page.evaluate("document.cookie").count("lora_garage_") <= 1
        watch.check()
        page.context.close()
        context = chrome.new_context(locale="zh-CN", viewport=kit.PHONE)
        page = context.new_page()
        page.goto(open_app.url)
        assert "密钥" in page.inner_text("main") and kit.violations(page) == [] and kit.overflow(page) <= 0
        page.fill("#word", key)
        page.click("button")
        page.locator("nav.lg-rail").get_by_role("link", name="训练", exact=True).wait_for()
        context.close()
