"""The page of the app on the null card, in a real browser: what it says of the card by NVML, a run from Start, and both
columns."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.runs.all import Runs
from core.runs.states import State
from tests.card.place import Place
from tests.kit import browser as kit
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.spawn]


def test_the_page_names_the_card_and_start_trains_on_it(
    chrome: Browser, tmp_path: Path, tiny_model: Path, starter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.make(tmp_path, tiny_model.parent, starter_folder)
    monkeypatch.setattr(sys, "executable", str(place.card.python))
    app = kit.start_app(place.workspace.root, **(place.environment() | kit.ENGLISH))
    try:
        page, watch = kit.open_page(chrome, app)
        kit.expect(page.locator("#header-hardware")).to_contain_text("Null RTX 3060")
        kit.expect(page.locator("#header-hardware")).to_contain_text("of 12.0 GiB")
        kit.choose(page, "#data", "sample:pirate_answers")
        kit.unfold(page, "#step-plan")
        kit.expect(page.locator("#plan-card")).to_contain_text("Null RTX 3060")
        kit.unfold(page, "#all-settings")
        for setting in ("sample_seconds", "max_steps"):
            box = page.locator(f"#setting-{setting} input")
            box.fill({"sample_seconds": "0", "max_steps": "2"}[setting])
            box.blur()
        kit.expect(page.locator("#plan-card")).to_contain_text("2 optimizer steps")
        page.locator("#start").click()
        run = wait_until(lambda: next(iter(Runs(place.workspace).list()), None), 120)
        wait_until(lambda: run.status().state in (State.COMPLETED, State.FAILED), 600)
        assert run.status().state == State.COMPLETED, run.log_tail()
        assert (run.facts().device, run.facts().device_name) == ("cuda:0", "Null RTX 3060")
        page.locator("#run-open-chat").click()
        kit.unfold(page, "#chat-settings")
        page.locator("#chat-max-new-tokens input").fill("8")
        page.locator("#chat-message textarea").fill("What is the capital of France?")
        page.locator("#chat-send").click()
        for column in ("base", "tuned"):
            kit.expect(page.locator(f"#chat-{column}-note")).to_contain_text("tokens", timeout=300_000)
            kit.expect(page.locator(f"#chat-{column} [data-testid=bot]")).to_contain_text(re.compile(r"\w"))
        watch.check()
        page.context.close()
    finally:
        app.stop()
