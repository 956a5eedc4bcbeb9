"""Chat keeps what is said as it is said: the question before its answer, and what answers may be gone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.runs import trained
from webui.kit.wording import Wording
from webui.pages.chat import ChatPage
from webui.pages.conversations import ConversationShelf
from webui.server.guard import Guard
from webui.server.set_file import TALKS, SetFile, address
from webui.state.services import Services

ASKED: list[dict[str, Any]] = [{"role": "user", "content": "Rain?"}]


def talked(answer: str) -> list[dict[str, Any]]:
    return [*ASKED, {"role": "assistant", "content": answer}]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return trained(Workspace.open(tmp_path), "Pirate")


@pytest.fixture
def shelf(tmp_path: Path, run: RunFolder) -> ConversationShelf:
    page = ChatPage(Services.open(Workspace.open(tmp_path)), Wording("en"))
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Tab() as tab:
        page.build()
        page.wire(blocks, tab, gr.Textbox())
    page.shelf._targets = lambda: [("Pirate", f"run:{run.id}")] if run.path.exists() else []
    return page.shelf


def views(shelf: ConversationShelf, *answers: str) -> Iterator[dict[Any, Any]]:
    """As ChatPage gives them: loading, then the answer as it grows."""
    yield {shelf._base: [], shelf._tuned: []}
    for answer in answers:
        yield {shelf._base: talked(answer), shelf._tuned: talked(answer and f"{answer} arr")}


def keep_answers(shelf: ConversationShelf, run: RunFolder, opened: str, *answers: str) -> str:
    *_, last = shelf.keeping(views(shelf, *answers), opened, f"run:{run.id}", "Pirate", [])
    return str(last[shelf.opened])


def test_the_question_is_on_the_disk_before_its_answer_and_what_was_written_when_the_page_is_closed(
    shelf: ConversationShelf, run: RunFolder
) -> None:
    held = shelf.keeping(views(shelf, "", "Wa", "Water"), "", f"run:{run.id}", "Pirate", [])
    assert shelf.opened not in next(held) and shelf.store.find() == []
    next(held)
    [kept] = shelf.store.find()
    assert [turn["content"] for turn in kept.branch.tuned] == ["Rain?"]
    next(held)
    held.close()
    assert [turn["content"] for turn in shelf.store.get(kept.id).branch.tuned] == ["Rain?", "Wa arr"]


def test_a_reload_shows_it_again_with_the_answer_of_the_last_time(shelf: ConversationShelf, run: RunFolder) -> None:
    id = keep_answers(shelf, run, "", "", "Water")
    assert keep_answers(shelf, run, id, "", "Wet") == id
    target = f"run:{run.id}"
    view = shelf.restore("base:starter", id)
    chosen = view[shelf._target]
    assert (view[shelf.opened], chosen["value"], chosen["choices"]) == (id, target, [("Pirate", target)])
    assert view[shelf._tuned][-1]["content"] == "Wet arr"
    assert shelf.of_target(target, id)[shelf._tuned] == view[shelf._tuned]
    assert shelf.of_target("base:starter", id) == {}, "another model begins an empty one"
    drawn = shelf.draw(id, "wet")
    assert drawn[shelf.list]["value"] == id and drawn[shelf.name] == "Rain?"
    assert keep_answers(shelf, run, "gone", "x") != id, "a conversation that was deleted elsewhere is begun anew"


def test_a_run_that_is_gone_is_a_sentence_and_its_conversation_is_read_and_exported(
    shelf: ConversationShelf, run: RunFolder
) -> None:
    id = keep_answers(shelf, run, "", "", "<b>Water</b>")
    shutil.rmtree(run.path)
    view = shelf.open(id, "base:starter")
    assert view[shelf.opened] == id and shelf._target not in view
    assert "“Pirate”" in view[shelf._notice]["value"] and view[shelf._base] == talked("<b>Water</b>")
    layers = [
        Middleware(Guard, hosts=("testserver",)),
        Middleware(SetFile, sets=shelf.services.datasets, workspace=shelf.services.workspace),
    ]
    client = TestClient(Starlette(middleware=layers))
    for link in (address(id, "en", TALKS), address("", "zh", TALKS)):
        assert client.get(link).text.count("<b>Water</b> arr") == 1
    assert client.get(address("../x", "zh", TALKS)).status_code == 404
    assert shelf.deleted(id)[shelf.opened] == "" and shelf.store.find() == []
    assert "lg-warn" in shelf.open(id, None)[shelf._notice]["value"]


def test_a_full_disk_is_a_sentence_beside_the_answer(
    shelf: ConversationShelf, run: RunFolder, monkeypatch: Any
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("core.files.rename", full)
    *_, last = shelf.keeping(views(shelf, "", "Water"), "", f"run:{run.id}", "Pirate", [])
    assert "No space left" in last[shelf._notice]["value"]


def test_what_is_renamed_or_deleted_while_it_is_answered_stays_so(shelf: ConversationShelf, run: RunFolder) -> None:
    held = shelf.keeping(views(shelf, "", "Wa", "Water"), "", f"run:{run.id}", "Pirate", [])
    next(held), next(held)
    [kept] = shelf.store.find()
    shelf.store.rename(kept.id, "About rain")
    list(held)
    conversation = shelf.store.get(kept.id)
    assert conversation.name == "About rain" and conversation.branch.tuned[-1]["content"] == "Water arr"
    held = shelf.keeping(views(shelf, "", "We", "Wet"), kept.id, f"run:{run.id}", "Pirate", [])
    next(held), next(held)
    shelf.store.delete(kept.id)
    list(held)
    assert shelf.store.find() == []
