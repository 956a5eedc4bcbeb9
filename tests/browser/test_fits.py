"""Does it fit? The shelf of models, the memory by term and how far each setting goes, in a real browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.kit import browser as kit

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
FITS = {"en": "fits", "zh": "放得下"}
WORDS = {"en": "qwen3 under 5B", "zh": "qwen3 不超过5B"}
START = "Start training"
UNDERSTOOD = {"en": "at most 5B", "zh": "不超过 5B"}


@pytest.mark.parametrize(
    ("language", "viewport"), [pytest.param("en", kit.DESKTOP, marks=pytest.mark.full), ("zh", kit.PHONE)]
)
def test_what_fits_is_seen_before_anything_is_downloaded(
    chrome: Browser, card_app: kit.App, language: str, viewport: dict
):
    page, watch = kit.open_page(chrome, card_app, f"/?lang={language}", viewport=viewport)
    kit.expect(page.locator("#header-hardware")).to_contain_text("RTX 4060")
    kit.unfold(page, "#step-model")
    rows = page.locator("#shelf li")
    kit.expect(rows.first).to_contain_text(FITS[language])
    kit.expect(rows.locator("button[aria-pressed=true]")).to_have_count(1)
    page.locator("#shelf-words input").fill(WORDS[language])  # as a paste or an input method: no key is pressed
    kit.expect(page.locator("#shelf [role=status]")).to_contain_text(UNDERSTOOD[language])
    kit.expect(page.locator("#shelf")).not_to_contain_text("SmolLM2")
    choice = page.locator("#shelf button", has_text="Qwen3-4B").first
    choice.focus()
    page.keyboard.press("Enter")
    kit.expect(choice).to_have_attribute("aria-pressed", "true")
    kit.expect(page.locator("#model-about")).to_contain_text("Apache-2.0")
    kit.unfold(page, "#step-plan")
    card = page.locator("#plan-card")
    kit.expect(card).to_contain_text("QLoRA")
    kit.expect(card.locator(".lg-mem > div")).not_to_have_count(0)
    kit.unfold(page, "#plan-more")
    card = page.locator("#plan-more")
    kit.expect(card.locator("details.lg-fold[open]").first).to_be_visible()
    assert kit.overflow(page) <= 0
    assert not kit.violations(page)
    watch.check()
    page.context.close()


def test_a_model_that_would_train_for_days_says_how_long_and_start_is_not_green(chrome: Browser, app: kit.App):
    """Seen: a 31B model "fits" on two cores, Start was green, and nothing said that it takes days. No step of it has to
    be timed for that."""
    page, watch = kit.open_page(chrome, app)
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.expect(page.locator("#start")).to_have_class(re.compile("primary"))
    kit.unfold(page, "#step-model")
    page.locator("#model input").fill("google/gemma-4-31B-it")
    page.locator("#model input").press("Enter")
    kit.unfold(page, "#step-plan")
    kit.unfold(page, "#all-settings")
    steps = page.locator("#setting-max_steps input")
    steps.fill("1000000")
    steps.blur()
    plan = page.locator("#plan-card")
    kit.expect(plan).to_contain_text(re.compile("1,?000,?000 optimizer steps, about [\\d,]+ days"))
    kit.expect(plan.locator(".lg-badge.lg-ok")).to_have_count(0)
    kit.expect(page.locator("#start")).to_have_class(re.compile("secondary"))
    kit.expect(page.locator("#start")).to_have_text(START)
    watch.check()
    page.context.close()
