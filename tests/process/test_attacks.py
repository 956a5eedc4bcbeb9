"""Attacks on a local page, each on gradio as it comes (where it works) and on ours (where it must not).

The table is in docs/security.md. What needs no server of its own is tested beside its subject: files in
test_data_reader, names in test_models and test_dataset_store, the door in test_door, templates in
test_template_sandbox.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from core.messages import msg
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import tabs
from tests.kit.hostile_app import answers
from tests.kit.ports import free_port
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SECRET = "the-canary-that-nobody-may-read"
EVIL = "http://evil.example"
ANSWER_S = 180  # far more than an app needs beside ten other programs: forty new sessions took 30 s there


@dataclass
class Server:
    port: int
    home: Path  # its working folder, its home and its temporary folder; a file beside says SECRET
    process: subprocess.Popen
    log: Path
    fns: list[dict[str, Any]] = field(default_factory=list)
    components: list[dict[str, Any]] = field(default_factory=list)
    drawing: set[int] = field(default_factory=set)  # handlers that draw a tab, whose ids change if it is drawn again
    # one: for each gradio copies the state of every part of a page
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def canary(self) -> Path:
        return self.home / "canary.txt"

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, port: int | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Exactly these words, unlike urllib and httpx, which tidy a path and a Host. Names in headers: _ for -."""
        connection = HTTPConnection("127.0.0.1", port or self.port, timeout=ANSWER_S)
        try:
            connection.putrequest(
                method, path, skip_host="host" in {name.lower() for name in headers}, skip_accept_encoding=True
            )
            content = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            if content is not None and "content_length" not in headers:
                connection.putheader("content-length", str(len(content)))
            connection.endheaders(content)
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()

    def post(self, path: str, value: Any, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        return self.ask("POST", path, json.dumps(value), **({"content_type": "application/json"} | headers))

    def call(self, fn: int, data: list[Any], event: Any = None) -> str:
        """What a handler answers, whichever way the page would reach it."""
        body = {"fn_index": fn, "data": data, "session_hash": self.session, "event_data": event}
        if next((f.get("queue") for f in self.fns if f["id"] == fn), True) is False:
            return self.post("/gradio_api/run/predict", body)[1].decode("utf-8", "replace")
        status, said, _ = self.post("/gradio_api/queue/join", body)
        if status != 200:
            return said.decode("utf-8", "replace")
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.request("GET", f"/gradio_api/queue/data?session_hash={self.session}")
            # to its end, so that nothing is left for the next
            return connection.getresponse().read().decode("utf-8", "replace")
        finally:
            connection.close()

    def upload(self, name: str, content: bytes = b"x", **headers: str) -> tuple[int, bytes]:
        raw = name.encode("utf-8", "surrogatepass").replace(b'"', b"%22").replace(b"\r", b"").replace(b"\n", b"")
        body = (
            b'--B\r\ncontent-disposition: form-data; name="files"; filename="'
            + raw
            + b'"\r\n\r\n'
            + content
            + b"\r\n--B--\r\n"
        )
        status, reply, _ = self.ask(
            "POST", "/gradio_api/upload", body, **({"content_type": "multipart/form-data; boundary=B"} | headers)
        )
        return status, reply


def start(kind: str, home: Path, sink: str) -> Server:
    for name in ("tmp", "workspace"):
        (home / name).mkdir(parents=True)
    (home / "canary.txt").write_text(SECRET, "utf-8")
    port, log = free_port(in_a_row=2), home / "app.log"  # plain gradio serves a page with a login on the second
    environment = os.environ | {"PYTHONPATH": str(kit.PROJECT), "LORA_GARAGE_LANG": "en"}
    if kind == "plain":  # so it is not forked from a process that has read ours, and patched gradio
        environment |= {"GRADIO_ANALYTICS_ENABLED": "False"}
    environment |= {name: str(home / "tmp") for name in ("TMPDIR", "TEMP", "TMP")} | {
        "HF_HOME": str(home / "tmp" / "hf")
    }
    rest = [str(home / "workspace"), sink] if kind == "ours" else [sink]
    with open(log, "wb") as output:
        line = [sys.executable, "-m", "tests.kit.hostile_app", kind, str(port), *rest]
        process = subprocess.Popen(line, cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT)
    server = Server(port, home, process, log)

    def answers_now() -> bool:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-3000:]
        try:
            return server.ask("GET", "/config")[0] == 200
        except OSError:
            return False

    wait_until(answers_now, 90)
    page = tabs.draw(server.url, server.session)
    server.fns, server.components, server.drawing = page.fns, page.components, page.drawing
    return server


