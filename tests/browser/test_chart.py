"""The curves in a real browser, on a scripted run that goes on: what is drawn, what zoom and folding do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
OBSERVE = """window.drawn = [];
window.told = entries => entries.forEach(entry => window.drawn.push(entry.name));
window.observer = new PerformanceObserver(list => window.told(list.getEntries()));
window.observer.observe({ entryTypes: ['measure'] });"""
DRAWN = "() => { window.told(window.observer.takeRecords()); return window.drawn.splice(0); }"
SMALL = ("rate", "norm", "speed", "memory")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedRun]:
    workspace = Workspace.open(tmp_path_factory.mktemp("chart") / "workspace")
    with ScriptedRun(workspace, "long one", total_steps=1000) as run:
        yield run.to(State.RUNNING).train(100)


@pytest.fixture(scope="module")
def app(run: ScriptedRun) -> Iterator[kit.App]:
    started = kit.start_app(Path(run.run.path).parent.parent, LORA_GARAGE_LANGUAGES="en de")
    yield started
    started.stop()


def more_rows(page: Page, run: ScriptedRun, count: int) -> None:
    """Rows arrive, and the page has drawn them."""
    run.train(count)
    label = page.locator("#live-chart .lc-plot")
    wait_until(lambda: f"step {run.step} " in (label.get_attribute("aria-label") or ""))


def drawn(page: Page) -> set[str]:
    """Which charts were drawn since the last call."""
    return {name.removeprefix("lc-draw-") for name in page.evaluate(DRAWN) if name.startswith("lc-draw-")}


def over(page: Page) -> dict[str, float]:
    box = page.locator("#live-chart .lc-plot .u-over").bounding_box()
    assert box is not None
    return box


def step_at(page: Page, share: float) -> int:
    """The step that the legend tells with the pointer at this share of the plot's width, which stood still meanwhile:
    what comes above it moves it."""
    box = None
    while box != (box := over(page)):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(page.locator("#live-chart .lc-legend b").first.inner_text())


def drag(page: Page, start: float, end: float) -> None:
    step_at(page, start)  # it stands still
    box = over(page)
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=3)
    page.mouse.up()


def test_zoom_is_shared_kept_while_rows_arrive_and_taken_back(chrome: Browser, app: kit.App, run: ScriptedRun):
    page, watch = kit.open_page(chrome, app)
    kit.open_details(page.locator("#live-chart .lc-more"))
    kit.expect(page.locator("#live-chart .lc-box canvas")).to_have_count(len(SMALL))
    reset = page.locator("#live-chart .lc-reset")
    kit.expect(reset).to_be_hidden()
    assert (step_at(page, 0.001), step_at(page, 0.999)) == (1, run.step)
    rate = page.locator("#live-chart .lc-small b").first
    at_the_end = rate.inner_text()
    assert step_at(page, 0.03) < 35 and rate.inner_text() != at_the_end, "the small charts follow the pointer"
    drag(page, 0.02, 0.04)  # the axis is that of all 1,000 steps, of which 100 are done
    kit.expect(reset).to_be_visible()
    zoomed = (step_at(page, 0.001), step_at(page, 0.999))
    assert 19 <= zoomed[0] <= 22 and 39 <= zoomed[1] <= 42
    more_rows(page, run, 30)
    kit.set_dark(page, True)
    assert (step_at(page, 0.001), step_at(page, 0.999)) == zoomed
    kit.assert_accessible(page)
    reset.focus()
    page.keyboard.press("Enter")
    kit.expect(reset).to_be_hidden()
    assert (step_at(page, 0.001), step_at(page, 0.999)) == (1, run.step)
    drag(page, 0.05, 0.06)
    page.locator("#live-chart .lc-box .u-over").first.dblclick()
    kit.expect(reset).to_be_hidden()
    assert step_at(page, 0.999) == run.step
    watch.check()
    page.context.close()


def test_only_what_can_be_seen_is_drawn(chrome: Browser, app: kit.App, run: ScriptedRun):
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    page.evaluate(OBSERVE)
    more = page.locator("#live-chart .lc-more summary")
    kit.expect(more).to_be_visible()
    more_rows(page, run, 5)
    assert drawn(page) == {"loss"}, "the others are folded away at first"
    more.focus()
    page.keyboard.press("Enter")
    kit.expect(page.locator("#live-chart .lc-box canvas")).to_have_count(len(SMALL))
    lefts = page.locator("#live-chart .lc-box:visible").evaluate_all(
        "boxes => boxes.map(box => Math.round(box.getBoundingClientRect().x))"
    )
    assert len(set(lefts)) == 1, "one column"
    drawn(page)
    more_rows(page, run, 5)
    assert drawn(page) == {"loss", *SMALL}
    speed = page.locator("#live-chart .lc-box").nth(2).get_attribute("aria-label") or ""
    assert re.search(rf"At step {run.step}: [78]\d\d", speed), speed  # 820 +- 60
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    kit.go_to_tab(page, "Chat")
    drawn(page)
    more_rows(page, run, 5)
    assert drawn(page) == set()
    kit.go_to_tab(page, "Train")
    wait_until(lambda: step_at(page, 0.999) == run.step)
    watch.check()
    page.context.close()


def test_the_numbers_of_the_curves_are_written_as_the_page_s_language_does(
    chrome: Browser, app: kit.App, run: ScriptedRun
):
    """Seen: 1.234 beside the sentences of a German page; the axes had the browser's language, whatever the page's."""
    page, watch = kit.open_page(chrome, app, "/?lang=de")
    kit.expect(page.locator("#live-chart .lc-legend b").nth(1)).to_have_text(re.compile(r"^\d,\d+$"))
    label = page.locator("#live-chart .lc-plot").get_attribute("aria-label") or ""
    assert re.search(r"\d,\d", label) and not re.search(r"\d\.\d", label), label
    watch.check()
    page.context.close()
