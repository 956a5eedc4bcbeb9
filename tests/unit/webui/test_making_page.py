"""Questions from a document on the page: what each button does, for any JSON from a browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from gradio.helpers import special_args
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.testclient import TestClient

from core.chat.making.drafts import schema
from core.chat.making.making import Making
from core.chat.making.rows import MakingOrder, Result
from core.errors import ChatError, GarageError
from core.messages import LANGUAGES, msg
from core.queue.queue import Game
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.chat import Chat
from tests.kit.chat_server import ChatServer
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until
from tests.kit.writers import ScriptedWriter, manual, scripted_reply
from webui.form.start import will_wait
from webui.kit.drawn_part import drawn_part
from webui.kit.visitor import IS_LOCAL
from webui.kit.wording import Wording
from webui.pages.making import DocumentQuestions
from webui.run import card
from webui.run.queue import queue_notices
from webui.server.set_file import MADE, SetFile, address
from webui.state import making as making_state
from webui.state.making import Makings
from webui.state.services import Services


@pytest.fixture
def server() -> Iterator[ChatServer]:
    started = ChatServer()
    started.reply = scripted_reply
    yield started
    started.close()


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return Services.open(Workspace.open(tmp_path / "ws"))


@pytest.fixture
def document(services: Services, tmp_path: Path) -> str:
    (tmp_path / "manual.md").write_text(manual(6), "utf-8")
    return services.datasets.import_file(tmp_path / "manual.md").id


@pytest.fixture
def section(services: Services) -> DocumentQuestions:
    return DocumentQuestions(services, Wording("en"))


def fields_of(server: ChatServer, **others: Any) -> dict[str, Any]:
    return {
        "writer": "server",
        "server_url": server.url,
        "server_model": "big",
        "kind": "questions",
        "count": "3",
    } | others


def made(section: DocumentQuestions, server: ChatServer, document: str) -> Making:
    assert section.press({"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True}) == {
        "notice": ""
    }
    makings = section.services.makings
    wait_until(lambda: not makings.progress().at_work, 60)
    assert makings.progress().error is None
    making = makings.newest(document)
    assert making is not None
    return making


def test_a_document_is_offered_questions_and_a_set_of_answers_is_not(
    section: DocumentQuestions, document: str, services: Services
) -> None:
    assert "mk-start" in section.drawn({"run": document})
    for nothing in ("sample:pirate_answers", "no-such", "", None, 7, {"a": 1}):
        assert section.drawn({"run": nothing}) == "", nothing


def test_rows_are_reviewed_edited_and_added_as_a_dataset(
    section: DocumentQuestions, document: str, server: ChatServer, services: Services
) -> None:
    making = made(section, server, document)
    first, second, third, *_ = making.rows()[0]
    drawn = section.drawn({"run": document})
    assert "page 0" not in drawn and ">manual.md › Part 1<" in drawn
    assert "12 rows kept, 0 reviewed" in drawn and f"<mark>{first.draft.steps[0].quote.rstrip('.')}</mark>" in drawn
    section.press({"act": "mark", "run": document, "row": first.id, "decision": "reject"})
    section.press({"act": "mark", "run": document, "row": second.id, "decision": "accept"})
    editing = section.drawn({"run": document, "fields": {"edit": third.id}})
    assert 'name="answer_0"' in editing and f"mk-{first.id}" not in editing
    fields = {"question_0": "How fast?", "answer_0": "Aye, fast."}
    section.press({"act": "save", "run": document, "row": third.id, "fields": fields})
    assert "11 rows kept, 3 reviewed, 1 rejected" in section.drawn({"run": document})
    reply = section.press({"act": "add", "run": document})
    assert reply["click"] == "#data-draw" and "11 rows" in reply["notice"]
    [info] = [one for one in services.datasets.list() if one.made == making.id]
    answers = [example.messages[-1].content for _, example in services.datasets.rows(info.id)]
    assert info.name == "Questions from manual" and "Aye, fast." in answers
    assert not any(example.messages[0].content == first.draft.steps[0].question
                   for _, example in services.datasets.rows(info.id))  # fmt: skip


def test_before_start_the_work_is_said_and_its_time_once_the_model_has_written(
    section: DocumentQuestions, document: str, services: Services
) -> None:
    before = section.drawn({"run": document})
    assert "6 passages, 1 of them for validation; about" in before and "Try the first passage" in before
    assert "needs about 0.3 GiB of memory" in before, "the starter, in 16 bits with its cache"
    [writer] = [value for _, value in section._models()][:1]
    order = MakingOrder(title="a", documents=((document, 0),), writer=writer)
    passages = services.makings.divided(document)
    assert passages is not None
    making = Making.prepare(services.workspace, order, passages)
    for passage in passages[:2]:
        line = Result(passage=passage.number, seconds=30).model_dump_json()
        with open(making.path / "written.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
    assert "About 2 min, as this model took before" in section.drawn({"run": document}), "of the four that are missing"
    other = section.drawn({"run": document, "fields": {"kind": "summary"}})
    assert "About 3 min, as this model took before" in other, "of all six"


def test_rows_are_written_in_the_chosen_language_and_leave_with_their_sources_or_without(
    section: DocumentQuestions, document: str, server: ChatServer, services: Services
) -> None:
    sent = {"act": "start", "run": document, "fields": fields_of(server, language="it"), IS_LOCAL: True}
    assert section.press(sent) == {"notice": ""}
    wait_until(lambda: not services.makings.progress().at_work, 60)
    making = services.makings.newest(document)
    assert making is not None and making.order.language == "it"
    drawn = section.drawn({"run": document})
    links = re.findall('href="(/made.jsonl[^"]+)"', drawn)
    assert len(links) == 2 and '<option value="it" selected' in drawn
    client = TestClient(SetFile(Starlette(), services.datasets, services.workspace))
    files = [client.get(html.unescape(link)).text.splitlines() for link in links]
    rows, bare = ([json.loads(line) for line in lines] for lines in files)
    assert rows == list(making.values()) and rows[0]["source"]["file"] == "manual.md"
    assert bare == [{name: value for name, value in row.items() if name != "source"} for row in rows]
    assert client.get(address("../x", "de", MADE)).status_code == 404


def test_examples_of_a_style_are_followed_kept_in_the_form_and_refused_by_half(
    section: DocumentQuestions, document: str, server: ChatServer
) -> None:
    sent = {"act": "start", "run": document, IS_LOCAL: True}
    half = fields_of(server, example_question_0="Who are you?", example_answer_0=" ")
    with pytest.raises(ChatError) as refused:
        section.press(sent | {"fields": half})
    assert refused.value.message.key == "making_view.empty" and not section.services.makings.progress().at_work
    examples = {"example_question_2": "Who are you?", "example_answer_2": "Aye, a <pirate>.", "example_answer_1": None}
    assert section.press(sent | {"fields": fields_of(server, **examples)}) == {"notice": ""}
    wait_until(lambda: not section.services.makings.progress().at_work, 60)
    systems = [turns[0]["content"] for turns in (body["messages"] for body in server.asked)]
    assert any("Aye, a <pirate>." in system for system in systems)
    drawn = section.drawn({"run": document})
    assert "Aye, a &lt;pirate&gt;.</textarea>" in drawn and drawn.count("example_answer_") == 3


def test_a_stopped_making_goes_on_where_it_was(section: DocumentQuestions, document: str, server: ChatServer) -> None:
    stopping = {"after": 12}

    def reply(body: dict[str, Any]) -> str:
        stopping["after"] -= 1
        if not stopping["after"]:
            section.press({"act": "stop", "run": document})
        return scripted_reply(body)

    server.reply = reply
    section.press({"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True})
    makings = section.services.makings
    wait_until(lambda: not makings.progress().at_work, 60)
    making = makings.newest(document)
    assert making is not None and 0 < len(making.results()) < 6 and makings.progress().error is None
    drawn = section.drawn({"run": document})
    assert "Resume" in drawn and server.url in drawn and 'value="big"' in drawn, "its fields are those it began with"
    assert "Resume" not in section.drawn({"run": document, "fields": {"count": "8"}}), "another order is another making"
    assert made(section, server, document).id == making.id and len(making.results()) == 6


def test_the_first_passage_alone_tells_how_long_all_of_them_take(
    section: DocumentQuestions, document: str, server: ChatServer
) -> None:
    section.press({"act": "try", "run": document, "fields": fields_of(server), IS_LOCAL: True})
    makings = section.services.makings
    wait_until(lambda: not makings.progress().at_work, 60)
    tried = makings.newest(document)
    assert tried is not None and list(tried.results()) == [0] and makings.progress().total == 1
    drawn = section.drawn({"run": document})
    assert "5 passages are still missing" in drawn and "as this model took before" in drawn and "mk-try" not in drawn
    assert made(section, server, document).id == tried.id and len(tried.results()) == 6


def test_make_others_with_the_same_settings_makes_others(
    section: DocumentQuestions, document: str, server: ChatServer
) -> None:
    """Seen: nothing happened."""
    first, second = made(section, server, document), made(section, server, document)
    assert second.id != first.id and second.order.seed == 1 and len(second.results()) == 6
    assert {body["seed"] for body in server.asked if "response_format" in body} == {0, 3}


def test_stop_of_a_server_leaves_an_answer_in_chat_alone(
    section: DocumentQuestions, document: str, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = list[int]()
    monkeypatch.setattr(section.services.chat, "stop", lambda: stops.append(1))
    server.reply = lambda body: None
    section.press({"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True})
    wait_until(lambda: bool(server.asked), 60)
    section.press({"act": "stop"})
    wait_until(lambda: not section.services.makings.progress().at_work, 60)
    assert not stops


def test_one_making_at_a_time_and_a_gone_server_is_a_sentence(
    section: DocumentQuestions, document: str, server: ChatServer
) -> None:
    server.reply = lambda body: None
    section.press({"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True})
    with pytest.raises(ChatError) as refused:
        section.press({"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True})
    assert refused.value.message.key == "making_view.other_at_work"
    section.press({"act": "stop"})
    makings = section.services.makings
    wait_until(lambda: not makings.progress().at_work, 60)
    server.close()
    section.press({"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True})
    wait_until(lambda: not makings.progress().at_work, 60)
    assert "cannot be reached" in section.drawn({"run": document})


def test_it_waits_for_a_game_without_a_model_in_memory(
    document: str, tmp_path: Path, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making_state, "GAME_LOOK_S", 0.01)
    queue, games = services.queue, [Game(why=msg("game.named", program="game.exe"), since=1.0)]

    def reply(column: str, turns: list[Any]) -> str:
        if games and "Part 2" in str(turns[-1]["content"]):
            queue.put(game=games.pop())
        answer_schema = schema("questions") if str(turns[0]["content"]).startswith("You write") else None
        return ScriptedWriter().answers([turns], 100, schema=answer_schema)[0]

    chat = Chat(reply=reply)
    makings = Makings(services.workspace, services.datasets, chat, queue)  # type: ignore[arg-type]
    makings.start(MakingOrder(title="Made", documents=((document, 0),), writer="base:starter"), None)
    wait_until(lambda: makings.waits_since() is not None, 60)
    makings.begin()
    wait_until(lambda: makings.progress().stage == "paused", 60)
    assert chat.target is None and 0 < makings.progress().done < 6
    queue.put(game=None)
    wait_until(lambda: not makings.progress().at_work, 60)
    assert makings.progress().error is None and len(chat.loads) == 2
    assert chat.target is None and not makings.is_at_work(), "the device is free again"
    making = makings.newest(document)
    assert making is not None and len(making.rows()[0]) == 12


def test_a_model_of_this_pc_waits_for_its_turn_and_can_be_stopped_there(
    document: str, services: Services, section: DocumentQuestions
) -> None:
    makings, fields = services.makings, {"writer": "base:starter", "kind": "questions", "count": "3"}
    with ScriptedRun(services.workspace, "pirates") as scripted:
        scripted.to(State.RUNNING)
        assert section.press({"act": "start", "run": document, "fields": fields}) == {"notice": ""}
        wait_until(lambda: makings.waits_since() is not None, 60)
        services.snapshots.now(fresh=True)
        assert "Waiting until “pirates” no longer uses" in section.drawn({"run": document})
        reasons = queue_notices(services.snapshots.now(fresh=True), section.w)
        assert "“Questions from manual” waits for its turn" in reasons
        assert services.chat.state().phase == "empty" and not makings.is_at_work()
    section.press({"act": "stop"})
    wait_until(lambda: not makings.progress().at_work, 60)
    assert makings.progress().error is None and makings.waits_since() is None
    assert "Resume" in section.drawn({"run": document})


def test_chat_and_runs_say_that_rows_are_written(services: Services, section: DocumentQuestions) -> None:
    services.makings.begin()
    with pytest.raises(ChatError, match="chat_page.making"):
        services.snapshots.refuse_while_in_use()
    with ScriptedRun(services.workspace, "behind") as scripted:
        view = services.snapshots.view(scripted.run.id)
        assert view is not None and "until the rows from a document are written" in card.card(view, section.w)
    now = services.snapshots.now(fresh=True)
    assert will_wait(now) and "Runs wait until it is done" in queue_notices(now, section.w)


def test_nothing_goes_to_another_pc_before_it_was_said(
    section: DocumentQuestions, document: str, server: ChatServer
) -> None:
    fields = fields_of(server, server_url="http://192.0.2.7/v1")
    reply = section.press({"act": "start", "run": document, "fields": fields, IS_LOCAL: True})
    assert "Nothing has been sent" in reply["notice"] and not section.services.makings.progress().at_work


@pytest.mark.parametrize("browser", ["127.0.0.1", "192.0.2.9"])
def test_another_device_names_no_server(
    section: DocumentQuestions, document: str, server: ChatServer, browser: str
) -> None:
    """From the local network this PC could be sent to any address, also to those that only it can reach."""
    press = drawn_part(section.services, section.w, None, "made", section.drawn, section.press).press
    event_data = {"act": "start", "run": document, "fields": fields_of(server), IS_LOCAL: True}
    request = Request({"type": "http", "client": (browser, 1), "headers": []})
    arguments, *_ = special_args(press, [event_data], request)  # as gradio calls it
    is_here = browser == "127.0.0.1"
    assert ("only on the PC that runs LoRA Garage" in press(*arguments)["notice"]) != is_here
    wait_until(lambda: not section.services.makings.progress().at_work, 60)
    assert bool(server.asked) == is_here


@pytest.mark.parametrize(
    "request_of_a_browser",
    [
        {}, {"act": "mark"}, {"act": "add", "run": "x"}, {"act": "save", "run": []}, {"act": ["start"]},
        {"act": "start", "run": "sample:pirate_answers", "fields": {"writer": "base:none"}},
        {"act": "start", "run": "sample:pirate_answers", "fields": {"writer": "server", "server_url": {"a": 1}}},
        {"act": "mark", "run": None, "row": {"a": 1}, "decision": "accept"}, {"act": "start", "fields": "x"},
    ],
)  # fmt: skip
def test_junk_is_refused_in_a_sentence(section: DocumentQuestions, request_of_a_browser: dict[str, Any]) -> None:
    with suppress(GarageError):
        assert not section.press(request_of_a_browser)["notice"]
    assert not section.services.makings.progress().at_work


def test_it_speaks_all_languages(services: Services, document: str, server: ChatServer) -> None:
    made(DocumentQuestions(services, Wording("en")), server, document)
    pages = {
        language: DocumentQuestions(services, Wording(language)).drawn({"run": document}) for language in LANGUAGES
    }
    assert len(set(pages.values())) == len(LANGUAGES) and not any("making_view." in page for page in pages.values())
