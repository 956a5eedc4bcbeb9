"""The page without a browser: its words, its numbers, what it refuses, and that it never loads torch."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.messages import LANGUAGES, msg
from core.presets import PROJECT
from core.progress import Progress
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from webui.kit import format
from webui.kit.html import notice, success, tag
from webui.kit.wording import Wording
from webui.server.guard import Guard
from webui.server.language import PATHS, LanguageDoor, preferred

EN, ZH = Wording("en"), Wording("zh")


def make_run(workspace: Workspace, name: str = "a run", **facts: object) -> RunFolder:
    return Runs(workspace).create(
        Recipe.parse({"name": name, "data": {"source": "sample:pirate_answers"}}), "test", RunFacts(**facts)
    )


# ---- words ---------------------------------------------------------------------------------------


def test_no_key_of_the_page_shadows_one_of_core():
    from core.messages import core_catalogue
    from webui.kit.wording import PAGE_LOCALES

    of_page = {path.stem for path in PAGE_LOCALES.glob("*/*.yaml")}
    assert of_page.isdisjoint({key.split(".")[0] for key in core_catalogue().keys("en")})  # noqa: SIM118


# ---- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (999, "999 B"), (31e6, "31 MB"), (1.24e9, "1.2 GB"), (93_412_000, "93 MB"), (45e9, "45 GB")],
)
def test_bytes_as_disks_are_sold(value: float, shown: str):
    assert format.bytes_used(EN, value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(1.23456, "1.235"), (None, "–"), (math.nan, "–"), (math.inf, "–"), (12345.0, "1.23e+04")]
)
def test_an_unknown_loss_is_a_dash_and_never_0(value: float | None, shown: str):
    assert format.loss(EN, value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(2e-4, "0.0002"), (1e-3, "0.001"), (3.0, "3"), (64, "64"), (1e-9, "1e-09"), (True, "True")]
)
def test_numbers_as_they_were_typed(value: float, shown: str):
    assert format.number(EN, value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""),
        (-1, ""),
        (0, "about 5 s left"),
        (31, "about 30 s left"),
        (59, "about 1 min left"),
        (1500, "about 25 min left"),
        (6000, "about 1 h 40 min left"),
    ],
)
def test_time_left_in_words(seconds: float | None, shown: str):
    assert format.time_left(EN, seconds) == shown


def test_a_date_is_written_as_its_language_does():
    """Seen in German: "12-01 15:27", broken after "12-"."""
    then = datetime(2025, 3, 9, 7, 5).timestamp()
    shown = [format.moment(Wording(language), then) for language in ("en", "de", "zh")]
    assert shown == ["2025‑03‑09 07:05", "09.03.2025 07:05", "2025年3月9日 07:05"]


def test_progress_says_its_unit():
    assert format.progress(EN, Progress(done=34e6, total=93e6, unit="bytes")) == "34 MB of 93 MB"
    assert format.progress(EN, Progress(done=120, total=140, unit="rows")) == "120 of 140 rows"
    assert format.progress(EN, None) == ""


# ---- markup --------------------------------------------------------------------------------------


def test_what_people_wrote_stays_text():
    hostile = """<img src=x onerror=alert(1)> " ' ${1+1} {{x}}"""
    assert "<img" not in tag("p", hostile, title=hostile) and 'title="&lt;img' in tag("p", hostile, title=hostile)
    assert "<img" not in notice(hostile)
    assert tag("p", tag("b", "x")) == "<p><b>x</b></p>" and notice("") == ""
    assert success("") == "" and success("x") != success("x"), "gradio draws no value that it has drawn"


# ---- the form ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        (3, 0.9, 256, 42),
        (0, 0, 256, 42),
        (0, 0.9, 0, 42),
        (math.nan, 0.9, 256, 42),
        ("x", 0.9, 256, 42),
        (0, 0.9, 256, -1),
    ],
)
def test_the_chat_refuses_sampling_that_cannot_be(values: tuple):
    from core.errors import ChatError
    from webui.pages.chat import sampling_of

    with pytest.raises(ChatError):
        sampling_of(*values)