@dataclass
class Sink:
    """A server elsewhere, which must never be asked for anything."""

    url: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            receiver.asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Sink(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield receiver
        server.shutdown()


def ended(server: Server) -> None:
    server.process.terminate()
    try:
        server.process.wait(30)
    except subprocess.TimeoutExpired:
        server.process.kill()
        server.process.wait()
        raise AssertionError(
            f"it did not end when asked:\n{server.log.read_text('utf-8', 'replace')[-3000:]}"
        ) from None


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Server]:
    server = start("ours", tmp_path_factory.mktemp("ours"), sink.url)
    yield server
    ended(server)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Iterator[Server]:
    server = start("plain", tmp_path_factory.mktemp("plain"), sink.url)
    yield server
    ended(server)


# ---- files and addresses by their path -----------------------------------------------------------

PATHS = (
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../etc/passwd", "/gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
    "/gradio_api/file=/etc/passwd%00.png", "/gradio_api/file=/proc/self/environ", "/gradio_api/file=CANARY",
    "/gradio_api/file=app.py",
    "/gradio_api/file=http://127.0.0.1:1/", "/gradio_api/file=http://169.254.169.254/latest/meta-data/", "/file/CANARY",
    "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/proxy=https://evil.example/",
    "/static/..%2f..%2f..%2fetc%2fpasswd",
    "/assets/..%2f..%2f..%2fetc%2fpasswd", "/svelte/..%2f..%2fetc%2fpasswd", "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/assets/....//....//etc/passwd", "/static//etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_file_and_no_address_is_had_by_its_path(ours: Server, path: str):
    status, content, _ = ours.ask("GET", path.replace("CANARY", str(ours.canary)))
    assert status in (400, 403, 404) and SECRET.encode() not in content and b"root:" not in content, (
        status,
        content[:200],
    )


def test_a_text_that_reaches_a_file_component_is_any_file_of_the_working_folder(plain: Server, ours: Server):
    """On plain gradio it is served to whoever asks; in ours no handler has such an output, and files are not served at
    all."""
    fn = next(fn["id"] for fn in plain.fns if fn["api_name"] == "file")
    path = json.loads(re.search(r'"data":(\[\{.*?\}\])', plain.call(fn, ["canary.txt"]))[1])[0]["path"]
    assert plain.ask("GET", f"/gradio_api/file={path}")[1].decode() == SECRET
    kinds = {component["id"]: component["type"] for component in ours.components}
    files = {
        "file",
        "image",
        "audio",
        "video",
        "gallery",
        "downloadbutton",
        "uploadbutton",
        "model3d",
        "fileexplorer",
        "imageeditor",
    }
    outputs = [(fn["id"], kinds[output]) for fn in ours.fns for output in fn["outputs"] if kinds.get(output) in files]
    assert {kind for _, kind in outputs} <= {"file"}
    for fn, _ in outputs:  # only the two drop fields, and both are only ever emptied
        for given in (str(ours.canary), {"path": str(ours.canary), "meta": {"_type": "gradio.FileData"}}, EVIL):
            inputs = next(f["inputs"] for f in ours.fns if f["id"] == fn)
            content = ours.call(fn, [given] * len(inputs))
            assert SECRET not in content and '"orig_name"' not in content, content[:300]


def test_a_file_that_was_uploaded_is_not_served_again(plain: Server, ours: Server):
    for server, expected in ((plain, 200), (ours, 404)):
        status, content = server.upload("page.html", b"<script>1</script>")
        path = json.loads(content)[0]
        status, _, headers = server.ask("GET", f"/gradio_api/file={path}")
        assert status == expected
    assert (
        "attachment"
        in plain.ask("GET", f"/gradio_api/file={json.loads(plain.upload('a.html')[1])[0]}")[2]["content-disposition"]
    )


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "..\\..\\x",
        "a\0b.jsonl",
        "<script>x</script>.jsonl",
        "x" * 500 + ".jsonl",
        "CON",
        "",
        ".",
        "a;rm -rf ~",
    ],
)
def test_a_hostile_file_name_stays_in_the_folder_of_uploads(ours: Server, name: str):
    status, content = ours.upload(name, b'{"question": "a", "answer": "b"}')
    if status != 200:
        assert status in (400, 422, 500) and b"Traceback" not in content
        return
    for path in json.loads(content):  # by its words: asked for what it leads to, Windows refuses a long one
        assert Path(os.path.abspath(path)).is_relative_to(ours.home / "workspace" / "cache" / "uploads"), path


