"""The app on a Windows Python, its page driven from outside by a browser of this side: Start, the loss, Chat with both
columns.

Runs on the Python of this side, with the app under Wine; on Windows itself tests/browser does more than this.
"""

from __future__ import annotations

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.browser import App, browser, open_page, part, unfold
from tests.kit.ports import free_port
from tests.kit.waits import wait_until
from tests.windows.place import NAME
from tests.windows.wine import Wine, as_windows

pytestmark = [
    pytest.mark.full,
    pytest.mark.browser,
    pytest.mark.skipif("LORA_GARAGE_UNDER_WINE" not in os.environ, reason="python launch.py test --windows --full"),
]
LIMIT_MS = 300_000


@pytest.fixture
def app(make_workspace: Callable[[], Workspace], tmp_path: Path) -> Iterator[App]:
    place = make_workspace().root.rename(tmp_path / NAME)
    wine, port, log = Wine(), free_port(), place / "app.log"
    command = [
        "wine",
        str(wine.interpreter),
        "-m",
        "webui",
        "--port",
        str(port),
        "--workspace",
        as_windows(place),
        "--no-browser",
    ]
    ours = {"PYTHONUTF8": "1", "PYTHONPATH": as_windows(wine.program), "LORA_GARAGE_LANG": "en"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=wine.program, env=wine.environment() | ours, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text("utf-8", errors="replace")
        try:
            urllib.request.urlopen(url + "/config", timeout=5).close()
        except (urllib.error.URLError, TimeoutError):
            return False
        return True

    try:
        wait_until(answers, LIMIT_MS / 1000, every_s=0.25)
        yield App(url, port, place, process, log)
    finally:
        wine.end()
        process.wait()


def test_from_start_to_chat(app: App) -> None:
    from playwright.sync_api import expect

    with browser() as chrome:
        page, watch = open_page(chrome, app)
        expect(part(page, "data")).to_contain_text(re.compile("Pirate.*68"), timeout=LIMIT_MS)
        unfold(page, "#step-plan")
        expect(page.locator("#plan-card")).to_contain_text("48 optimizer steps", timeout=LIMIT_MS)
        unfold(page, "#all-settings")
        for setting, value in (("learning_rate", "0.003"), ("max_steps", "6"), ("sample_seconds", "0")):
            box = page.locator(f"#setting-{setting} input")
            box.fill(value)
            box.blur()
        expect(page.locator("#plan-card")).to_contain_text("6 optimizer steps", timeout=LIMIT_MS)
        page.locator("#start").click()
        expect(page.locator("#stop")).to_be_visible(timeout=LIMIT_MS)
        (run,) = wait_until(lambda: Runs(Workspace.open(app.workspace)).list(), LIMIT_MS / 1000)
        # The file itself: Wine's locks are not seen from this side, so that the worker would be taken for dead.
        ends = (State.COMPLETED, State.FAILED, State.INTERRUPTED)
        wait_until(lambda: run.status().state in ends, 2 * LIMIT_MS / 1000, every_s=0.5)
        assert run.status().state == State.COMPLETED, run.log_tail()
        expect(page.locator("#run-card")).to_contain_text("done", timeout=LIMIT_MS)
        page.locator("#run-open-chat").click()
        unfold(page, "#chat-settings")
        page.locator("#chat-max-new-tokens input").fill("8")
        page.locator("#chat-message textarea").fill("What is a horse?")
        page.locator("#chat-send").click()
        for column in ("base", "tuned"):
            expect(page.locator(f"#chat-{column}-note")).to_contain_text("tokens", timeout=LIMIT_MS)
            assert page.locator(f"#chat-{column} [data-testid=bot]").last.inner_text().strip()
        watch.check()
