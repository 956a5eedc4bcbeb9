"""The queue in a real browser: shown, reordered, timed, taken out, held; planned for beside a run. A restart keeps it:
test_page."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.advice import plan
from core.messages import msg
from core.queue.queue import Hold, Queue
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import Status
from core.runs.states import State
from core.workspace import lease, preferences
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
ALL_DAY = "0:00-12:00, 12:00-0:00"


def waiting(workspace: Workspace, *names: str) -> dict[str, str]:
    """Their ids by their names."""
    ids = {}
    for seed, name in enumerate(names):
        value = {"name": name, "data": {"source": "sample:pirate_answers"}, "train": {"seed": seed}}
        ids[name] = Runs(workspace).create(plan.resolve(Recipe.parse(value), name, False), "app").id
    return ids


def order(page: Page) -> str:
    """First letters of the runs in the queue as they are shown."""
    lines = page.locator("#queue-list label").all_inner_texts()
    return "".join(re.sub(r"^\d+ · ", "", line.strip())[:1] for line in lines)


def test_the_line_is_shown_moved_timed_held_and_planned_for(chrome: Browser, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "workspace")
    app = kit.start_app(workspace.root)
    try:
        with ScriptedRun(workspace, "at work") as run:
            run.to(State.RUNNING).train(20, seconds_left=1500)
            ids = waiting(workspace, "alpha", "beta", "gamma")
            page, watch = kit.open_page(chrome, app)
            kit.expect(page.locator("#queue-next")).to_contain_text(
                "“alpha” starts when “at work” completes", timeout=20_000
            )
            wait_until(lambda: order(page) == "abg")
            kit.choose(page, "#queue-list", ids["gamma"])
            page.locator("#queue-up").click()
            wait_until(lambda: order(page) == "agb")
            page.locator("#queue-up").click()
            wait_until(lambda: order(page) == "gab")
            page.locator("#queue-down").click()
            wait_until(lambda: order(page) == "agb")
            page.locator("#queue-time input").fill("late")
            page.locator("#queue-set").click()
            kit.expect(page.locator("#queue-notice")).to_contain_text("“late” is not a time of day")
            page.locator("#queue-time input").fill("23:59")
            page.locator("#queue-set").click()
            kit.expect(page.locator("#queue-list label", has_text="gamma")).to_contain_text("not before")
            page.locator("#queue-hold").click()
            kit.expect(page.locator("#queue-says")).to_contain_text("You paused the queue")
            kit.assert_accessible(page)

            chinese, other_watch = kit.open_page(chrome, app, "/zh?lang=zh", viewport=kit.PHONE)
            kit.expect(chinese.locator("#queue-says")).to_contain_text("你暂停了队列", timeout=20_000)
            assert order(chinese) == "agb" and kit.violations(chinese) == [] and kit.overflow(chinese) <= 0
            kit.choose(chinese, "#queue-list", ids["alpha"])
            chinese.locator("#queue-out").click()
            kit.expect(chinese.locator("#queue-notice")).to_contain_text("“alpha”已移出队列")
            wait_until(lambda: order(page) == "gb")  # the other page sees it too
            page.locator("#queue-go-on").click()
            kit.expect(page.locator("#queue-says-card")).to_be_hidden()

            page.locator("#plan-next").click()
            kit.expect(page.locator("#plan-says")).to_contain_text("“at work” is training")
            kit.choose(page, "#data", "sample:pirate_answers")
            kit.expect(page.locator("#start")).to_have_text("Add to the queue", timeout=20_000)
            assert kit.violations(page) == []
            page.locator("#start").dblclick()
            kit.expect(page.locator("#run-notice")).to_contain_text("is in the queue", timeout=20_000)
            kit.expect(page.locator("#form-column")).to_be_hidden()
            wait_until(lambda: order(page) == "gbP")

            kit.go_to_tab(page, "Settings")
            kit.expect(page.locator("#auto-doubt")).to_contain_text(re.compile("only scheduled hours|$"))
            page.locator("#auto-hours input").fill("evenings")
            page.locator("#auto-save").click()
            kit.expect(page.locator("#auto-notice")).to_contain_text("“evenings” is not a time range")
            page.locator("#auto-hours input").fill(ALL_DAY)
            page.locator("#auto-awake input").uncheck()
            page.locator("#auto-save").click()
            kit.expect(page.locator("#auto-notice")).to_contain_text("Saved")
            kit.expect(page.locator("#auto-hours input")).to_have_value("00:00-12:00, 12:00-00:00")
            chosen = preferences.read(workspace).automation
            assert not chosen.keep_awake
            run.to(State.COMPLETED)
        kit.go_to_tab(page, "Train")
        kit.expect(page.locator("#queue-says")).to_contain_text("Training is off during these hours", timeout=20_000)
        kit.expect(page.locator("#queue-anyway")).to_be_visible()
        kit.expect(page.locator("#start")).to_be_visible()
        wait_until(lambda: order(page) == "gbP")
        watch.check()
        other_watch.check()
        states = {run.status().state for run in Runs(workspace).list()}
        assert states == {State.COMPLETED, State.STOPPED, State.QUEUED}, "nothing has begun"
        page.context.close()
        chinese.context.close()
    finally:
        app.stop()


def test_the_run_whose_place_another_took_keeps_a_link_to_its_result(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    """Seen: the next run of the queue began, and the result of the one before was nowhere on the page."""
    with ScriptedRun(workspace, "first") as first, ScriptedRun(workspace, "second") as second:
        first.to(State.RUNNING).train(20).to(State.COMPLETED, msg("run.completed", step=20))
        second.to(State.RUNNING).train(5)
        page, watch = kit.open_page(chrome, app)
        kit.expect(page.locator("#run-card")).to_contain_text("second")
        kit.assert_accessible(page, "ended")
        page.locator("#run-ended", has_text="“first” has ended").click()
        kit.expect(page.locator("#details-card")).to_contain_text("first")
        kit.go_to_tab(page, "Train")
        page.set_viewport_size(kit.PHONE)
        page.locator("#plan-next").click()
        kit.expect(page.locator("#start")).to_have_css("position", "static")  # seen: above the curves
        page.set_viewport_size(kit.DESKTOP)
        second.to(State.COMPLETED)
    with ScriptedRun(workspace, "much later") as third:
        third.to(State.RUNNING)
        kit.go_to_tab(page, "Train")
        kit.expect(page.locator("#run-card")).to_contain_text("much later")
        kit.expect(page.locator("#run-ended")).to_be_hidden()  # it waited for none
    watch.check()
    page.context.close()


def test_a_paused_run_is_resumed_from_the_first_screen_and_comes_before_the_queue(
    chrome: Browser, workspace: Workspace, app: kit.App
) -> None:
    """Resume lay below a card as tall as the form, the header said that nothing trains, and the run behind began
    instead."""
    line = Queue(workspace)
    line.put(hold=Hold(why="person", since=time.time()))  # until all of it is there
    with lease.hold(workspace, msg("lease.somebody")), ScriptedRun(workspace, "lantern", launcher="app") as paused:
        paused.to(State.RUNNING).train(25).save(25)
        paused.to(State.PAUSED)
        behind = Runs(workspace).get(waiting(workspace, "behind")["behind"])
        line.put(hold=Hold(why="paused", since=time.time(), run=paused.run.id))
        page, watch = kit.open_page(chrome, app)
        kit.expect(page.locator("#header-status")).to_contain_text(re.compile("paused.*lantern.*25 %"))
        resume = page.get_by_role("button", name="Resume", exact=True).first
        kit.expect(resume).to_be_in_viewport(ratio=1)
        kit.expect(page.locator("#queue-go-on")).to_have_text("Start the next run instead")
        kit.assert_accessible(page, "queue-awaited")
        # A process that is not quite gone keeps the press waiting with the queue locked, until the supervisor has
        # listed who waits:
        # it interrupts what has no process just before, or it stands at the lock already.
        resume.click()
        wait_until(lambda: line.read().hold is None)
        gone = ScriptedRun(workspace, "gone").to(State.RUNNING).run
        with suppress(AssertionError):
            wait_until(lambda: gone.status().state == State.INTERRUPTED, 1)
        paused._lock.release()
        begun = wait_until(lambda: [run for run in (paused.run, behind) if run.status().state == State.PREPARING], 120)
        assert begun == [paused.run]
        kit.expect(page.locator("#queue-says-card")).to_be_hidden()
        assert order(page) == "b"
        for run in (behind, paused.run):
            run.request("stop")
        wait_until(lambda: {run.status().state for run in (behind, paused.run)} == {State.STOPPED}, 120)
        watch.check()
    page.context.close()


def test_a_choice_that_has_gone_is_said_and_no_other_run_is_taken_for_it(
    chrome: Browser, workspace: Workspace, app: kit.App
) -> None:
    with ScriptedRun(workspace, "at work") as run:
        run.to(State.RUNNING).train(5)
        ids = waiting(workspace, "alpha", "beta")
        page, watch = kit.open_page(chrome, app)
        kit.expect(page.locator("#queue-list label")).to_have_count(2)
        kit.choose(page, "#queue-list", ids["alpha"])
        alpha, beta = (Runs(workspace).get(ids[name]) for name in ("alpha", "beta"))
        alpha.write_status(Status(state=State.STOPPED, stage="waiting"))  # as a command beside the app does
        kit.expect(page.locator("#queue-list label")).to_have_count(1)
        page.locator("#queue-out").click()
        kit.expect(page.locator("#queue-notice")).to_contain_text("alpha is not in the queue")
        assert beta.status().state == State.QUEUED
        page.locator("#queue-out").click()  # now the only one is meant
        kit.expect(page.locator("#queue-notice")).to_contain_text("“beta” was removed from the queue")
        wait_until(lambda: beta.status().state == State.STOPPED)
        watch.check()
    page.context.close()