def test_an_upload_beyond_the_limit_ends_with_413_and_keeps_nothing(plain: Server, ours: Server):
    assert plain.upload("big.jsonl", bytes(4 << 20))[0] == 200
    assert ours.upload("big.jsonl", bytes(4 << 20))[0] == 413
    assert ours.upload("small.jsonl", bytes(2 << 20))[0] == 200
    kept = [
        path
        for path in (ours.home / "workspace" / "cache").rglob("*")
        if path.is_file() and path.stat().st_size > 3 << 20
    ]
    assert not kept


@pytest.mark.parametrize(
    "path", ["/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/component_server", "/gradio_api/cancel"]
)
def test_a_huge_body_is_refused_whatever_it_says_it_is(ours: Server, path: str):
    for kind in ("application/json", "multipart/form-data; boundary=B", "text/plain"):
        assert ours.ask("POST", path, b"{", content_type=kind, content_length=str(9 << 20))[0] == 413


# ---- other web pages -----------------------------------------------------------------------------


def test_a_name_that_somebody_points_here_is_refused(plain: Server, ours: Server):
    """DNS rebinding: the browser believes that it talks to evil.example, and lets that page read what we answer."""
    status, _, headers = plain.ask("GET", "/config", host="evil.example", origin=EVIL)
    assert status == 200 and headers["access-control-allow-origin"] == EVIL
    for host in (
        "evil.example",
        f"evil.example:{ours.port}",
        "127.0.0.1.evil.example",
        "",
        "[::1",
        "localhost@evil.example",
    ):
        status, content, headers = ours.ask("GET", "/config", host=host)
        assert status == 421 and "access-control-allow-origin" not in headers and b"dependencies" not in content, host


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_another_site_can_neither_upload_nor_join_nor_read(plain: Server, ours: Server, origin: str):
    headers = {"origin": origin, "sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"}
    assert plain.upload("x.jsonl", **headers)[0] == 200, "the attack does not work on plain gradio any more"
    assert ours.upload("x.jsonl", **headers)[0] == 403
    assert (
        ours.upload("x.jsonl", origin=origin)[0] == 403 and ours.upload("x.jsonl", sec_fetch_site="same-site")[0] == 403
    )
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        join = {"fn_index": ours.fns[0]["id"], "data": [], "session_hash": "x"}
        assert ours.post("/gradio_api/queue/join", join, content_type=kind, origin=origin)[0] == 403
    assert ours.ask("GET", "/config", origin=origin)[0] == 403
    preflight = {"origin": origin, "access_control_request_method": "POST"}
    status, _, answered = ours.ask("OPTIONS", "/gradio_api/queue/join", **preflight)
    assert status == 403 and not [name for name in answered if name.startswith("access-control")]


