"""In a real browser: runs that were cut off, train further, a second start on one workspace. Scripted run folders, no
model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from core.messages import msg
from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun, trained
from tests.kit.waits import wait_until
from webui.kit import format
from webui.kit.wording import Wording

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
EN, ZH = ("en", kit.DESKTOP), ("zh", kit.PHONE)


def cut_off(workspace: Workspace, name: str, step: int, saved: int | None) -> RunFolder:
    with ScriptedRun(workspace, name) as scripted:
        scripted.to(State.RUNNING).train(step)
        if saved:
            scripted.save(saved)
    return scripted.run


def has_ended(run: RunFolder) -> None:
    """As somebody stops it elsewhere, while its worker waits for the device (before that a later attempt is taken back,
    and is paused)."""
    wait_until(lambda: run.status().state in (State.PREPARING, State.FAILED), 60)
    run.request("stop")
    wait_until(lambda: run.status().state in (State.STOPPED, State.FAILED), 60)


@pytest.mark.parametrize(
    ("language", "viewport"), [EN, pytest.param(*ZH, marks=pytest.mark.full)], ids=["en-desktop", "zh-phone"]
)
def test_runs_that_were_cut_off_are_offered_above_everything(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict
):
    older = cut_off(workspace, "older one", 30, 20)
    newer = cut_off(workspace, "newer one", 12, None)
    trained(workspace, "the newest")  # what the page tells of
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    banner = page.locator("#left-runs")
    kit.expect(banner).to_contain_text("older one")
    kit.expect(banner).to_contain_text(
        "was interrupted at step 30 and is saved at step 20. Steps to repeat: 10."
        if language == "en"
        else "在第 30 步中断；保存在第 20 步。会重新训练的步数：10。"
    )
    begun = format.moment(Wording(language), older.facts().created)  # two may have one name
    kit.expect(banner.locator("li", has_text="older one")).to_contain_text(begun)
    kit.expect(page.locator("#left-runs-which label", has_text="older one")).to_contain_text(begun)
    kit.expect(page.locator("#run-card")).to_contain_text("the newest")
    kit.assert_accessible(page)
    kit.choose(page, "#left-runs-which", newer.id)
    page.locator("#left-runs-leave").click()
    kit.expect(banner).not_to_contain_text("newer one")
    kit.expect(page.locator("#left-runs-which")).to_be_hidden()  # one is left: no question which
    page.reload()
    kit.expect(banner).to_contain_text("older one")
    kit.expect(banner).not_to_contain_text("newer one")
    with lease.hold(workspace, msg("lease.somebody")):  # the worker waits for the device: only the asking is looked at
        page.locator("#left-runs-go-on").click()
        wait_until(lambda: older.status().attempt == 2, 20)
        kit.expect(banner).to_be_hidden()
        has_ended(older)
    kit.expect(banner).to_be_hidden()
    watch.check()
    page.context.close()


@pytest.mark.parametrize(
    ("language", "viewport"), [pytest.param(*EN, marks=pytest.mark.full), ZH], ids=["en-desktop", "zh-phone"]
)
def test_train_further_fills_the_form_names_the_run_and_can_be_undone(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict, full: bool
):
    parent = trained(workspace, "海盗 <b>x</b>")
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    kit.expect(page.locator("#further")).to_be_hidden()
    if viewport == kit.PHONE:
        a_run_that_is_over_is_a_short_card_and_the_form_is_in_reach(page)
    if full:  # of what the page does by itself; an idle PC needs a third of it
        assert page.evaluate("shifts.reduce((sum, each) => sum + each, 0)") <= 0.05
    page.locator("#run-further").click()
    kit.expect(page.locator("#further-message")).to_contain_text("海盗 <b>x</b>")
    kit.expect(page.locator("#further-message")).to_contain_text("60")
    kit.expect(kit.part(page, "train")).to_contain_text("海盗 <b>x</b> · 2")
    kit.expect(kit.part(page, "plan")).to_contain_text("8")
    kit.assert_accessible(page)
    kit.unfold(page, "#step-plan")
    page.locator("#rank").evaluate(
        "rank => rank.addEventListener('change', event => { rank.dataset.chosen = event.target.value; })"
    )
    page.locator("#rank input[value='16']").click()
    kit.expect(page.locator("#rank[data-chosen='16']")).to_have_count(1)  # and how long it stands depends on the server
    kit.expect(page.locator("#rank input[value='8']")).to_be_checked()  # it belongs to the adapter that is there
    page.locator("#further-undo").click()
    kit.expect(page.locator("#further")).to_be_hidden()
    kit.choose(page, "#rank", "16")
    kit.expect(kit.part(page, "plan")).to_contain_text(re.compile("(rank|秩) 16"))
    kit.go_to_tab(page, {"en": "Runs", "zh": "训练记录"}[language])
    page.locator("#runs-list label").first.click()
    page.locator("#details-further").click()
    kit.expect(page.locator("#further-message")).to_contain_text("海盗 <b>x</b>")
    kit.expect(kit.part(page, "plan")).to_contain_text(re.compile("(rank|秩) 8"))
    another_base_is_said_above_the_form(page)
    with lease.hold(workspace, msg("lease.somebody")):
        page.locator("#start").click()
        child = wait_until(lambda: next((run for run in Runs(workspace).list() if run.id != parent.id), None), 30)
        assert child.facts().parent.run == parent.id and child.recipe().adapter.r == 8
        assert (child.path / "start" / "adapter_model.safetensors").exists()
        kit.expect(page.locator("#run-card")).to_contain_text("海盗 <b>x</b> · 2")
        kit.unfold(page, "#run-settings-fold")
        kit.expect(page.locator("#run-settings")).to_contain_text("海盗 <b>x</b>")  # what it continues from
        has_ended(child)
    kit.expect(page.locator("#form-column")).to_be_visible()
    kit.expect(page.locator("#further")).to_be_hidden()  # the next Start continues nothing
    watch.check()
    page.context.close()


def another_base_is_said_above_the_form(page: Page) -> None:
    """Seen: "fix the problem above" where none was to be seen, with the names of two models in one line."""
    kit.unfold(page, "#step-model")
    base = page.locator("#model input")
    before = base.input_value()
    base.fill("owner/another")
    base.press("Enter")
    kit.expect(page.locator("#further-message .lg-notice")).to_contain_text("owner/another")
    base.fill(before)
    base.press("Enter")
    kit.expect(page.locator("#further-message .lg-notice")).to_have_count(0)


def a_run_that_is_over_is_a_short_card_and_the_form_is_in_reach(page: Page) -> None:
    """Seen: three screens of it stood above the form."""
    chart = page.locator("#live-chart")
    kit.expect(page.locator("#start-head")).to_be_in_viewport()
    kit.expect(page.locator("#start")).to_be_in_viewport(ratio=1)
    kit.expect(chart).to_be_hidden()
    page.locator("#run-unfold button").click()
    kit.expect(chart).to_be_visible()
    page.locator("#run-unfold button").click()
    kit.expect(chart).to_be_hidden()


def test_what_cannot_be_trained_further_is_said(chrome: Browser, app: kit.App, workspace: Workspace):
    parent = trained(workspace, "spoilt")
    (parent.adapter / "adapter_model.safetensors").write_bytes(b"half of it")
    page, watch = kit.open_page(chrome, app)
    page.locator("#run-further").click()
    kit.expect(page.locator("#run-notice")).to_contain_text("The adapter of “spoilt” cannot be trained further")
    kit.expect(page.locator("#further")).to_be_hidden()
    watch.check()
    page.context.close()


@pytest.mark.spawn
def test_a_second_start_opens_the_page_of_the_first_and_ends(app: kit.App, workspace: Workspace):
    """On the same port, as a person who starts it twice does; the browser is a program that writes down what it was
    given."""
    environment = os.environ | {
        "BROWSER": f"{sys.executable} -c 'import sys; print(\"opened\", sys.argv[1])' %s",
        "LORA_GARAGE_LANG": "en",
    }
    command = [sys.executable, "-m", "webui", "--port", str(app.port), "--workspace", str(workspace.root)]
    second = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert second.returncode == 0, second.stderr
    assert f"already open on this workspace: {app.url}/" in second.stdout and f"opened {app.url}/" in second.stdout
    quiet = subprocess.run(
        [*command, "--no-browser"], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert quiet.returncode == 0 and app.url in quiet.stdout and "opened" not in quiet.stdout
    assert app.process.poll() is None
