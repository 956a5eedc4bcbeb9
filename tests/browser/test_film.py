"""The film in a real browser, on a scripted run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from core.runs import sample_answers
from core.runs.sample_answers import Frame, FrameAnswer
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.film import EVIL, film_of
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture
def run(workspace: Workspace) -> Iterator[ScriptedRun]:
    with ScriptedRun(workspace, "Filmed", total_steps=100) as run:
        run.to(State.RUNNING).train(60)
        film_of(run.run, 0, 20, 40)
        yield run


def answer(page: Page, film: str, place: int = 0) -> str:
    return page.locator(f"{film} .fs-scene").nth(place).locator(".fs-now .fs-words").inner_text()


def test_the_strip_is_scrubbed_by_key_and_by_click_and_runs_nothing_of_what_was_answered(
    chrome: Browser, app: kit.App, run: ScriptedRun
) -> None:
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    film = "#live-film"
    scrubber = page.locator(f"{film} .fs-range")
    kit.expect(page.locator(f"{film} .fs-answers li")).to_have_count(3, timeout=30_000)
    page.evaluate("window.marked = []; addEventListener('lg-film-step', event => marked.push(event.detail.step))")
    for step in (40, None, 40):  # the chart marks a step only while the whole film is unfolded
        page.locator(f"{film} .fs-all summary").click()
        page.wait_for_function("step => marked.at(-1) === step", arg=step)
    kit.expect(scrubber).to_be_visible(timeout=30_000)
    kit.expect(page.locator(f"{film} .fs-frame")).to_have_count(3)
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 40")
    kit.expect(page.locator(f"{film} .fs-meter")).to_have_text(
        "General text: loss 3.21 → 3.35, 4 % worse: a little forgotten."
    )
    assert answer(page, film) == "Arr, matey! Step 40 be bright. Yo-ho-ho!"
    assert EVIL in answer(page, film, 1) and page.locator(f"{film} img, {film} .fs-scenes script").count() == 0
    assert page.locator(f"{film} .fs-scene").count() == 3, "the one that never had time for its answer is not shown"
    kit.expect(page.locator(f"{film} .fs-unanswered")).to_contain_text("Not answered: 1 of 4 questions.")

    scrubber.focus()
    page.keyboard.press("ArrowLeft")
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 20")
    assert scrubber.get_attribute("aria-valuetext") == "Evaluation 2 of 3, step 20"
    assert answer(page, film) == "A lantern is a device that gives light."
    page.keyboard.press("Home")
    kit.expect(page.locator(f"{film} .fs-meter")).to_contain_text("loss 3.21 before training")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0

    film_of(run.run, 60)
    kit.expect(page.locator(f"{film} .fs-frame")).to_have_count(4)
    # whoever looks at an old frame goes on looking at it
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 0")
    page.locator(f"{film} .fs-frame").last.click()
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 60")
    kit.expect(page.locator(f"{film} .fs-meter")).to_have_class("fs-meter fs-warn")
    film_of(run.run, 80)
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 80")  # the newest is followed
    kit.assert_accessible(page)

    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label").first.click()
    kit.open_details(page.locator("#details-film .fs-all"))
    kit.expect(page.locator("#details-film .fs-frame")).to_have_count(5, timeout=30_000)
    assert page.evaluate("window.ran") is None
    # Where nothing was answered: while the run is at work that is no verdict on it, and there is more to come.
    kit.go_to_tab(page, "Train")
    sample_answers.append(run.run, Frame(step=0, answers=(FrameAnswer(text="", why="time"),) * 4))
    kit.expect(page.locator(f"{film} .fs-unanswered")).to_contain_text("Every evaluation still to come tries again")
    kit.expect(page.locator(f"{film} .fs-strip")).to_be_hidden()
    run.to(State.STOPPED)
    kit.expect(page.locator(f"{film} .fs-unanswered")).to_contain_text("this run was too short")
    wait_until(lambda: kit.overflow(page) <= 0, 10)
    watch.check()
    page.context.close()