def test_another_local_web_app_may_join_plain_gradios_queue(plain: Server):
    """So that the refusal above is known to be ours."""
    headers = {"host": f"localhost:{plain.port}", "origin": "http://localhost:1"}
    status, _, answered = plain.post(
        "/gradio_api/queue/join", {"fn_index": 0, "data": ["x"], "session_hash": "s"}, **headers
    )
    assert status == 200 and answered["access-control-allow-origin"] == "http://localhost:1"


def test_a_login_of_gradios_leaves_routes_open(plain: Server):
    """Why the door is ours (tests/unit/server/test_door.py holds it before every route)."""
    assert plain.ask("GET", "/config", port=plain.port + 1)[0] == 401
    body = json.dumps({"session_hash": "x", "fn_index": 0, "event_id": "x"})
    assert plain.ask("POST", "/gradio_api/cancel", body, port=plain.port + 1, content_type="application/json")[0] == 200
    assert plain.ask("GET", "/gradio_api/startup-events", port=plain.port + 1)[0] == 200


def test_a_private_handler_of_gradios_is_called_by_its_name_and_ours_is_not(plain: Server, ours: Server):
    name = next(fn["api_name"] for fn in plain.fns if fn["api_name"] == "chatbot")
    assert plain.post(f"/gradio_api/run/{name}", {"data": ["x"]})[0] == 200
    assert plain.post(f"/gradio_api/call/{name}", {"data": ["x"]})[0] == 200
    for api_name in {fn["api_name"] or "x" for fn in ours.fns}:
        for way in ("run", "api", "call"):
            assert ours.post(f"/gradio_api/{way}/{api_name}", {"data": []})[0] == 404
    queued = next(fn["id"] for fn in ours.fns if fn["queue"] is not False and fn["backend_fn"])
    assert ours.post("/gradio_api/run/predict", {"fn_index": queued, "data": [], "session_hash": "x"})[0] == 404


# ---- any JSON to any handler ---------------------------------------------------------------------

DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]


def junk(canary: Path) -> dict[str, Any]:
    forged = {
        "path": str(canary),
        "url": "http://127.0.0.1:1/x",
        "orig_name": "x.jsonl",
        "meta": {"_type": "gradio.FileData"},
    }
    return {
        "a path": f"../../../..{canary}",
        "a forged file": forged,
        "an address as a file": {"path": "http://192.0.2.1/x", "meta": {"_type": "gradio.FileData"}},
        "a list": [str(canary), None, {"a": [1]}],
        "deep": DEEP,
        "a number": 1e308,
        "a negative": -1,
        "nothing": None,
        "true": True,
        "a name": "run:../../x\0\u202e; rm -rf ~",
        "half a character": "\ud800",
        "an object": {
            "explicit": {"train.learning_rate": "nan", "adapter.r": 10**9},
            "shown": {"x": []},
            "parent": "../..",
        },
    }


