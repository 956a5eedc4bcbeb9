"""`python -m tests.readme_pictures`: the README's pictures, of a real run on the starter model. Takes about three minutes."""

from __future__ import annotations

import sys
import tempfile
import time

from core import starter
from core.runs import Runs
from core.states import State
from core.workspace import Workspace
from tests import browser_kit as kit

QUESTIONS = ("What is a lighthouse?", "How do I make friends?")


def main() -> int:
    target = kit.PROJECT / "docs" / "screenshots"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, kit.browser() as chrome:
        space = Workspace.open(folder)
        starter.ensure(space.models, lambda stage, progress: None, lambda: None)
        app = kit.start_app(space.root)
        try:
            page, _ = kit.open_page(chrome, app)
            page.get_by_role("radio", name="Pirate answers").check()
            page.wait_for_timeout(1500)
            page.screenshot(path=target / "train-form.png", full_page=True)
            page.locator("#start").click()
            wait_for(lambda: Runs(space).list() and Runs(space).list()[0].status().step >= 44)
            page.wait_for_timeout(2500)
            page.screenshot(path=target / "train-running.png", full_page=True)
            phone, _ = kit.open_page(chrome, app, "/?lang=zh", viewport=kit.PHONE, color_scheme="dark", locale="zh-CN")
            phone.wait_for_timeout(2500)
            phone.screenshot(path=target / "train-running-phone-zh.png", full_page=True)
            wait_for(lambda: Runs(space).list()[0].status().state == State.COMPLETED)
            page.locator("#run-open-chat").click(timeout=60_000)
            for number, question in enumerate(QUESTIONS, 1):
                page.locator("#chat-message textarea").fill(question)
                page.locator("#chat-send").click()
                page.locator("#chat-tuned [data-testid=bot]").nth(number - 1).wait_for(timeout=180_000)
                page.locator("#chat-send").wait_for(timeout=180_000)
            page.wait_for_timeout(1500)
            page.screenshot(path=target / "chat-used.png", full_page=True)
        finally:
            app.stop()
    return 0


def wait_for(condition, timeout_s: float = 600.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("waited in vain")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
