"""What is chosen in Chat and has gone since, or has begun to train again."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun, trained
from webui.kit.wording import Wording
from webui.pages.chat import ChatPage
from webui.pages.chat_choices import first_choice
from webui.state.services import Services

TALK: Any = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Arr."}]


def page_of(space: Workspace) -> ChatPage:
    page = ChatPage(Services.open(space), Wording("en"))
    with gr.Blocks(analytics_enabled=False):
        page.build()
    return page


def test_a_run_that_goes_on_has_not_gone_and_stays_chosen(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    newest = trained(space, "newest")
    page = page_of(space)
    with ScriptedRun(space, "again") as again:
        shutil.copytree(newest.adapter, again.run.adapter)
        again.to(State.RUNNING, has_adapter=True)
        chosen = f"run:{again.run.id}"
        assert chosen not in [id for _, id in page._targets()], "it is offered no more"
        assert page.arrive(chosen, [], "chosen") == {page.offered: ""}
        assert "“again” is training" in page.load_now(chosen, "adapter", "trained")[page.notice]["value"]


def test_in_place_of_what_has_gone_one_that_is_there_is_offered_unless_there_is_a_conversation(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    gone, newest = trained(space, "gone"), trained(space, "newest")
    Runs(space).delete(gone)
    page, target = page_of(space), f"run:{gone.id}"
    stays = {page.offered: ""}
    for taken in ("", "chosen", None):
        arrived = page.arrive(target, [], taken)
        assert arrived[page.offered] == f"run:{newest.id}\n{target}"
        assert f"run:{newest.id}" in [id for _, id in arrived[page.target]["choices"]]
    assert page.arrive(target, TALK, "chosen") == stays == page.arrive(target, [], "the id of one that is opened")


def test_nothing_that_is_not_there_is_loaded_or_compared(tmp_path: Path) -> None:
    space = Workspace.open(tmp_path)
    run = trained(space, "Pirate")
    page = page_of(space)
    duel = page.duel
    usual, there = ("", "adapter", 100, "trained"), f"run:{run.id}"
    for hostile in (
        "run:gone",
        "run:../x",
        "adapter:../x",
        "base:../x",
        "base:gone/model",
        "",
        "x" * 10**6,
        None,
        ["base:starter"],
        {},
    ):
        assert "no longer here" in page.load_now(hostile, "adapter", "trained")[page.notice]["value"], hostile
        above = list(duel.start(hostile, "adapter", 5, "", None, *usual, *usual, "me"))[-1]
        assert "The model that was chosen is no longer here" in above[duel.status], hostile
        if hostile not in ("", None):  # which are the usual ones
            below = list(duel.start(there, "adapter", 5, "", None, *usual, hostile, *usual[1:], "me"))[-1]
            assert "under “Choose both models” is no longer here" in below[duel.status], hostile


def test_a_run_that_has_ended_is_offered_first_and_not_a_newer_one_that_was_paused() -> None:
    """Seen: Chat opened with a paused run of one step."""
    rows = tuple(
        SimpleNamespace(id=name, status=SimpleNamespace(has_adapter=name != "paused"))
        for name in ("paused", "whole", "older")
    )
    choices = [(name, f"run:{name}") for name in ("paused", "whole", "older")]
    assert first_choice(choices, rows) == "run:whole"
    assert first_choice(choices[:1], rows[:1]) == "run:paused", "where there is no other"
    assert first_choice([("x", "base:starter")], ()) == "base:starter"