def test_every_handler_answers_junk_in_a_sentence_and_touches_nothing(ours: Server, full: bool):
    before = listing(ours.home)
    kinds = junk(ours.canary)
    fns = [fn for fn in ours.fns if fn["backend_fn"] and fn["id"] not in ours.drawing]
    # Many listeners share a handler, and the second language has the same ones again.
    alike = {(tuple(fn["inputs"]), tuple(fn["outputs"])): fn for fn in fns}
    chosen = fns if full else list(alike.values())[: -(-len(alike) // 2)]
    assert len(chosen) > 30
    for place, fn in enumerate(chosen):
        for name in kinds if full else list(kinds)[place % 6 :: 6]:
            content = ours.call(fn["id"], [kinds[name]] * len(fn["inputs"]), kinds[name])
            assert SECRET not in content and "Traceback" not in content, (fn["id"], name, content[:500])
    assert listing(ours.home) - before == set(), "a file outside the workspace"
    assert not Runs(Workspace.open(ours.home / "workspace")).list()
    assert ours.process.poll() is None and ours.ask("GET", "/config")[0] == 200
    assert own_tracebacks(ours) == []


def listing(home: Path) -> set[str]:
    own = ("workspace", "app.log")
    return {
        str(path) for path in home.rglob("*") if path.relative_to(home).parts[0] not in own and "hf" not in path.parts
    }


def own_tracebacks(server: Server) -> list[str]:
    """Lines of tracebacks in its output that name files of ours: gradio prints one for each value that it refuses
    itself, through webui/server/blocks.py, which only passes its calls on."""
    return [
        line
        for line in server.log.read_text("utf-8", "replace").splitlines()
        if re.search(r'File ".*/(webui|core)/(?!server/blocks\.py)[\w/]+\.py"', line)
    ]


def test_numbers_that_do_not_exist_and_json_without_end_are_refused(plain: Server, ours: Server):
    for server in (plain, ours):
        deep = '{"fn_index": 0, "session_hash": "x", "data": ' + "[" * 5000 + "]" * 5000 + "}"
        assert server.ask("POST", "/gradio_api/queue/join", deep, content_type="application/json")[0] in (200, 400, 422)
        for fn in (-1, 10**9, "x", None, [], 1e30):
            status, content, _ = server.post(
                "/gradio_api/queue/join", {"fn_index": fn, "data": [], "session_hash": "x"}
            )
            assert status >= 400 and b"Traceback" not in content and b"site-packages" not in content
        for component in (-1, 10**9, "x", None):
            body = {"component_id": component, "fn_name": "curve", "data": {}, "session_hash": "x"}
            status, content, _ = server.post("/gradio_api/component_server", body)
            assert status >= 400 and b"Traceback" not in content
    assert ours.ask("GET", "/config")[0] == 200


@pytest.mark.parametrize(
    "cursor", [None, [], [None], 1e30, -1, "x", {"a": 1}, [["x"]], ["x", 0, 0, 0, 0, 0, 0], [10**400], DEEP]
)
def test_a_garbage_cursor_gets_an_empty_curve(ours: Server, cursor: Any):
    config = json.loads(ours.ask("GET", "/config")[1])
    charts = [
        component["id"]
        for component in config["components"]
        if "curve" in json.dumps(component["props"].get("server_fns", []))
    ]
    assert charts
    for run in ("", "../../x", None, ["x"]):
        body = {
            "component_id": charts[0],
            "fn_name": "curve",
            "data": {"run": run, "cursor": cursor},
            "session_hash": "x",
        }
        status, content, _ = ours.post("/gradio_api/component_server", body)
        curve = json.loads(content)
        # Without a name it is that of the run on Train, if a test of this file has made one.
        assert status == 200 and (run == "" and curve["run"] or curve["x"] == []), (status, content[:200])
        if curve["x"]:
            body["data"]["run"] = curve["run"]
            assert json.loads(ours.post("/gradio_api/component_server", body)[1])["x"] == curve["x"]
    for other in ("__init__", "get_config", "_id", "../curve", "load_event"):
        body = {"component_id": charts[0], "fn_name": other, "data": {}, "session_hash": "x"}
        assert ours.post("/gradio_api/component_server", body)[0] == 404


def test_forty_joins_and_two_hundred_polls_at_once_are_answered_or_refused(ours: Server):
    queued = next(fn for fn in ours.fns if fn["queue"] is not False and fn["backend_fn"])
    poll = {"component_id": -1, "fn_name": "curve", "data": {}, "session_hash": "x"}

    def join(number: int) -> int:
        body = {"fn_index": queued["id"], "data": [None] * len(queued["inputs"]), "session_hash": f"crowd{number}"}
        return ours.post("/gradio_api/queue/join", body)[0]

    with ThreadPoolExecutor(40) as crowd:
        joined = list(crowd.map(join, range(40)))
        polled = list(crowd.map(lambda _: ours.post("/gradio_api/component_server", poll)[0], range(200)))
    assert set(joined) <= {200, 503} and len(polled) == 200
    assert ours.ask("GET", "/config")[0] == 200


def test_a_connection_that_never_finishes_keeps_nobody_out(ours: Server):
    slow = [socket.create_connection(("127.0.0.1", ours.port)) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(
                b"POST /gradio_api/queue/join HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{"
            )
        assert ours.ask("GET", "/config")[0] == 200
    finally:
        for connection in slow:
            connection.close()


# ---- what a model writes -------------------------------------------------------------------------

in_a_browser = pytest.mark.browser


@pytest.mark.parametrize("what", [pytest.param("image", marks=in_a_browser)])
def test_on_plain_gradio_a_models_answer_fetches_from_elsewhere_and_gr_html_runs_it(
    chrome: Browser, plain: Server, sink: Sink, what: str
):
    page = chrome.new_page()
    page.goto(plain.url)
    page.fill("#said textarea", what)
    page.click("#go-chatbot")
    wait_until(
        lambda: pump(page) and any("markdown.png" in request or "tag.png" in request for request in sink.asked), 30
    )
    page.fill("#said textarea", "<img src=x onerror=\"window.ran='html'\">")
    page.click("#go-html")
    wait_until(lambda: pump(page) and page.evaluate("window.ran") == "html", 30)
    page.close()


@pytest.mark.gate
@pytest.mark.parametrize("lists", [pytest.param("all", marks=in_a_browser)])
def test_whatever_a_model_writes_runs_nothing_and_fetches_nothing(
    chrome: Browser, ours: Server, sink: Sink, lists: str
):
    outside: list[str] = []
    page = opened(chrome, ours, outside)
    sink.asked.clear()
    for asked in sorted(answers(sink.url), key="form".__eq__):  # the form last: it stays there to be sent
        shown = asked_and_answered(page, asked)
        assert page.evaluate("window.ran") is None, asked
        assert len(shown) > {"long": 30_000, "image": -1, "form": -1}.get(asked, 0), (asked, len(shown))
        if asked == "script":
            for link in page.locator("#chat-base [data-testid=bot] a").all():
                link.click(no_wait_after=True)
        if asked != "form":
            page.click("#chat-clear")
            page.locator("#chat-empty").wait_for()
    if page.locator("#chat-base form").count():  # it may stand there, but the page's policy keeps it from being sent
        page.evaluate("setTimeout(() => document.querySelector('#chat-base form').requestSubmit())")
        page.wait_for_timeout(500)
        assert page.evaluate("location.href").startswith(ours.url)
    page.close()
    name = "<img src=x onerror=window.ran=1>${window.ran=1}{{window.ran=1}}"
    with ScriptedRun(
        Workspace.open(ours.home / "workspace"), name[:60]
    ) as run:  # without its lock, the app would call it interrupted
        run.to(State.RUNNING).train(5).to(State.COMPLETED, msg("run.completed", step=5))
    page = opened(chrome, ours, outside)
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label").first.click()
    page.locator("#details-card").wait_for()
    assert page.evaluate("window.ran") is None
    assert sink.asked == [] and [url for url in outside if not url.startswith(sink.url)] == []
    page.close()


def opened(chrome: Browser, server: Server, outside: list[str]) -> Page:
    """outside: collects what it asks of others. Chromium names there too what the page's policy then refuses; the sink
    hears of none of that."""
    page = chrome.new_page(viewport=kit.DESKTOP, locale="en-US")
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((server.url, "data:", "blob:")) else outside.append(asked.url),
    )
    page.goto(server.url + "/?lang=en")
    kit.go_to_tab(page, "Chat")
    return page


def asked_and_answered(page: Page, message: str) -> str:
    page.fill("#chat-message textarea", message)
    page.click("#chat-send")
    page.locator("#chat-base-note p").wait_for(timeout=60_000)
    wait_until(lambda: pump(page) and page.locator("#chat-send").is_visible(), 60)
    return page.locator("#chat-base [data-testid=bot]").last.inner_text()


def pump(page: Page) -> bool:
    page.wait_for_timeout(50)
    return True
