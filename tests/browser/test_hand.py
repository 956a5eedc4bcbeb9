"""The form of the Train page by keyboard, in the dark and beside an earlier run: what a hand and an eye met on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ended

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


def test_arrow_keys_go_through_choices_and_change_a_number_by_its_own_step(chrome: Browser, app: kit.App) -> None:
    """Seen: arrows did nothing among datasets, and one press made 1 of a learning rate of 0.0003."""
    page, watch = kit.open_page(chrome, app)
    kit.open_step(page, "data")
    chosen = page.locator("#data input:checked")
    chosen.focus()
    for key, value in (("ArrowDown", "shop_messages"), ("ArrowUp", "pirate_answers"), ("ArrowUp", "kettlewisp_facts")):
        page.keyboard.press(key)
        kit.expect(chosen).to_have_value(f"sample:{value}")
        kit.expect(chosen).to_be_focused()
        card = page.locator(f"button[data-set='sample:{value}']")
        kit.expect(card).to_have_attribute("aria-pressed", "true")
    kit.unfold(page, "#step-plan")
    kit.expect(page.locator("#plan-card")).to_contain_text("optimizer steps")
    # seen: amber, on the way of every newcomer
    kit.expect(page.locator("#plan-card")).not_to_contain_text("estimates until")
    kit.unfold(page, "#all-settings")
    rate = page.locator("#setting-learning_rate input")
    rate.fill("0.0003")
    rate.press("ArrowUp")
    kit.expect(rate).to_have_value("0.0004")
    rate.fill("")
    rate.press("Enter")
    page.wait_for_function("loraGarageForm.settings['train.learning_rate']")
    rate.blur()
    kit.expect(rate).to_have_value("0.001")  # the plan's again; seen: it stayed empty
    watch.check()
    page.context.close()


def test_a_card_is_found_by_its_number(chrome: Browser, app: kit.App) -> None:
    """Seen: typing 3060 found nothing; and the first that has it in its name is the 3060 Ti."""
    page, watch = kit.open_page(chrome, app)
    kit.unfold(page, "#step-plan")
    card = page.locator("#plan-for input")
    card.fill("3060")
    card.press("Enter")
    kit.expect(page.locator("#plan-card")).to_contain_text("on a GPU of 12 GB")
    watch.check()
    page.context.close()


def test_beside_an_earlier_run_the_plan_stays_in_view_with_its_legend_and_the_browser_draws_dark(
    chrome: Browser, app: kit.App
) -> None:
    """Seen: after the first run the plan scrolled away from the settings that change it, and its bar had no legend;
    white scrollbars."""
    ended(Workspace.open(app.workspace), "the first one", 10)
    page, watch = kit.open_page(chrome, app, color_scheme="dark")
    kit.expect(page.locator("#run-card")).to_contain_text("the first one")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    kit.unfold(page, "#step-plan")
    kit.expect(page.locator("#plan-card .lg-mem-legend")).to_be_visible()
    kit.unfold(page, "#all-settings")
    kit.choose(page, "#data", "sample:pirate_answers")
    page.locator("#setting-learning_rate input").fill("0.05")
    page.locator("#setting-learning_rate input").blur()
    page.locator("#setting-eval_fraction").scroll_into_view_if_needed()
    kit.expect(page.locator("#plan-card .lg-plan-head")).to_be_in_viewport()
    kit.expect(page.locator("#finding-hot_plan")).to_be_in_viewport()
    watch.check()
    page.context.close()
