"""The run beside the form and the list of runs in a real browser: what is shown of a run that is over, and where the
focus goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from core.advice import plan
from core.messages import msg
from core.queue.queue import Hold, Queue
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun, ended, trained

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


def opened_at_the_top(page: Page, part: str) -> None:
    page.wait_for_function(f"document.activeElement.id === '{part}'", timeout=20_000)
    page.wait_for_function(  # what stands around it is drawn in the next moments
        """part => {
            const top = document.getElementById(part).getBoundingClientRect().top;
            const isAtTheEnd = scrollY + innerHeight > document.documentElement.scrollHeight - 1;
            return top >= 0 && top < (isAtTheEnd ? 450 : 300);
        }""",
        arg=part,
        timeout=10_000,
    )


def test_a_run_removed_from_the_queue_is_told_as_one_that_never_was(
    chrome: Browser, workspace: Workspace, app: kit.App
) -> None:
    """It became the run beside the form, green, with curves that would appear “when training starts”."""
    trained(workspace, "lantern")
    Queue(workspace).put(hold=Hold(why="person", since=time.time()))
    recipe = Recipe.parse({"name": "removed", "data": {"source": "sample:pirate_answers"}})
    removed = Runs(workspace).create(plan.resolve(recipe, "removed", False), "app")
    page, watch = kit.open_page(chrome, app)
    page.locator("#queue-out").click()
    kit.expect(page.locator("#queue")).to_be_hidden()
    kit.expect(page.locator("#run-card h2")).to_have_text("lantern")
    kit.go_to_tab(page, "Runs")
    page.locator(f"#runs-list input[value='{removed.id}']").click()
    kit.expect(page.locator("#details-card .lg-outcome")).to_have_text("Removed from the queue before it started.")
    kit.expect(page.locator("#details-card .lg-ok")).to_have_count(0)
    kit.expect(page.locator("#details-chart .lc-note")).to_have_text(
        "No curves: this run has not trained a single step."
    )
    watch.check()
    page.context.close()


@pytest.mark.gate
def test_a_stopped_run_is_set_up_again_in_a_press_and_the_form_is_in_view(
    chrome: Browser, workspace: Workspace, app: kit.App
) -> None:
    with ScriptedRun(workspace, "lantern") as run:
        run.to(State.RUNNING).train(30).to(State.STOPPED, msg("run.stopped_kept", step=30))
    page, watch = kit.open_page(chrome, app)
    kit.expect(page.locator("#live-chart .lc-plot canvas")).to_be_visible()
    page.locator("#run-again").press("Enter")
    opened_at_the_top(page, "form-column")
    kit.expect(page.locator("#start")).to_be_in_viewport(ratio=1)
    kit.expect(kit.part(page, "data")).to_contain_text("Pirate answers")
    kit.expect(page.locator("#further")).to_be_hidden()
    kit.assert_accessible(page, "run-again")
    watch.check()
    page.context.close()


def test_what_a_button_opens_is_shown_from_its_top(chrome: Browser, workspace: Workspace, app: kit.App) -> None:
    """“Chat with it” and “Continue training” kept the place in the page, which was in the middle of something else."""
    trained(workspace, "lantern")
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    page.locator("#run-open-chat").click()
    opened_at_the_top(page, "tab-chat")
    kit.go_to_tab(page, "Runs")
    page.locator("#details-chat").click()
    opened_at_the_top(page, "tab-chat")
    kit.go_to_tab(page, "Train")
    page.locator("#plan-next").click()
    opened_at_the_top(page, "form-column")
    page.locator("#run-further").click()
    opened_at_the_top(page, "further")
    watch.check()
    page.context.close()


def test_start_hands_the_focus_to_the_run_and_says_what_it_does_once_that_is_over(
    chrome: Browser, workspace: Workspace, app: kit.App
) -> None:
    """The focus fell to the page's beginning, and “Add to the queue” stayed after the run had ended."""
    page, watch = kit.open_page(chrome, app)
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.expect(page.locator("#start")).to_have_text("Start training")
    page.locator("#start").focus()
    with kit.made_by_start(page, workspace):
        page.wait_for_function("document.activeElement.id === 'run-box'")
        page.set_viewport_size(kit.PHONE)  # the run takes half of it; seen: the form lay below
        page.locator("#plan-next").press("Enter")
        page.wait_for_function("document.activeElement.id === 'form-column'")
        page.wait_for_function("document.activeElement.getBoundingClientRect().top < innerHeight / 4")
        kit.expect(page.locator("#start")).to_have_text("Add to the queue")
    kit.expect(page.locator("#start")).to_have_text("Start training")
    watch.check()
    page.context.close()


def test_a_new_run_does_not_have_the_sentence_of_the_one_before(
    chrome: Browser, workspace: Workspace, app: kit.App
) -> None:
    """Screen readers were given the losses of the previous run until the new one had some."""
    page, watch = kit.open_page(chrome, app)
    spoken = page.locator("#live-chart .lc-spoken")
    with ScriptedRun(workspace, "first") as run:
        run.to(State.RUNNING).train(20)
        kit.expect(spoken).to_contain_text("At step 20")
        run.to(State.COMPLETED)
    with ScriptedRun(workspace, "second") as run:
        run.to(State.PREPARING)
        kit.expect(page.locator("#run-card h2")).to_have_text("second")
        kit.expect(spoken).to_have_text("")
        run.to(State.RUNNING).to(State.COMPLETED)
    watch.check()
    page.context.close()


def test_a_phone_shows_half_a_dozen_runs_at_once(chrome: Browser, workspace: Workspace, app: kit.App) -> None:
    """Two rows were in view, each of seven lines."""
    for name in "abcdefgh":
        ended(workspace, name, 20)
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    kit.go_to_tab(page, "Runs")
    rows = page.locator("#runs-list tbody tr")
    kit.expect(rows).to_have_count(8)
    frame = page.locator("#runs-list .rt-scroll").first.bounding_box()
    boxes = [row.bounding_box() for row in rows.all()]
    assert sum(box["y"] + box["height"] <= frame["y"] + frame["height"] for box in boxes) >= 5, (frame, boxes)
    kit.assert_accessible(page, "runs-phone")
    watch.check()
    page.context.close()
