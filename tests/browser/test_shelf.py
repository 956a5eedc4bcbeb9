"""A model found, downloaded with a pause and a restart, trained, asked and deleted, on a hub of our own; and that hub
failing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import gate, tiny
from tests.kit.hub import FakeHub
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MODEL = "owner/tiny-chat"
HALF = 3 << 20  # bytes of 6.4 MB of weights, which come and no more until the hub is let go on
ROWS = [
    {"id": MODEL, "downloads": 9, "likes": 1, "tags": [], "cardData": {"license": "mit", "language": ["en"]},
     "safetensors": {"parameters": {"F32": 1_590_000}, "total": 1_590_000}},
    {"id": "owner/tiny-chat-GGUF", "downloads": 99, "tags": ["gguf"], "gguf": {"total": 1}},
]  # fmt: skip
WORDS = {
    "en": {
        "ask": "small japanese that calls tools for 8 GB", "understood": "speaks Japanese",
        "needs": r"LoRA \d+\.\d GiB, QLoRA \d+\.\d GiB",
        "busy": "limiting requests", "other": "is not the file that the Hub named", "models": "Models",
        "train": "Train", "steps": "2 optimizer steps", "tokens": "tokens", "free": "freed", "incomplete": "incomplete",
    },
    "zh": {
        "ask": "日语小模型 能调用工具 8 GB 显卡", "understood": "会日语",
        "needs": r"LoRA \d+\.\d GiB，QLoRA \d+\.\d GiB",
        "busy": "请求过多", "other": "不是 Hub 所说的那个文件", "models": "模型",
        "train": "训练", "steps": "2 个优化步", "tokens": "词元", "free": "释放", "incomplete": "不完整",
    },
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, starter_folder: Path) -> Iterator[FakeHub]:
    model = tiny.make(tmp_path / "tiny", starter_folder, tiny.ALL_WORDS)
    with FakeHub({MODEL: {file.name: file.read_bytes() for file in model.iterdir()}}) as server:
        server.rows, server.stall_after = ROWS, HALF
        yield server


@pytest.mark.parametrize(
    ("language", "viewport"), [("en", kit.DESKTOP), pytest.param("zh", kit.PHONE, marks=pytest.mark.full)]
)
def test_a_model_is_found_downloaded_trained_asked_and_deleted(
    chrome: Browser, hub: FakeHub, tmp_path: Path, language: str, viewport: dict, full: bool
) -> None:
    words, workspace = WORDS[language], Workspace.open(tmp_path / "workspace")
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub")} | ({} if full else kit.ENGLISH)
    app = kit.start_app(workspace.root, **environment)
    try:
        page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
        kit.unfold(page, "#step-model")
        choose_from_the_shelf(page, words)
        what_the_hub_finds(page, hub, words)
        download_and_pause(page, hub, words)
        kit.assert_accessible(page, f"shelf-{language}")
        watch.check()
        page.context.close()
        app.stop()
        app = kit.start_app(workspace.root, app.port, **environment)

        page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
        kit.expect(page.locator("#downloads-list button[data-act=resume]")).to_be_visible()  # paused stays paused
        other, also = kit.open_page(chrome, app, f"/?lang={language}")  # which nobody touches from here on
        kit.go_to_tab(other, words["models"])
        listed = other.locator("#disk-list li", has_text=MODEL)
        kit.expect(listed).to_contain_text(words["incomplete"])
        before, _ = len(hub.requests), hub.release.set()
        page.locator("#downloads-list button[data-act=resume]").click()
        kit.expect(page.locator("#downloads-list button[data-act=remove]")).to_be_visible(timeout=60_000)
        ranges = [line for line in hub.requests[before:] if ".safetensors bytes=" in line]
        assert ranges and all(int(re.split("[=-]", line)[-2]) > 0 for line in ranges), "gone on with where it was"
        kit.expect(listed).not_to_contain_text(words["incomplete"])
        find_on_the_models_page(other, words)
        train_two_steps(page, words)
        wait_until(lambda: [run.status().state for run in Runs(workspace).list()] == [State.COMPLETED], 240)
        if full:  # as any other model is asked (test_thinking)
            ask(page, words)
        delete(page, words)
        kit.expect(listed).to_have_count(0)
        for each, watched in ((page, watch), (other, also)):
            watched.check()
            each.context.close()
    finally:
        app.stop()


def choose_from_the_shelf(page: Page, words: dict[str, str]) -> None:
    """What is understood, what the filter leaves, what a row says, and a press on it. For a card: this PC's RAM is
    filled by others meanwhile."""
    rows = page.locator("#shelf li")
    page.locator("#shelf-words input").fill(words["ask"])
    kit.expect(page.locator("#shelf [role=status]")).to_contain_text(words["understood"])
    kit.expect(rows.first).to_contain_text(re.compile(words["needs"]))
    fitting = rows.count()
    page.locator("#shelf-fitting input").uncheck()
    page.locator("#shelf-words input").fill("llama 70b")
    kit.expect(rows.first.locator(".lg-badge.lg-bad")).to_be_visible()
    kit.expect(rows.first.locator("a[target=_blank]")).to_have_attribute("href", re.compile("/meta-llama/"))  # its gate
    page.locator("#shelf-fitting input").check()
    page.locator("#shelf-words input").fill(words["ask"])
    kit.expect(rows).to_have_count(fitting)
    name = rows.first.locator("button").get_attribute("data-model")
    rows.first.locator("p").first.click(force=True)  # the whole row is the button's
    kit.expect(page.locator("#model input")).to_have_value(re.compile(re.escape(name or "?")))
    kit.expect(rows.first.locator("button")).to_have_attribute("aria-pressed", "true")


def what_the_hub_finds(page: Page, hub: FakeHub, words: dict[str, str]) -> None:
    """A failure is a sentence (each of them: tests/unit/hub, unit/webui/test_hub_search); then the model, and what can
    be no base without a button.

    Seen: a hub that answered before the list was drawn for the same words was gone again once it was.
    """
    results, rows = page.locator("#hub-found"), page.locator("#shelf li")
    page.evaluate(gate.script("shelf-words"))
    few = rows.count()
    page.locator("#shelf-words input").fill("tiny")
    gate.wait(page, "shelf-words")
    assert not [line for line in hub.requests if line == "GET /api/models"], "asked while somebody typed"
    hub.status = 429
    page.locator("#ask-hub").click()
    kit.expect(results.locator(".lg-notice")).to_contain_text(words["busy"])
    gate.open(page, "shelf-words")
    kit.expect(rows).not_to_have_count(few)
    kit.expect(results.locator(".lg-notice")).to_contain_text(words["busy"])
    hub.status = None
    page.locator("#ask-hub").click()
    kit.expect(results.locator("li")).to_have_count(2)
    kit.expect(results.locator("li", has_text="GGUF").locator("button")).to_have_count(0)
    results.locator("button", has_text=MODEL).click()
    kit.expect(page.locator("#model input")).to_have_value(MODEL)


def download_and_pause(page: Page, hub: FakeHub, words: dict[str, str]) -> None:
    hub.instead = b"<html>another file"
    page.locator("#download-model").click()
    kit.expect(page.locator("#downloads-list .lg-notice")).to_contain_text(words["other"], timeout=60_000)
    hub.instead = None
    page.locator("#downloads-list button[data-act=retry]").click()
    bar = page.locator("#downloads-list [role=progressbar]")
    # Its tokenizer is a fifth of it: what is gone on with is to be a part of its weights.
    kit.expect(bar).to_have_attribute("aria-valuenow", re.compile(r"[3-9]\d"), timeout=60_000)
    page.locator("#downloads-list button[data-act=pause]").click()
    kit.expect(page.locator("#downloads-list button[data-act=resume]")).to_be_visible()


def find_on_the_models_page(page: Page, words: dict[str, str]) -> None:
    """The same search on the page of its own, as it is typed and on the hub; and Train with the model that is here."""
    shelf = page.locator("#models-shelf li")
    kit.expect(shelf.first.locator("[data-train=starter]")).to_be_visible()
    page.locator("#models-words").fill("qwen3 0.6b")
    kit.expect(shelf.first.locator("button")).to_have_attribute("data-repo", re.compile("Qwen/"))
    page.locator("#models-words").fill("tiny")
    page.locator("#models-words").press("Enter")
    row = page.locator("#models-found li", has_text=MODEL).first
    kit.expect(row.locator("[data-train]")).to_be_visible(timeout=60_000)
    kit.assert_accessible(page, f"models-{words['models']}")
    row.locator("[data-train]").click()
    kit.expect(page.locator("#start-summary")).to_contain_text("tiny-chat", timeout=60_000)
    kit.go_to_tab(page, words["models"])


def train_two_steps(page: Page, words: dict[str, str]) -> None:
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.unfold(page, "#step-model")
    page.locator("#model input").fill(MODEL)
    page.locator("#model input").press("Enter")
    kit.plan_two_steps(page, 256, words["steps"])
    page.locator("#start").click()


def ask(page: Page, words: dict[str, str]) -> None:
    page.locator("#run-open-chat").click()
    kit.unfold(page, "#chat-settings")
    page.locator("#chat-max-new-tokens input").fill("4")
    page.locator("#chat-message textarea").fill("What is rain?")
    page.locator("#chat-send").click()
    kit.expect(page.locator("#chat-tuned-note p")).to_have_attribute(
        "title", re.compile(words["tokens"]), timeout=90_000
    )


def delete(page: Page, words: dict[str, str]) -> None:
    page.on("dialog", lambda dialog: dialog.accept())
    kit.go_to_tab(page, words["models"])
    row = page.locator("#disk-list li", has_text=MODEL)
    kit.expect(row).to_be_visible(timeout=60_000)
    kit.assert_accessible(page, f"disk-{words['models']}")
    row.locator("[data-act=delete]").click()
    kit.expect(page.locator("#models .ev-message")).to_contain_text(words["free"])
    kit.expect(row).to_have_count(0)
    kit.go_to_tab(page, words["train"])
    kit.expect(page.locator("#downloads")).to_be_hidden()
