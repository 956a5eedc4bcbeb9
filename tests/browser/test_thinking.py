"""A tiny model with a real template that thinks and calls tools: seen in the preview, trained, asked with thinking and
without."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.api.datasets import dataset_store
from core.chat.conversations import Conversations
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.templates import CONVERSATIONS, tokenizer_folder
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def app(tmp_path: Path, tiny_model: Path) -> Iterator[kit.App]:
    """With a library that has the model, and rows with thinking and tools."""
    library, workspace = tmp_path / "library", tmp_path / "workspace"
    shutil.copytree(tiny_model, library / "thinker")
    tokenizer_folder(library / "thinker", tiny_model, "qwen3_5_think")
    rows = [
        {"messages": turns, "tools": tools}
        for turns, tools in (CONVERSATIONS[n] for n in ("thinking_tools", "thinking_turns"))
    ]
    (library / "thoughts.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    workspace.mkdir()
    (workspace / "settings.yaml").write_text(json.dumps({"library_folders": [str(library)]}), "utf-8")
    started = kit.start_app(Workspace.open(workspace).root)
    yield started
    started.stop()


def test_thinking_and_tool_calls_are_seen_trained_and_asked_for(chrome: Browser, app: kit.App) -> None:
    page, watch = kit.open_page(chrome, app)
    kit.choose(page, "#data", "library:thoughts.jsonl")
    kit.unfold(page, "#step-model")
    page.locator("#model input").fill("library:thinker")
    page.locator("#model input").press("Enter")
    kit.open_step(page, "data")
    row = page.locator("#learned-row .lg-row-text")
    kit.expect(row.locator("mark.lg-call")).to_contain_text("<function=get_weather>")
    kit.expect(row.locator("mark.lg-call")).to_be_visible()
    kit.expect(row.locator("mark.lg-thinking").first).to_have_text("I must look.")
    kit.expect(row.locator("mark.lg-learned:not(.lg-thinking, .lg-call)").last).to_contain_text("It is 20 degrees.")
    kit.expect(page.locator("#learned")).to_contain_text("This template drops the thinking of earlier turns")
    kit.assert_accessible(page, "thinking-row")
    page.locator("#row-after").click()
    kit.expect(row.locator(".lg-next-example")).to_have_text(["Example 1", "Example 2"])

    kit.plan_two_steps(page, 1024)
    page.locator("#start").click()
    runs = Runs(Workspace.open(app.workspace))
    wait_until(lambda: [run for run in runs.list() if run.status().state == State.COMPLETED], 120)
    assert runs.list()[0].facts().enable_thinking is True
    watch.check()
    page.context.close()

    page, watch = kit.open_page(chrome, app, "/?lang=zh", viewport=kit.PHONE)
    kit.go_to_tab(page, "对话")
    kit.expect(page.locator("#chat-checkpoint")).to_be_visible()  # the run is chosen
    kit.unfold(page, "#chat-settings")
    page.locator("#chat-max-new-tokens input").fill("8")
    page.locator("#chat-temperature input").fill("1")  # its likeliest word is white space, again and again
    page.locator("#chat-message textarea").fill("What is 2+2?")
    page.locator("#chat-message textarea").press("Enter")  # as its placeholder says
    kit.expect(page.locator("#chat-stop")).to_be_visible()
    # while the model loads; seen: the answer's first word emptied the box
    page.locator("#chat-message textarea").fill("And then?")
    kit.expect(page.locator("#chat-tuned-note p")).to_have_attribute("title", re.compile("词元"), timeout=90_000)
    thought = page.locator("#chat-tuned details.lg-thought")
    kit.expect(thought.locator("summary")).to_have_text("思考过程")
    kit.open_details(thought)
    kit.expect(thought.locator("pre")).to_be_visible()
    kit.expect(page.locator("#chat-thinking")).to_be_visible()
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    kit.choose(page, "#chat-thinking", "off")
    page.locator("#chat-regenerate").click()
    kit.expect(thought).to_have_count(0)
    kit.expect(page.locator("#chat-send")).to_be_visible(timeout=60_000)
    kit.expect(page.locator("#chat-tuned-note p")).to_have_attribute("title", re.compile("词元"))
    kit.expect(thought).to_have_count(0)
    kit.expect(page.locator("#chat-message textarea")).to_have_value("And then?")  # nobody sent it
    page.locator("#chat-message textarea").fill("")
    correct(page, app)
    duel(page)
    opened_during_an_answer(page, app)
    watch.check()
    page.context.close()


def correct(page: Page, app: kit.App) -> None:
    """Of two answers the better one, and one that is written as it should be: two rows of the run's set, and the
    conversation goes on."""
    kit.expect(page.locator("#chat-better-before")).to_contain_text("<think>")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    page.locator("#chat-better-now").click()
    kit.expect(page.locator("#chat-correction-notice")).to_contain_text("现有 1 行")
    page.locator("#chat-correct").click()
    page.locator("#chat-correction-text textarea").fill("Four.")
    kit.only_filled(page, "chat-correction-save")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    page.locator("#chat-correction-save").click()
    kit.expect(page.locator("#chat-correction-notice")).to_contain_text("现有 2 行")
    kit.expect(page.locator("#chat-tuned [data-testid=bot]")).to_have_text("Four.")
    [kept] = [info for info in dataset_store(Workspace.open(app.workspace)).list() if info.corrects]
    assert kept.name.endswith("的纠正") and kept.good_rows == 2


def opened_during_an_answer(page: Page, app: kit.App) -> None:
    """Seen: the next piece of the answer took the screen back, and a correction that was open was saved for the other
    conversation."""
    message, question = page.locator("#chat-message textarea"), page.locator("#chat-base [data-testid=user]")
    listed = page.locator("#chat-conversations-list label")
    kit.unfold(page, "#chat-settings")
    page.locator("#chat-max-new-tokens input").fill("8")
    page.locator("#chat-temperature input").fill("1")
    page.locator("#chat-clear").click()
    kit.expect(question).to_have_count(0)
    message.fill("Who?")
    message.press("Enter")
    kit.expect(page.locator("#chat-tuned-note p")).to_have_attribute("title", re.compile("词元"), timeout=60_000)
    kit.expect(message).to_have_value("")
    page.locator("#chat-correct").click()
    kit.expect(page.locator("#chat-correction-text")).to_be_visible()
    listed.filter(has_text="What is 2+2?").click()
    kit.expect(question).to_have_text("What is 2+2?")
    kit.expect(page.locator("#chat-correction-text")).to_be_hidden()
    listed.filter(has_text="Who?").click()
    kit.expect(question).to_have_text("Who?")
    page.locator("#chat-max-new-tokens input").fill("400")
    message.fill("More?")
    message.press("Enter")
    kit.expect(question).to_have_count(2)
    listed.filter(has_text="What is 2+2?").click()
    kit.expect(page.locator("#chat-send")).to_be_visible()
    kit.expect(question).to_have_text("What is 2+2?")

    def kept() -> dict[str, list[str]]:
        conversations = Conversations(Workspace.open(app.workspace)).find()
        return {
            one.name: [turn["content"] for turn in one.branch.base if turn["role"] == "user"] for one in conversations
        }

    wait_until(lambda: kept() == {"What is 2+2?": ["What is 2+2?"], "Who?": ["Who?", "More?"]})


def duel(page: Page) -> None:
    """Blind: both answer everything, a verdict by button and one by key, a reload between them, and whose they were at
    the end."""
    about, begin = (page.locator(f"#duel-{name}").bounding_box() for name in ("about", "begin"))
    assert about["y"] + about["height"] <= begin["y"], "what it is stands above what begins it"
    page.locator("#duel-begin").click()
    kit.expect(page.locator("#duel-answers h3")).to_have_text(["回答 A", "回答 B"], timeout=120_000)
    kit.expect(page.locator("#duel-message")).to_contain_text("第 1 题，共 3 题")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    page.locator("#duel-left").click()
    kit.expect(page.locator("#duel-message")).to_contain_text("第 2 题")
    page.reload()
    kit.go_to_tab(page, "对话")
    kit.expect(page.locator("#chat-checkpoint")).to_be_visible()
    # the conversation that was open, as it is now
    kit.expect(page.locator("#chat-tuned [data-testid=bot]")).to_have_text("Four.")
    kit.unfold(page, "#chat-conversations")
    kit.expect(page.locator("#chat-conversation-name textarea, #chat-conversation-name input")).to_have_value(
        "What is 2+2?"
    )
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    page.locator("#duel-begin").click()
    kit.expect(page.locator("#duel-message")).to_contain_text("第 2 题")
    page.locator("#duel-question").click()
    page.keyboard.press("?")
    kit.expect(page.locator("#shortcuts-sheet")).to_be_visible()
    page.keyboard.press("1")  # no vote behind the open sheet, which lists it
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    kit.expect(page.locator("#duel-message")).to_contain_text("第 3 题")
    page.keyboard.press("4")
    over = page.locator("#duel-result")
    kit.expect(over).to_contain_text("平局 1 次，都不好 1 次")
    kit.expect(over).to_contain_text("回答 A 赢了 1 / 1 次")
    kit.open_details(over.locator("details"))
    kit.expect(over.locator(".lg-duel h3").first).to_have_text("thinker")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