def test_temperature_0_is_greedy_and_empty_fields_are_defaults():
    from webui.pages.chat import sampling_of

    assert sampling_of(0, 0.9, 64, 1).greedy and not sampling_of(0.7, 0.9, 64, 1).greedy
    assert sampling_of(None, None, None, None).max_new_tokens == 256


def test_a_history_becomes_turns_without_unanswered_ones():
    from webui.pages.chat_history import turns_of, without_last

    history = [
        {"role": "user", "content": [{"type": "text", "text": "stopped at once"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
        {"role": "user", "content": "and now?"},
    ]
    turns = turns_of(history, "be brief")
    assert [turn["content"] for turn in turns] == ["be brief", "hello", "hi", "and now?"]
    assert without_last(history[:4]) == (history[:2], "hello") and without_last([]) == ([], "")


def test_thinking_and_tool_calls_come_back_as_the_template_wants_them_and_are_never_markup():
    from webui.pages.chat_history import turns_of, with_answer

    question, titles = [{"role": "user", "content": "Weather?"}], ("Thinking", "Tool call")
    raw = '<tool_call>\n\n{"name": "get_weather", "arguments": {"city": "</pre><script>x</script>"}}\n</tool_call>'
    messages = with_answer(question, f"<think>\nI <b>look</b>.\n\nAgain.\n</think>\n\nWait.{raw}", *titles)
    assert [m["content"][:14] for m in messages] == ["Weather?", "<details class", "Wait.", "<details class"]
    assert all(m["content"].count("<") == 6 and "\n" not in m["content"] for m in (messages[1], messages[3])), (
        "nothing of it is markup"
    )
    turn = {"role": "assistant", "content": f"Wait.{raw}", "reasoning": "I <b>look</b>.\n\nAgain."}
    assert turns_of(messages)[1:] == [turn]
    begun = with_answer(question, "<think>\nI lo", *titles)
    assert turns_of(begun)[1] == {"role": "assistant", "content": "", "reasoning": "I lo"}
    for text in ('{"name": "f", "parameters": {}}', '<tool_call>\n{"name"'):
        assert turns_of(with_answer(question, text, *titles))[1]["content"] == text
    assert (
        with_answer(question, "", *titles)[1:]
        == with_answer(question, "<think>\n", *titles)[1:]
        == [{"role": "assistant", "content": ""}]
    )
    assert turns_of(with_answer(question, "a < b\n\n<i>c</i>", *titles))[1]["content"] == "a < b\n\n<i>c</i>"


def test_a_person_may_ask_with_thinking_without_it_or_as_was_trained():
    from webui.pages.chat import sampling_of

    ways = ["trained", "on", "off", None, ["on"], "<b>"]
    assert [sampling_of(0, 0.9, 64, 1, way).enable_thinking for way in ways] == [None, True, False, None, None, None]


# ---- run panel -----------------------------------------------------------------------------------


def test_the_header_counts_steps_also_while_a_run_measures(workspace: Workspace):
    """Seen: 60 %, then 0 % while the first of three rows kept apart was read, then 60 % again."""
    from core.chat.client import ChatClient
    from core.export.exports import Exports
    from webui.run import card
    from webui.state.snapshot import Snapshots

    run = make_run(workspace)
    progress = Progress(done=0, total=3, unit="rows")
    status = Status(state=State.RUNNING, stage="measuring", step=48, total_steps=80, progress=progress)
    (run.path / "state.json").write_text(status.model_dump_json(), "utf-8")
    with run.lock():
        shown = Snapshots(Runs(workspace), ChatClient(workspace), Exports(workspace)).now().shown
        assert "60 %" in card.headline(shown, EN)


def test_the_queue_names_the_run_that_begins_first():
    """It named the one that was queued first, at its time."""
    from core.queue.queue import Order, QueuedRun
    from webui.run.queue import next_in_queue
    from webui.state.making import MakingProgress

    def told(*times: float | None, making: MakingProgress | None = None) -> list[str]:
        waiting = [
            (SimpleNamespace(name=name, status=SimpleNamespace(since=50.0)), QueuedRun(run=name, not_before=at))
            for name, at in zip("ABC", times, strict=False)
        ]
        queue = SimpleNamespace(waiting=waiting, order=Order())
        return re.findall("“(.+?)”", next_in_queue(SimpleNamespace(queue=queue, busy=None, making=making), EN))

    now = time.time()
    assert [told(now + 7200, now + 3600), told(now + 3600, None, None), told(None, now - 9)] == [["B"], ["B"], ["A"]]
    asked = [MakingProgress(title="Rows", stage="waiting", since=since) for since in (40.0, 60.0)]
    assert [told(None, making=each) for each in asked] == [["A", "Rows"], ["A"]]
    assert told(None, making=MakingProgress(title="Rows", stage="writing", since=60.0)) == ["A", "Rows"]


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_run_in_every_state_has_a_card(workspace: Workspace, state: State, language: str):
    from core.chat.client import ChatClient
    from core.export.exports import Exports
    from webui.run import card
    from webui.run.signal import signal
    from webui.state.snapshot import Snapshots

    run = make_run(workspace, "<script>x</script>")
    status = Status(
        state=state, stage="training", step=3, total_steps=10, seconds_left=100.0, message=msg("run.completed", step=3)
    )
    (run.path / "state.json").write_text(status.model_dump_json(), "utf-8")
    runs = Runs(workspace)
    now = Snapshots(runs, ChatClient(workspace), Exports(workspace)).now()
    w, shown = Wording(language), now.shown
    for part in (
        card.card(shown, w),
        card.settings(shown, w),
        card.story(shown, w),
        card.headline(shown, w),
        signal(now, w),
    ):
        assert "<script>" not in part and "train_page." not in part and "state." not in part


@pytest.mark.parametrize(
    ("state", "is_said"), [(State.PREPARING, True), (State.RUNNING, True), (State.COMPLETED, False)]
)
def test_a_run_at_work_says_whether_the_pc_may_fall_asleep_under_it(workspace: Workspace, state: State, is_said: bool):
    from core.chat.client import ChatClient
    from core.export.exports import Exports
    from webui.run import card
    from webui.state.snapshot import Snapshots

    run = make_run(workspace, "Pirate")
    status = Status(state=state, stage="training", step=3, total_steps=10, awake=msg("awake.held"))
    (run.path / "state.json").write_text(status.model_dump_json(), "utf-8")
    with run.lock():
        shown = Snapshots(Runs(workspace), ChatClient(workspace), Exports(workspace)).now().shown
        story = str(card.story(shown, EN))
    assert ("This PC is kept awake" in story) is is_said


# ---- who is let in -------------------------------------------------------------------------------


def client():
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from starlette.testclient import TestClient

    async def answer(request):
        return PlainTextResponse(
            f"{request.url.path} {len(await request.body())}" + request.query_params.get("more", "")
        )

    routes = [Route(path, answer, methods=["GET", "POST"]) for path in (*PATHS.values(), "/assets/page-1a2b3c4d.js")]
    return TestClient(
        Starlette(routes=routes, middleware=[Middleware(Guard, most_bytes=1000), Middleware(LanguageDoor)]),
        base_url="http://127.0.0.1:7860",
        follow_redirects=False,
    )


def test_another_host_name_is_refused():
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:7860", ""):
        assert client().get("/", headers={"host": host}).status_code == 421
    for host in ("localhost:7860", "127.0.0.1", "[::1]:7860"):
        assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_another_site_cannot_post(headers: dict):
    assert client().post("/", headers=headers).status_code == 403
    assert client().post("/", headers={"origin": "http://127.0.0.1:7860"}).status_code == 200


def test_another_site_may_lead_here_and_not_read_here():
    cross = {"sec-fetch-site": "cross-site"}
    assert (
        client().get("/", headers=cross | {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}).status_code == 403
    )
    assert (
        client().get("/", headers=cross | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}).status_code == 403
    )
    assert (
        client().get("/", headers=cross | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}).status_code
        == 200
    )
    assert client().get("/", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/passwd", "/docs", "/monitoring", "/gradio_api/proxy=http://x/", "/login"]
)
def test_what_the_page_does_not_ask_for_is_not_there(path: str):
    assert client().get(path).status_code == 404


def test_bodies_are_limited_with_and_without_a_length():
    assert client().post("/", content=b"x" * 2000).status_code == 413
    arrived = client().post("/", content=iter([b"x" * 600] * 50)).text.split()[1]
    assert int(arrived) <= 1000
    assert "default-src 'self'" in client().get("/").headers["content-security-policy"]


def test_gradios_own_files_are_asked_for_once_and_nothing_else_is_kept():
    assert "immutable" in client().get("/assets/page-1a2b3c4d.js").headers["cache-control"]
    assert "immutable" not in client().get("/assets/Blocks-1a2b3c4d.js").headers.get("cache-control", ""), (
        "rewritten under gradio's name"
    )
    assert not any("cache-control" in client().get(path).headers for path in ("/zh", "/assets/gone.js"))


def test_a_page_goes_over_the_line_packed_where_the_browser_takes_it():
    path = f"/zh?more={'x' * 800}"
    assert (
        client().get(path).headers["content-encoding"] == "gzip"
        and "default-src" in client().get(path).headers["content-security-policy"]
    )
    assert "content-encoding" not in client().get(path, headers={"accept-encoding": "identity"}).headers


def test_the_first_visit_goes_to_the_browsers_language_and_the_link_is_remembered():
    visitor = client()
    assert visitor.get("/", headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"}).headers["location"] == "/zh"
    assert visitor.get("/", headers={"accept-language": "de-DE,en;q=0.8"}).headers["location"] == "/de"
    assert visitor.get("/", headers={"accept-language": "fr-FR,en;q=0.8"}).status_code == 200
    assert visitor.get("/de/?x=1", headers={"accept-language": "en"}).headers["location"] == "/de?x=1"
    assert [visitor.get(path, headers={"accept-language": "en"}).status_code for path in PATHS.values()] == [200] * len(
        LANGUAGES
    )
    chosen = visitor.get("/?lang=en&__theme=dark", headers={"accept-language": "zh"})
    assert chosen.headers["location"] == "/?__theme=dark"
    assert visitor.get("/", headers={"accept-language": "zh"}).status_code == 200  # the cookie


@pytest.mark.parametrize(
    ("header", "language"),
    [("", "en"), ("fr", "en"), ("zh-TW", "zh"), ("en;q=0.5,zh;q=0.9", "zh"), ("zh;q=x", "en"), (",;q=", "en")],
)
def test_accept_language(header: str, language: str):
    assert preferred(header) == language


# ---- the command ---------------------------------------------------------------------------------


def webui(*arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"LORA_GARAGE_LANG": "en"}
    return subprocess.run(
        [sys.executable, "-m", "webui", "--no-browser", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "198.51.100.7"], "--host 198.51.100.7 cannot be used"),
        (["--host", "no-such-pc.invalid"], "--host no-such-pc.invalid cannot be used"),
        (["--host", "0.0.0.0", "--auth", "me:short"], "a password of 5 characters is too short"),
        (["--port", "0"], "--port 0 is not a valid port"),
        (["--port", "x"], "--port"),
        (["--auth", "nobody"], "USER:PASSWORD"),
        (["--what"], "--what"),
    ],
)
def test_a_bad_argument_gives_one_sentence_and_exit_2(arguments: list[str], sentence: str):
    result = webui(*arguments)
    assert result.returncode == 2 and sentence in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = webui("--port", str(port), "--workspace", str(tmp_path))
    assert (
        result.returncode == 2
        and str(port) in result.stderr
        and "--port" in result.stderr
        and "Traceback" not in result.stderr
    )


