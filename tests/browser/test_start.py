"""The start of the Train page, the rail beside it and a run's first view: reached by one click, by keyboard alone, and
on a phone."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun
from webui.kit.wording import Wording
from webui.pages.rail import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
PHONE = pytest.mark.parametrize("viewport", [kit.DESKTOP, kit.PHONE], ids=["desktop", "phone"])
# Of what has the focus: whether all of its height is in the window, and nothing stands over its middle.
IS_SEEN = """() => {
    const at = document.activeElement, box = at.getBoundingClientRect();
    const over = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
    const isIn = box.height > innerHeight || (box.top >= 0 && box.bottom <= innerHeight);
    return isIn && over !== null && (at.contains(over) || over.contains(at));
}"""
# Gives the rail's links other words, and returns where each begins and ends.
BAR = """words => [...document.querySelectorAll('.lg-rail a span')].flatMap((label, i) => {
    label.textContent = words[i];
    return [label];
}).flatMap(label => {
    const range = document.createRange();
    range.selectNodeContents(label);
    const box = range.getBoundingClientRect();
    return [box.left, box.right];
})"""


@pytest.mark.gate
@PHONE
def test_from_opening_to_a_run_is_one_click(
    chrome: Browser, app: kit.App, workspace: Workspace, viewport: dict
) -> None:
    page, watch = kit.open_page(chrome, app, viewport=viewport)
    chosen = page.locator("button[data-set][aria-pressed=true]")
    kit.expect(chosen).to_have_attribute("data-set", "sample:pirate_answers")
    kit.expect(page.locator("#start")).to_be_in_viewport(ratio=1)
    with kit.made_by_start(page, workspace, by_click=True) as run:
        kit.expect(page.locator("#run-card h2")).to_have_text(run.name)
    recipe = run.recipe()
    assert (recipe.goal, recipe.data.source, recipe.train.max_steps) == ("style", "sample:pirate_answers", 48)
    watch.check()
    page.context.close()


def test_cards_bar_and_rail_go_by_keyboard_and_the_focus_stays(chrome: Browser, app: kit.App) -> None:
    page, watch = kit.open_page(chrome, app)
    kit.expect(page.locator("#start-summary")).to_contain_text("48 steps")
    card = page.locator("button[data-set='sample:shop_messages']")
    card.focus()
    page.keyboard.press("Space")
    kit.expect(card).to_have_attribute("aria-pressed", "true")
    kit.expect(kit.part(page, "goal")).to_contain_text("Text classification")  # a look was answered, and all drawn anew
    kit.expect(card).to_be_focused()
    kit.expect(page.locator("button[data-set][aria-pressed=true]")).to_have_count(1)
    for step in ("model", "plan"):
        kit.part(page, step).focus()
        page.keyboard.press("Enter")
        kit.expect(page.locator(f"#step-{step}")).to_be_focused()
    kit.expect(page.locator(".lg-part[aria-expanded=true]")).to_have_count(1)  # one step at a time
    kit.expect(page.locator("#step-model")).to_be_hidden()
    page.keyboard.press("Tab")
    kit.expect(page.locator("#step-plan > button")).to_be_focused()
    page.keyboard.press("Enter")
    kit.expect(page.locator("#step-plan")).to_be_hidden()
    kit.expect(kit.part(page, "plan")).to_be_focused()
    link = page.locator("a[data-page=runs]")
    link.focus()
    page.keyboard.press("Enter")
    kit.expect(page.locator("#runs-empty")).to_be_visible()
    kit.expect(link).to_have_attribute("aria-current", "page")
    kit.expect(link).to_be_focused()
    kit.expect(page.locator("[aria-current=page]")).to_have_count(1)
    watch.check()
    page.context.close()


def test_the_bar_tells_which_step_is_open_also_when_it_is_drawn_anew(chrome: Browser, app: kit.App) -> None:
    page, watch = kit.open_page(chrome, app)
    kit.expect(page.locator("#start-summary")).to_contain_text("48 steps")
    kit.unfold(page, "#step-plan")
    kit.choose(page, "#rank", "16")
    kit.expect(kit.part(page, "plan")).to_contain_text("rank 16")
    opened = page.locator(".lg-part[aria-expanded=true]")
    kit.expect(opened).to_have_attribute("data-step", "plan")
    # As gradio draws it anew, which was seen where nothing else of the page was drawn after it.
    kit.part(page, "plan").evaluate("part => part.setAttribute('aria-expanded', 'false')")
    kit.expect(opened).to_have_attribute("data-step", "plan")
    kit.part(page, "goal").press("Enter")
    kit.expect(opened).to_have_attribute("data-step", "goal")
    kit.part(page, "goal").press("Enter")
    kit.expect(opened).to_have_count(0)
    watch.check()
    page.context.close()


def test_back_of_the_browser_leads_to_the_page_before(chrome: Browser, app: kit.App) -> None:
    page, watch = kit.open_page(chrome, app, "/zh")  # an address that somebody gave, in a browser that prefers English
    current = page.locator("a[data-page][aria-current=page]")
    kit.go_to_tab(page, "数据")
    page.reload()
    kit.expect(current).to_have_text("数据")  # seen: English
    page.context.close()
    watch.check()
    page, watch = kit.open_page(chrome, app)
    current = page.locator("a[data-page][aria-current=page]")
    for name, is_there in (("Chat", "#chat-message"), ("Data", "#data-sets")):
        kit.go_to_tab(page, name)
        kit.expect(page.locator(is_there)).to_be_visible()
        kit.expect(current).to_have_text(name)
    page.go_back()
    kit.expect(current).to_have_text("Chat")
    kit.expect(page.locator("#chat-message")).to_be_visible()
    page.go_back()
    kit.expect(current).to_have_text("Train")
    kit.expect(page.locator("#start-bar")).to_be_visible()
    page.go_forward()
    kit.expect(current).to_have_text("Chat")
    page.reload()
    kit.expect(current).to_have_text("Chat")
    watch.check()
    page.context.close()


def test_a_link_that_is_pressed_before_the_pages_are_drawn_opens_its_page(chrome: Browser, app: kit.App) -> None:
    """Seen while the PC was busy: the press was lost, where gradio drew its tabs after the rail."""
    page, watch = kit.open_page(chrome, app)
    kit.expect(page.locator("#start-summary")).to_contain_text("48 steps")
    page.evaluate("""() => {
        window.tabs = [...document.querySelectorAll('[role=tab]')].map(tab => [tab, tab.id]);
        for (const [tab] of tabs) tab.id = '';
    }""")
    kit.go_to_tab(page, "Runs")
    page.evaluate("""() => {
        for (const [tab, id] of tabs) tab.id = id;
        document.body.append(document.createElement('i'));
    }""")
    kit.expect(page.locator("#runs-empty")).to_be_visible()
    kit.expect(page.locator("a[data-page][aria-current=page]")).to_have_text("Runs")
    watch.check()
    page.context.close()


def test_the_words_of_a_phones_bar_do_not_overlap_in_any_language(chrome: Browser, app: kit.App) -> None:
    """Seen in German at 390 px: "Auswerten" ran into "Modelle"."""
    page, _ = kit.open_page(chrome, app, viewport=kit.PHONE)
    for language, width in itertools.product(("en", "zh", "de"), (360, 390, 430)):
        page.set_viewport_size({"width": width, "height": 844})
        edges = page.evaluate(BAR, [Wording(language).t(f"page.{name}") for name in PAGES])
        apart = [right - left for left, right in itertools.pairwise([0, *edges, width])][::2]
        assert min(apart) >= 1, (language, width, edges)
    page.context.close()


@PHONE
def test_nothing_moves_after_the_first_paint(chrome: Browser, app: kit.App, viewport: dict) -> None:
    """Seen: the whole page went 212 px to the right, beside the rail."""
    page, watch = kit.open_page(chrome, app, viewport=viewport)
    kit.expect(page.locator("#start-summary")).to_contain_text("48 steps")
    page.wait_for_function("document.body.classList.contains('lg-arrived')")
    assert page.evaluate("shifts.reduce((sum, each) => sum + each, 0)") < 0.02
    watch.check()
    page.context.close()


@PHONE
def test_what_has_the_focus_is_never_behind_a_bar(chrome: Browser, app: kit.App, viewport: dict) -> None:
    """Seen on a phone: the place for files behind Start."""
    page, watch = kit.open_page(chrome, app, viewport=viewport)
    kit.expect(page.locator("#start-summary")).to_contain_text("48 steps")
    page.locator("a[data-page]").last.focus()
    passed = [page.locator("a[data-page]").last.get_attribute("data-page")] + seen_with(page, "Tab", "start")
    assert "file" in passed
    for step in ("goal", "plan"):
        kit.unfold(page, f"#step-{step}")
        kit.expect(page.locator(f"#step-{step}")).to_be_focused()
        seen_with(page, "Tab", f"next-{step}")
        seen_with(page, "Shift+Tab", "start")
        assert kit.overflow(page) <= 0
    watch.check()
    page.context.close()


def seen_with(page: Page, key: str, last: str) -> list[str]:
    """Press key until the element of that id has the focus; each that has it on the way is seen."""
    passed: list[str] = []
    for _ in range(60):
        page.keyboard.press(key)
        passed += page.evaluate("() => { const at = document.activeElement; return [at.id, at.closest('[id]')?.id]; }")
        passed += page.evaluate("() => [document.activeElement.parentElement?.closest('[id]')?.id]")
        page.wait_for_function(IS_SEEN)  # a frame later: gradio moves its lists after a scroll
        if last in passed[-3:]:
            return passed
    raise AssertionError(f"{last} is not reached with {key}; passed {passed}")


@PHONE
def test_why_start_refuses_is_in_view(chrome: Browser, app: kit.App, viewport: dict) -> None:
    page, watch = kit.open_page(chrome, app, viewport=viewport)
    kit.unfold(page, "#step-plan")
    kit.unfold(page, "#all-settings")
    rate = page.locator("#setting-learning_rate input")
    rate.fill("5")
    rate.blur()
    kit.expect(page.locator("#start")).to_contain_text("fix the problem")
    page.locator("#setting-seed").scroll_into_view_if_needed()
    page.locator("#start").press("Enter")
    said = page.locator("#start-notice")
    kit.expect(said).to_contain_text("learning_rate is 5")
    kit.expect(said).to_be_in_viewport(ratio=1)
    top, bar = said.bounding_box(), page.locator("#start").bounding_box()
    assert top["y"] >= bar["y"] + bar["height"] or top["y"] + top["height"] <= bar["y"], "nothing stands over it"
    watch.check()
    page.context.close()


@PHONE
def test_a_run_at_work_shows_its_figures_and_what_became_of_one_answer(
    chrome: Browser, app: kit.App, workspace: Workspace, viewport: dict
) -> None:
    memory = {"predicted_gib": 1.31, "measured_gib": 1.42, "runs": 2, "factor": 1.04}
    with ScriptedRun(workspace, "watched", memory=memory) as run:
        run.to(State.RUNNING).train(40, seconds_left=140).film(0, 20, 40)
        page, watch = kit.open_page(chrome, app, viewport=viewport)
        figures = page.locator(".lg-figure strong")
        kit.expect(figures).to_have_text(["40 / 100", re.compile(r"^0\.\d+$"), re.compile(r"^0\.98\d*$"), "1.4 GiB"])
        kit.expect(page.locator(".lg-figure").first).to_contain_text("about 2 min left")
        kit.expect(page.locator(".lg-figure").last).to_contain_text("planned 1.3 GiB")
        watched = page.locator("#live-film .fs-watch")
        kit.expect(watched.locator(".fs-question")).to_have_text("What is a lantern?")
        kit.expect(watched.locator("li b")).to_have_text(["base", "step 20", "step 40"])
        kit.expect(watched.locator(".fs-newest b")).to_have_text("step 40")
        kit.expect(page.locator("#live-film .fs-strip")).to_be_hidden()  # unfolded by who wants all of it
        kit.assert_accessible(page)
        run.train(20).film(60)
        kit.expect(figures.first).to_have_text("60 / 100")
        kit.expect(watched.locator(".fs-newest b")).to_have_text("step 60")
        kit.expect(watched.locator("li b").first).to_have_text("base")
        run.to(State.STOPPED)
        kit.expect(page.locator("#run-box .lg-over")).to_be_visible()
        if viewport == kit.PHONE:  # seen: over what a finished run offers
            kit.expect(page.locator("#start")).not_to_be_in_viewport()
    watch.check()
    page.context.close()
