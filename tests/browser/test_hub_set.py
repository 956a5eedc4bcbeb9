"""A data set of a hub of our own: found by words, looked into, brought, chosen and started with; and that hub
failing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import gate, hub_sets
from tests.kit.hub import FakeHub
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAME = "owner/pirate-talk"
WORDS = {
    "en": {"busy": "limiting requests", "near": "Did you mean one of these", "gated": "accept",
        "steps": "2 optimizer steps", "from": "From the Hub: owner/pirate-talk:en:train"},
    "zh": {"busy": "请求过多", "near": "也许你要找的是", "gated": "接受许可", "steps": "2 个优化步",
        "from": "来自 Hub：owner/pirate-talk:en:train"},
}  # fmt: skip


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub({}) as server:
        parts = {"en/train": [hub_sets.pirates(40), hub_sets.pirates(40, first=40)], "de/train": [hub_sets.pirates(5)]}
        hub_sets.put_parts(server, NAME, parts, tags=["language:en"], cardData={"license": "mit"}, downloads=9)
        hub_sets.put(server, "owner/pirate-pictures", {"a.jpg": b""}, tags=["modality:image"])
        yield server


@pytest.mark.parametrize(
    ("language", "viewport"), [("en", kit.DESKTOP), pytest.param("zh", kit.PHONE, marks=pytest.mark.full)]
)
def test_a_set_of_the_hub_is_found_looked_into_brought_and_trained_on(
    chrome: Browser, hub: FakeHub, tmp_path: Path, tiny_model: Path, language: str, viewport: dict, full: bool
) -> None:
    words, workspace = WORDS[language], Workspace.open(tmp_path / "workspace")
    (workspace.root / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")} | ({} if full else kit.ENGLISH)
    app = kit.start_app(workspace.root, **environment)
    try:
        page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
        page.locator("#start-links [data-part]").click()
        kit.expect(page.locator("#hub-set")).to_be_focused()
        kit.unfold(page, "#hub-set")
        failures_are_sentences(page, hub, words)
        search(page, "pirate")
        kit.expect(page.locator("#hub-set-found li")).to_have_count(2)
        kit.expect(page.locator("#hub-set-found li", has_text="pictures").locator("button")).to_have_count(0)
        page.locator("#hub-set-found button", has_text=NAME).click()
        kit.expect(page.locator("#hub-set-head td").first).to_have_text(hub_sets.pirates(1)[0]["question"])
        kit.assert_accessible(page, f"hub-set-{language}")
        page.locator("#hub-set-add").click()
        kit.expect(page.locator("button[data-set][aria-pressed=true]")).to_have_attribute(
            "data-set", "pirate-talk-en-train", timeout=60_000
        )
        kit.expect(page.locator("#data-report")).to_contain_text(words["from"])
        what_is_chosen_while_another_comes_stays(page)
        ask_for_two_steps(page, words)
        if full:
            page.locator("#start").click()
            wait_until(lambda: [run.status().state for run in Runs(workspace).list()] == [State.COMPLETED], 120)
        else:  # from here on it is a set as any other
            with kit.made_by_start(page, workspace) as run:
                assert run.recipe().data.source == "pirate-talk-en-train"
        watch.check()
        page.context.close()
    finally:
        app.stop()


def what_is_chosen_while_another_comes_stays(page: Page) -> None:
    """Seen: after minutes the set that arrived was put in the place of the one that had been chosen since."""
    page.evaluate(gate.script("timer"))
    page.locator("#hub-set-found button", has_text=NAME).click()
    page.locator("#hub-set-part input").click()
    page.get_by_role("option", name=re.compile("de")).first.click()
    kit.expect(page.locator("#hub-set-head td").first).to_be_visible()
    page.locator("#hub-set-add").click()
    kit.choose(page, "#data", "sample:pirate_answers")
    gate.open(page, "timer")
    kit.expect(page.locator("button[data-set='pirate-talk-de-train']")).to_have_count(1, timeout=60_000)
    kit.expect(page.locator("button[data-set][aria-pressed=true]")).to_have_attribute(
        "data-set", "sample:pirate_answers"
    )
    kit.choose(page, "#data", "pirate-talk-en-train")


def search(page: Page, words: str) -> None:
    page.locator("#hub-set-words input").fill(words)
    page.locator("#hub-set-ask").click()


def failures_are_sentences(page: Page, hub: FakeHub, words: dict[str, str]) -> None:
    notice = page.locator("#hub-set-failure .lg-notice")
    hub.status = 429
    search(page, "pirate")
    kit.expect(notice).to_contain_text(words["busy"])
    hub.status = None
    search(page, "owner/pirat-talk")
    kit.expect(notice).to_contain_text(words["near"])
    hub.gated = True
    search(page, NAME)
    kit.expect(notice).to_contain_text(words["gated"], timeout=40_000)
    kit.expect(page.locator("#hub-set-add")).to_be_hidden()
    hub.gated = False


def ask_for_two_steps(page: Page, words: dict[str, str]) -> None:
    kit.unfold(page, "#step-model")
    page.locator("#model input").fill("library:tiny")
    page.locator("#model input").press("Enter")
    kit.plan_two_steps(page, 256, words["steps"])