@pytest.fixture(scope="module")
def whole_page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a process that built it: the heavy libraries that it has loaded, and its events that call it."""
    folder = str(tmp_path_factory.mktemp("page") / "workspace")
    script = (
        "import json, sys; from core.workspace.folder import Workspace; from webui.state.services import Services; "
        "from tests.kit.opened import all_tabs_opened; from webui.app import build;"
        f"blocks = build(Services.open(Workspace.open({folder!r}))); first = len(blocks.blocks);"
        "page = all_tabs_opened(blocks); fns = page.fns.values();"
        "names = {id: getattr(each, 'elem_id', None) for id, each in page.blocks.items()};"
        "print(json.dumps({'loaded': [m for m in ('torch', 'transformers', 'peft', 'datasets', 'bitsandbytes') if m in "
        "sys.modules],"
        "'first': first, 'opened': len(page.blocks),"
        "'tabs': [[each.concurrency_id, each.concurrency_limit] for each in fns if each.renderable],"
        "'events': [([(names.get(at), name) for at, name in each.targets], each.trigger_mode)"
        " for each in fns if each.fn and each.inputs],"
        "'kept': {names.get(at): [type(one).__name__ for one in each.inputs] for each in fns for at, _ in each.targets"
        " if each.concurrency_id in ('control', 'sets')},"
        "'draws': [[(names.get(at), name) for at, name in each.targets] for each in fns"
        " if any(names.get(out._id) == 'data-head' for out in each.outputs)],"
        "'lines': {names.get(at): each.concurrency_id for each in fns for at, _ in each.targets}}))"
    )
    environment = os.environ | {"LORA_GARAGE_LANGUAGES": "en"}  # the others are the same page with other words
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_a_page_has_few_components_until_its_tabs_are_opened(whole_page: dict[str, Any]):
    """It had 726, of which most visits see a third: each is a part of every page that is sent, built and kept."""
    assert whole_page["first"] <= 320 and whole_page["opened"] <= 680


def test_tabs_are_drawn_one_at_a_time(whole_page: dict[str, Any]):
    """Seen: a tab that was opened while another was drawn stayed empty, "dictionary changed size during iteration"."""
    assert whole_page["tabs"] == [["tabs", 1]] * 7


def test_building_the_whole_page_loads_no_torch(whole_page: dict[str, Any]):
    assert whole_page["loaded"] == []


def test_no_choice_and_no_file_is_forgotten_while_the_one_before_is_at_work(whole_page: dict[str, Any]):
    """As gradio does by itself ("once"). Enter is a button that is pressed; the list of chats shows again which one is
    open."""
    events = [(name, event, mode) for targets, mode in whole_page["events"] for name, event in targets]
    pressed = ("chat-message", "hub-token", "hub-set-words", "chat-conversations-list")
    filled_by_buttons_too = [("plan-for", "change"), ("shelf-language", "change")]
    chosen = [
        each
        for each in events
        if (each[1] in ("input", "upload", "submit") and each[0] not in pressed) or each[:2] in filled_by_buttons_too
    ]
    assert len(chosen) > 10 and [each for each in chosen if each[2] == "once"] == []


def test_one_listener_alone_draws_a_data_set(whole_page: dict[str, Any]):
    """Of two that are on their way the older could be answered last, and show one set's rows below the name of the
    other."""
    assert whole_page["draws"] == [[["data-draw", "click"]]]


def test_what_waits_acts_on_what_was_on_the_screen_when_it_was_pressed(whole_page: dict[str, Any]):
    """Seen: gradio reads a State when the line reaches the event, and Delete, pressed while a run was unpacked, deleted
    the unpacked one."""
    waiting = whole_page["kept"]
    assert len(waiting) > 30 and {"delete-really", "data-row-save", "data-found", "export-start"} <= waiting.keys()
    assert [name for name, inputs in waiting.items() if "State" in inputs] == []


def test_stop_and_pause_wait_behind_nothing_but_each_other(whole_page: dict[str, Any]):
    """They stood in one line with what deletes gigabytes."""
    lines = whole_page["lines"]
    assert [name for name, line in lines.items() if line == lines["stop"]] == ["stop", "pause"] and lines[
        "delete-really"
    ] == "control"
