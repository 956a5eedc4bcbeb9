"""The guide's first page, done as it says: what it names is on the page, and pressing it in that order starts a run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit import browser as kit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize(("language", "page_of_guide"), [("en", "first-model.md"), ("zh", "first-model.zh.md")])
def test_a_newcomer_who_does_what_the_guide_says_starts_the_first_run(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, page_of_guide: str
) -> None:
    """It said that each step is already answered; Start could not be pressed, for no dataset was chosen."""
    text = (PROJECT / "docs" / "guide" / page_of_guide).read_text("utf-8")
    tab, *choices, start = re.findall(r"\*\*(.+?)\*\*", text.split("\n## ")[2])
    page, watch = kit.open_page(chrome, app, f"/{'' if language == 'en' else language}?lang={language}")
    kit.go_to_tab(page, tab)
    for named in choices:
        page.locator("#form-column").get_by_text(named).first.click()
    kit.expect(page.locator("#start")).to_have_text(start)
    kit.expect(page.locator("#start")).to_be_enabled()
    with kit.made_by_start(page, workspace) as run:
        assert run.recipe().data.source == "sample:pirate_answers" and run.recipe().model.id == "starter"
    watch.check()
    page.context.close()
