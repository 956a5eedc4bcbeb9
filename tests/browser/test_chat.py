"""Chat as a hand uses it: what is in view, and when the next question may be asked. The models are made up
(tests/kit/endless_base)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.film import EVIL, film_of
from tests.kit.runs import trained

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_a_suggested_question_is_sent_by_a_press(chrome: Browser, tmp_path: Path) -> None:
    """An empty box on an empty page left a newcomer with nothing to ask."""
    workspace = Workspace.open(tmp_path / "workspace")
    film_of(trained(workspace, "Pirate"), 0)  # questions of its data
    app = kit.start_app(workspace.root, module="tests.kit.endless_base", **kit.ENGLISH)
    try:
        page, watch = kit.open_page(chrome, app)
        kit.go_to_tab(page, "Chat")
        ideas = page.locator("#chat-empty .lg-idea")
        kit.expect(ideas).to_have_text(["What is a lantern?", EVIL, "Wie heißt du?"])
        assert page.evaluate("window.ran") is None
        kit.assert_accessible(page)
        ideas.first.press("Enter")
        kit.expect(page.locator("#chat-tuned [data-testid=user]")).to_have_text(["What is a lantern?"])
        kit.expect(page.locator("#chat-tuned [data-testid=bot]")).to_have_text(["Aye 1."])
        kit.expect(page.locator("#chat-message textarea")).to_have_value("")
        kit.expect(ideas).to_have_count(0)
        page.set_viewport_size(kit.PHONE)  # seen: the box lay below both answers
        page.locator("#chat-base").scroll_into_view_if_needed()
        for part in ("message textarea", "send"):
            kit.expect(page.locator(f"#chat-{part}")).to_be_in_viewport(ratio=1)
        page.set_viewport_size(kit.DESKTOP)
        page.locator("#chat-base-note button").click()
        page.locator("#chat-bad").click()
        kit.expect(page.locator("#chat-correction-notice p")).to_be_in_viewport(ratio=1)  # seen: below the fold
        watch.check()
        page.context.close()
    finally:
        app.stop()


@pytest.mark.gate
def test_the_next_question_is_asked_in_view_while_the_base_still_writes(chrome: Browser, tmp_path: Path) -> None:
    """Seen: Send was blocked for 117 s after the tuned answer, until the base had looped through 256 tokens, and lay
    below the fold."""
    workspace = Workspace.open(tmp_path / "workspace")
    trained(workspace, "Pirate")
    app = kit.start_app(workspace.root, module="tests.kit.endless_base", **kit.ENGLISH)
    try:
        page, watch = kit.open_page(chrome, app)
        kit.go_to_tab(page, "Chat")
        message, send, stop = (page.locator(f"#chat-{part}") for part in ("message textarea", "send", "stop"))
        answers = page.locator("#chat-tuned [data-testid=bot]")
        message.fill("What is rain?")
        send.click()
        kit.expect(page.locator("#chat-tuned-note p")).to_have_attribute("title", re.compile("3 tokens"))
        kit.expect(answers).to_have_text(["Aye 1."])
        kit.expect(stop).to_be_visible()
        for part in (message, send):
            kit.expect(part).to_be_in_viewport(ratio=1)
        message.fill("And snow?")
        send.click()
        kit.expect(answers).to_have_text(["Aye 1.", "Aye 2."])
        kit.expect(page.locator("#chat-base [data-testid=bot]")).to_have_text(["and on and on"] * 2)
        kit.expect(message).to_have_value("")
        message.fill("And hail?")
        message.press("Enter")
        kit.expect(answers).to_have_text(["Aye 1.", "Aye 2.", "Aye 3."])
        page.locator("#chat-base-note button").click()  # the answer of this column alone
        kit.expect(stop).to_be_hidden()
        kit.expect(page.locator("#chat-base-note")).to_contain_text("stopped")
        kit.expect(answers).to_have_count(3)
        watch.check()
        page.context.close()
    finally:
        app.stop()
