"""The page in a real browser, on scripted run folders: quick, and without any model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.data.store import DatasetStore
from core.messages import msg
from core.presets import PRESETS
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import Parent
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.browser.test_queue import order, waiting
from tests.kit import browser as kit
from tests.kit import gate
from tests.kit.runs import ScriptedRun, ended, trained
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page, Request, Route

pytestmark = pytest.mark.browser
LOOKS = [("en", kit.DESKTOP), ("zh", kit.PHONE), ("de", kit.PHONE)]
PAGES = {
    "en": ("/?lang=en", ("Train", "Chat", "Data", "Runs", "Evaluate", "Models", "Settings", "Help")),
    "zh": ("/?lang=zh", ("训练", "对话", "数据", "训练记录", "评估", "模型", "设置", "帮助")),
    "de": ("/?lang=de", ("Training", "Chat", "Daten", "Läufe", "Auswerten", "Modelle", "Optionen", "Hilfe")),
}


def curve(page: Page, chart: str = "#live-chart") -> str:
    """What the chart says of itself: its newest step and numbers."""
    return page.locator(f"{chart} .lc-plot").get_attribute("aria-label") or ""


# ---- looks ---------------------------------------------------------------------------------------


@pytest.mark.gate
@pytest.mark.parametrize(
    ("language", "viewport"),
    [
        ("zh", kit.PHONE),
        *(pytest.param(*look, marks=pytest.mark.full) for look in (LOOKS[0], ("en", kit.PHONE), ("zh", kit.DESKTOP))),
    ],
    ids=["zh-phone", "en-desktop", "en-phone", "zh-desktop"],
)
def test_empty_pages_are_accessible_quiet_and_fit(
    chrome: Browser, app: kit.App, language: str, viewport: dict, full: bool
):
    path, tabs = PAGES[language]
    page, watch = kit.open_page(chrome, app, path, viewport=viewport)
    assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[language]
    # gradio would go through the whole page at each event of those that show no progress anyway.
    silent = "gradio_config.dependencies.filter((one) => one.backend_fn && one.show_progress === 'hidden')"
    assert page.evaluate(f"{silent}.map((one) => one.show_progress_on).filter((targets) => targets === null)") == []
    for tab in tabs:
        kit.go_to_tab(page, tab)
        if full:
            kit.assert_accessible(page)
        else:  # the dark look of each tab: the page of a run at work, below
            assert kit.violations(page) == [] and kit.overflow(page) <= 0
    watch.check()
    page.context.close()


@pytest.mark.gate
def test_used_pages_are_accessible_in_light_and_dark(chrome: Browser, app: kit.App, workspace: Workspace, full: bool):
    ended(workspace, "whole", 60)
    with ScriptedRun(workspace, "海盗 <b>x</b>", train={"objective": "dpo", "beta": 0.1}) as broken:
        broken.to(State.RUNNING).train(30, nonfinite_at=30)
        broken.to(State.FAILED, msg("run.not_finite", step=30, loss="nan", grad_norm="inf"), msg("advice.not_finite"))
    (broken.run.path / "train.log").write_text("Traceback <script>alert(1)</script>\n", "utf-8")
    page, watch = kit.open_page(chrome, app)
    card = page.locator("#run-card")
    kit.expect(card).to_contain_text("海盗 <b>x</b>")
    kit.expect(card).to_contain_text("What to try:")
    kit.expect(page.locator("#live-chart .lc-note")).to_contain_text("NaN or infinite at step 30")
    kit.expect(card).to_contain_text("DPO")
    # three of pairs beside those of every run
    kit.expect(page.locator("#live-chart .lc-small:not([hidden])")).to_have_count(7)
    said = (
        page.locator("#live-chart .lc-small", has_text="Log-probability").locator(".lc-box").get_attribute("aria-label")
        or ""
    )
    assert "better −31.2" in said and "worse −43" in said and "At step 29" in said
    kit.unfold(page, "#run-settings-fold")
    kit.unfold(page, "#run-story-fold")
    card.locator("summary").click()
    kit.expect(card.locator("pre")).to_contain_text("<script>alert(1)</script>")
    nothing_found_in_both_sizes(page, full)
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label", has_text="whole").click()
    kit.expect(page.locator("#details-card")).to_contain_text("Completed after 60 steps")
    wait_until(lambda: "step 60" in curve(page, "#details-chart").lower())
    nothing_found_in_both_sizes(page, full)
    watch.check()
    page.context.close()


def test_what_was_chosen_in_chat_and_deleted_since_is_said(chrome: Browser, app: kit.App, workspace: Workspace):
    """Seen: the field empty, and at whatever was pressed gradio's "is not in the list of choices", in English."""
    chosen, second, newest = (trained(workspace, name) for name in ("chosen", "second", "newest"))
    page, watch = kit.open_page(chrome, app)
    target, notice, other = (
        page.locator("#chat-target input"),
        page.locator("#chat-notice"),
        page.locator("#chat-second-run input"),
    )
    kit.go_to_tab(page, "Chat")

    def choose(field: Locator, name: str) -> None:
        field.click()
        page.get_by_role("option", name=re.compile(name)).first.click()
        kit.expect(field).to_have_value(re.compile(name))

    def delete(run: RunFolder, field: Locator) -> None:
        Runs(workspace).delete(run)  # as a command, or another window
        kit.expect(field).to_have_value("")

    choose(target, "chosen")
    kit.go_to_tab(page, "Train")
    Runs(workspace).delete(chosen)
    kit.go_to_tab(page, "Chat")
    kit.expect(target).to_have_value(re.compile("newest"))
    offer = "now => loraGarageDuel.offered(now, 'run:newest\\nrun:chosen') ?? null"
    assert page.evaluate(offer, "run:chosen") == "run:newest"
    assert page.evaluate(offer, "run:second") is None, "chosen since, while the offer was on its way"
    choose(target, "newest")
    kit.unfold(page, "#chat-settings")
    choose(other, "second")
    delete(second, other)
    page.locator("#chat-message textarea").fill("Hello?")
    page.locator("#chat-send").click()
    kit.expect(notice).to_contain_text("The second adapter that was chosen is no longer here")
    choose(other, "none")
    delete(newest, target)
    page.locator("#chat-load").click()
    kit.expect(notice).to_contain_text("The model that was chosen is no longer here")
    kit.expect(page.locator("#chat-message textarea")).to_have_value("Hello?")
    choose(target, "base")
    kit.expect(notice).to_be_hidden()
    watch.check()
    page.context.close()


def an_export_is_told_of_the_run_that_is_opened(page: Page, larger: RunFolder) -> None:
    """Seen: what the run before it needs stayed beside another."""
    (larger.adapter / "more.bin").write_bytes(bytes(7_000_000))
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label", has_text="newest").click()
    kit.expect(page.locator("#details-card")).to_contain_text("newest")
    page.locator("#export-where input[value=garage]").click()
    about = page.locator("#export-about")
    kit.expect(about).to_be_visible()
    kit.expect(about).not_to_contain_text("7 MB")
    for name, is_larger in (("older", True), ("newest", False)):
        page.locator("#runs-list label", has_text=name).click()
        (kit.expect(about).to_contain_text if is_larger else kit.expect(about).not_to_contain_text)("7 MB")


def nothing_found_in_both_sizes(page: Page, full: bool) -> None:
    """Colours do not follow the size: the dark look is asked for once, and axe on a phone in the long form."""
    page.set_viewport_size(kit.PHONE)
    assert kit.overflow(page) <= 0
    if full:
        assert kit.violations(page) == []
    page.set_viewport_size(kit.DESKTOP)
    kit.assert_accessible(page)


@pytest.mark.parametrize(
    ("language", "viewport"),
    [pytest.param(*LOOKS[0], marks=pytest.mark.full), LOOKS[1], pytest.param(*LOOKS[2], marks=pytest.mark.full)],
    ids=["en-desktop", "zh-phone", "de-phone"],
)
def test_every_page_is_accessible_while_a_run_is_at_work_and_after_it(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path, language: str, viewport: dict
):
    (tmp_path / "mine.jsonl").write_text('{"question": "Who?", "answer": "Me."}\n', "utf-8")
    DatasetStore(workspace.datasets, PRESETS, workspace.library_folders).import_file(tmp_path / "mine.jsonl", "mine")
    path, tabs = PAGES[language]
    with ScriptedRun(workspace, "at work") as run:
        run.to(State.RUNNING).train(20, seconds_left=1500)
        page, watch = kit.open_page(chrome, app, path, viewport=viewport)
        kit.expect(page.locator("#run-card")).to_contain_text("at work")
        nothing_found_on(page, tabs)
        kit.go_to_tab(page, tabs[-2])
        kit.expect(page.locator("#places")).to_be_visible()
        run.to(State.COMPLETED, msg("run.completed", step=20))
    kit.expect(page.locator("#form-column")).to_be_attached()
    kit.go_to_tab(page, tabs[0])
    kit.expect(page.locator("#form-column")).to_be_visible()
    nothing_found_on(page, tabs[:1])
    watch.check()
    page.context.close()


def nothing_found_on(page: Page, tabs: tuple[str, ...]) -> None:
    for tab in tabs:
        kit.go_to_tab(page, tab)
        if page.locator("#runs-list label").first.is_visible():
            page.locator("#runs-list label").first.click()
            kit.expect(page.locator("#details-card")).to_be_visible()
        kit.assert_accessible(page)


# ---- the form ------------------------------------------------------------------------------------


def test_start_says_what_is_missing_and_a_file_that_is_no_data_is_refused(
    chrome: Browser, app: kit.App, tmp_path: Path
):
    page, watch = kit.open_page(chrome, app)
    kit.unfold(page, "#step-plan")
    kit.unfold(page, "#all-settings")
    rate = page.locator("#setting-learning_rate input")
    rate.fill("5")
    rate.blur()
    kit.expect(page.locator("#start")).to_have_text("Can't start yet: fix the problem above")
    page.locator("#start").click()
    kit.expect(page.locator("#start-notice")).to_contain_text("learning_rate is 5")
    rate.fill("")
    rate.blur()
    kit.expect(page.locator("#start")).to_have_text("Start training")
    (tmp_path / "picture.jsonl").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    page.locator("#file input[type=file]").set_input_files(tmp_path / "picture.jsonl")
    kit.expect(page.locator("#file-notice")).to_contain_text("picture")
    assert kit.violations(page) == []
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.expect(page.locator("#file-notice")).to_be_hidden()
    a_file_of_ones_own_is_added_chosen_and_its_problems_told_by_row(page, tmp_path)
    keys_lead_through_the_page_and_a_sheet_lists_them(page)
    watch.check()
    page.context.close()


def keys_lead_through_the_page_and_a_sheet_lists_them(page: Page) -> None:
    page.keyboard.press("?")
    sheet = page.locator("#shortcuts-sheet")
    kit.expect(sheet).to_be_visible()
    assert kit.violations(page) == []
    page.keyboard.press("4")  # not under an open sheet
    page.keyboard.press("Escape")
    kit.expect(sheet).to_be_hidden()
    page.keyboard.press("m")
    kit.expect(page.locator("#chat-message textarea")).to_be_focused()
    page.keyboard.type("5?")
    kit.expect(page.locator("#chat-message textarea")).to_have_value("5?")
    page.locator("#shortcuts-open").click()
    sheet.locator("#shortcuts-on").uncheck()
    page.locator("#shortcuts-close").click()
    page.keyboard.press("1")
    kit.expect(page.locator("#chat-message")).to_be_visible()
    page.locator("#shortcuts-open").click()
    sheet.locator("#shortcuts-on").check()
    page.locator("#shortcuts-close").click()
    page.keyboard.press("1")
    page.keyboard.press("/")
    kit.expect(page.locator("#shelf-words").locator("input, textarea")).to_be_focused()


def a_file_of_ones_own_is_added_chosen_and_its_problems_told_by_row(page: Page, tmp_path: Path) -> None:
    rows = ['{"question": "Who?", "answer": "Me."}'] * 3 + ['{"question": "What?", "answer": ""}', "{broken"]
    (tmp_path / "Meine Fragen.jsonl").write_text(
        "\n".join(dict.fromkeys([*rows, '{"question": "How?", "answer": "So."}'])), "utf-8"
    )
    page.locator("#file input[type=file]").set_input_files(tmp_path / "Meine Fragen.jsonl")
    kit.expect(page.locator("#data-report")).to_contain_text("Row 2")
    kit.expect(page.locator("#data-report")).to_contain_text("2 of 4 rows")
    kit.expect(page.locator("button[data-set][aria-pressed=true]")).to_have_count(1)
    kit.expect(page.locator("#data label", has=page.locator("input:checked"))).to_contain_text("yours, 2 rows")


# ---- runs, as they go ----------------------------------------------------------------------------


def test_every_page_and_a_reload_show_the_same_run_live(chrome: Browser, app: kit.App, workspace: Workspace):
    with ScriptedRun(workspace, "live one") as run:
        run.to(State.RUNNING).train(20, seconds_left=1500)
        first, watch = kit.open_page(chrome, app)
        kit.expect(first.locator("#run-card")).to_contain_text("live one")
        kit.expect(first.locator("#run-card")).to_contain_text(re.compile(r"20 / 100\s*about 25 min left"))
        kit.expect(first.locator("#stop")).to_have_text("Stop and save")
        kit.expect(first.locator("#form-column")).to_be_hidden()
        wait_until(lambda: "step 20" in curve(first))
        kit.expect(first).to_have_title("20 % – live one · LoRA Garage")
        second, _ = kit.open_page(chrome, app, "/?lang=zh", viewport=kit.PHONE)
        kit.expect(second.locator("#run-card")).to_contain_text("live one")
        run.train(15)
        wait_until(lambda: "step 35" in curve(first) and "第 35 步" in curve(second))
        assert kit.violations(first) == [] and kit.overflow(second) <= 0
        first.reload()
        kit.expect(first.locator("#run-card")).to_contain_text("35 / 100")
        wait_until(lambda: first.locator(".lc-plot").count() and "step 35" in curve(first))
        run.to(State.STOPPING)
        kit.expect(first.locator("#stop")).to_have_text("Stopping and saving …")
        kit.expect(first.locator("#stop")).to_be_disabled()
        run.to(State.STOPPED, msg("run.stopped_kept", step=35))
        kit.expect(first.locator("#run-card")).to_contain_text("Stopped at step 35")
        kit.expect(first.locator("#stop")).to_be_hidden()
        kit.expect(first.locator("#form-column")).to_be_visible()
        kit.expect(second.locator("#run-card")).to_contain_text("第 35 步停止")
        kit.expect(second).to_have_title("已停止 – live one · LoRA Garage")
        watch.check()
        first.context.close()
        second.context.close()


def test_pause_and_stop_on_the_page_reach_the_run_and_a_paused_run_offers_to_go_on(
    chrome: Browser, app: kit.App, workspace: Workspace
):
    with ScriptedRun(workspace, "pause me") as run:
        run.to(State.RUNNING).train(5)
        page, watch = kit.open_page(chrome, app)
        asks_for_notifications(page)
        kit.expect(page.locator("#resume")).to_be_hidden()
        page.locator("#pause").click()
        wait_until(lambda: run.run.requested() == "pause")
        run.to(State.PAUSING)
        kit.expect(page.locator("#pause")).to_be_disabled()
        page.locator("#stop").click()  # stopping wins over pausing
        wait_until(lambda: run.run.requested() == "stop")
        run.to(State.PAUSED, msg("run.paused", step=5))
    kit.expect(page.locator("#run-card")).to_contain_text("Paused at step 5")
    kit.expect(page.locator("#resume")).to_be_visible()
    kit.expect(page.locator("#pause")).to_be_hidden()
    kit.expect(page).to_have_title("Paused – pause me · LoRA Garage")
    assert page.evaluate("[told.length, asked]") == [1, 1] and "Paused – pause me: Paused at step 5." in page.evaluate(
        "told[0]"
    )
    assert kit.violations(page) == []
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label").first.click()
    kit.expect(page.locator("#details-resume")).to_be_visible()
    watch.check()
    page.context.close()


def asks_for_notifications(page: Page) -> None:
    """Of a browser that would show them while another window is in front; it is asked when the switch is moved, not
    before."""
    page.add_init_script("""
        window.told = []; window.asked = 0; document.hasFocus = () => false;
        window.Notification = class { constructor(title, { body }) { told.push(`${title}: ${body}`); } };
        Notification.permission = "default";
        Notification.requestPermission = async () => { asked++; Notification.permission = "granted"; };
    """)
    page.reload()
    box = page.get_by_role("checkbox", name="Notify me when a run ends")
    assert page.evaluate("asked") == 0
    box.check()
    kit.expect(box).to_be_checked()


def test_the_chat_tab_offers_the_run_that_ended_since_and_keeps_what_a_person_chose(
    chrome: Browser, app: kit.App, workspace: Workspace
):
    """Seen: opened before the first run, it offered the base alone, one column, and a reload did not help."""
    page, watch = kit.open_page(chrome, app)
    target = page.locator("#chat-target input")
    kit.go_to_tab(page, "Chat")
    kit.expect(target).to_have_value(re.compile("base"))
    kit.go_to_tab(page, "Train")
    older = trained(workspace, "older")
    trained(workspace, "newest")
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label", has_text="older").click()
    kit.expect(page.locator("#details-card")).to_contain_text(
        "older"
    )  # until then the page shows the newest, and its button is that one's

    def tells_of_the_tab_first(route: Route) -> None:
        """As a browser now and then does: the tab is there, the model in the form is still the one before."""
        sent = route.request.post_data_json
        sent["data"][0] = "base:starter"
        route.continue_(post_data=json.dumps(sent))

    def arrives(request: Request) -> bool:
        data = (request.post_data_json or {}).get("data", []) if request.method == "POST" else []
        # A component's request has a dictionary there.
        return isinstance(data, list) and len(data) == 3 and str(data[0]).startswith(("run:", "base:"))

    page.route(
        "**/gradio_api/**", lambda route: tells_of_the_tab_first(route) if arrives(route.request) else route.continue_()
    )
    with page.expect_response(lambda response: arrives(response.request)):
        page.locator("#details-chat").click()
    kit.expect(target).to_have_value(re.compile("older"))
    page.unroute("**/gradio_api/**")
    kit.go_to_tab(page, "Train")
    kit.go_to_tab(page, "Chat")
    kit.expect(target).to_have_value(re.compile(older.name))
    page.reload()
    page.evaluate(gate.script())
    kit.go_to_tab(page, "Chat")
    kit.expect(target).to_have_value(re.compile("newest"))
    # seen: what the choice itself tells came after the tab's question, which undid it
    gate.close(page, "chat-target")
    target.click()
    page.get_by_role("option", name=re.compile("base")).first.click()
    kit.go_to_tab(page, "Train")
    kit.go_to_tab(page, "Chat")
    page.wait_for_function("() => gate.asked('tab-chat')")
    gate.answered(page, "tab-chat")
    kit.expect(target).to_have_value(re.compile("base"))
    gate.open(page, "chat-target")
    kit.expect(page.locator("#chat-checkpoint")).not_to_be_visible()
    kit.expect(target).to_have_value(re.compile("base"))
    kit.go_to_tab(page, "Train")  # a reload shows the page that is named by the address
    page.reload()
    page.evaluate(gate.script())
    kit.go_to_tab(page, "Chat")
    kit.expect(target).to_have_value(re.compile("newest"))
    kit.go_to_tab(page, "Train")
    gate.close(page, "tab-chat")  # an answer that comes after the choice does not undo it either
    kit.go_to_tab(page, "Chat")
    gate.wait(page, "tab-chat")
    target.click()
    page.get_by_role("option", name=re.compile("older")).first.click()
    gate.open(page, "tab-chat")
    gate.answered(page, "tab-chat")
    page.wait_for_function("() => gate.isQuiet('timer')")
    kit.expect(target).to_have_value(re.compile("older"))
    an_export_is_told_of_the_run_that_is_opened(page, older)
    for deleted, left in (("newest", "older"), ("older", "base")):
        kit.go_to_tab(page, "Runs")
        page.locator("#runs-list label", has_text=deleted).click()
        kit.expect(page.locator("#details-card")).to_contain_text(deleted)
        if deleted == "newest":
            kit.unfold(page, "#manage-fold")
        page.locator("#delete").click()
        page.locator("#delete-really").click()
        kit.expect(page.locator("#runs-list label", has_text=deleted)).to_have_count(0)
        kit.go_to_tab(page, "Chat")
        kit.expect(target).to_have_value(re.compile(left))
    watch.check()
    page.context.close()


def test_a_worker_that_went_away_is_said(chrome: Browser, app: kit.App, workspace: Workspace):
    with ScriptedRun(workspace, "unlucky") as run:
        run.to(State.RUNNING).train(12)
        (run.run.path / "train.log").write_text("Killed\n", "utf-8")
        page, watch = kit.open_page(chrome, app)
        kit.expect(page.locator("#run-card")).to_contain_text("12 / 100")
    kit.expect(page.locator("#run-card")).to_contain_text("interrupted")
    kit.expect(page.locator("#run-card")).to_contain_text("ended unexpectedly at step 12 of 100")
    kit.expect(page.locator("#form-column")).to_be_visible()
    kit.open_details(page.locator("#run-card details"))
    Runs(workspace).rename(run.run, "drawn anew")
    kit.expect(page.locator("#run-card h2")).to_have_text("drawn anew")
    kit.expect(page.locator("#run-card pre")).to_be_visible()
    assert kit.violations(page) == []
    watch.check()
    page.context.close()


def test_a_run_is_named_archived_deleted_only_when_sure_and_shared(
    chrome: Browser, app: kit.App, workspace: Workspace, tmp_path: Path
):
    with ScriptedRun(
        workspace, "child", parent=Parent(run=trained(workspace, "old name").id, name="old name", step=10)
    ) as child:
        child.to(State.STOPPED, msg("run.stopped_kept", step=1))
    page, watch = kit.open_page(chrome, app)
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label", has_text="old name").click()
    kit.unfold(page, "#manage-fold")
    kit.expect(page.locator("#rename-name").locator("input, textarea")).to_have_value("old name")
    for box, words in (("#rename-name", "新名字 <i>"), ("#run-tags", "voice, <b>"), ("#run-note", "keep this one")):
        page.locator(box).locator("input, textarea").fill(words)
    page.locator("#rename").click()
    row = page.locator("#runs-list tbody tr", has_text="新名字 <i>")
    kit.expect(row.locator(".rt-note")).to_have_text("keep this one")
    kit.expect(row.locator(".rt-tag")).to_have_text(["voice", "<b>"])
    row.locator(".rt-tag").first.click()
    kit.expect(page.locator("#runs-list tbody tr:visible")).to_have_count(1)
    page.get_by_role("searchbox").fill("")
    kit.assert_accessible(page)
    page.locator("#archive").click()
    kit.expect(page.locator("#manage-notice")).to_contain_text(
        "rchive"
    )  # its own answer: a second press before it would be forgotten
    kit.expect(row).to_be_hidden()
    page.get_by_role("searchbox").click()
    kit.expect(page.locator("#manage-notice p")).to_be_hidden()  # seen: it stayed for the whole visit
    page.locator(".rt-state").first.select_option("*archived")
    kit.expect(page.locator("#runs-list tbody tr:visible")).to_have_count(1)
    page.locator("#archive").click()
    kit.expect(page.locator("#runs-list tbody tr:visible")).to_have_count(2)  # none is archived now, so all are shown
    page.locator("#delete").click()
    kit.expect(page.locator("#delete-sure")).to_contain_text("cannot be undone")
    kit.expect(page.locator("#delete-sure")).to_contain_text("trained further from it: child")
    page.locator("#delete-keep").click()
    kit.expect(page.locator("#delete-sure")).to_be_hidden()
    page.locator("#delete").click()
    page.locator("#delete-really").click()
    kit.expect(row).to_have_count(0)
    assert [run.name for run in Runs(workspace).list()] == ["child"]
    kit.assert_accessible(page)
    kit.go_to_tab(page, "Train")
    kit.unfold(page, "#step-plan")
    planned_for = page.locator("#plan-for input")
    here = planned_for.input_value()
    planned_for.click()
    page.get_by_role("option").filter(has_text="12 GB").click()
    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label", has_text="child").click()
    kit.expect(page.locator("#details-card")).to_contain_text("child")
    page.locator("#details-duplicate").click()
    kit.expect(planned_for).to_have_value(here)
    kit.expect(kit.part(page, "train")).to_contain_text("child")
    kit.expect(page.locator("#further")).to_be_hidden()
    kit.go_to_tab(page, "Runs")
    kit.unfold(page, "#details-settings-fold")
    with page.expect_download() as saved:
        page.locator("#details-card-save").click()
    saved.value.save_as(tmp_path / saved.value.suggested_filename)
    with page.expect_download() as drawn:
        page.locator("#details-card-picture").click()
    assert drawn.value.suggested_filename == "child.png" and drawn.value.path().read_bytes().startswith(b"\x89PNG")
    with page.expect_download() as theirs:
        page.locator("#details-card-axolotl").click()
    assert theirs.value.suggested_filename == "child.axolotl.yaml"
    assert "# For axolotl: `axolotl train" in theirs.value.path().read_text("utf-8")
    kit.go_to_tab(page, "Train")
    page.locator("#file input[type=file]").set_input_files(tmp_path / "child.recipe.yaml")
    kit.expect(kit.part(page, "train")).to_contain_text(re.compile(r"child$"))
    watch.check()
    page.context.close()


def test_runs_are_searched_and_laid_over_each_other_with_the_settings_that_differ(
    chrome: Browser, app: kit.App, workspace: Workspace
):
    for name, rate in (("gentle", 1e-4), ("brisk", 3e-4), ("another", 1e-4)):
        with ScriptedRun(workspace, name, train={"learning_rate": rate}) as run:
            run.to(State.RUNNING).train(30).to(State.COMPLETED, msg("run.completed", step=30))
    page, watch = kit.open_page(chrome, app)
    kit.go_to_tab(page, "Runs")
    kit.expect(page.locator("#details-card")).to_contain_text("another")  # the newest is open
    kit.expect(page.locator("#runs-list label")).to_have_text(["another", "brisk", "gentle"])
    kit.expect(page.locator("#runs-list .rt-course polyline")).to_have_count(3)
    search = page.get_by_role("searchbox")
    search.fill("bris")
    kit.expect(page.locator("#runs-list tbody tr[data-run]:visible")).to_have_count(1)
    page.get_by_role("checkbox", name="Compare brisk").check()
    kit.expect(page.locator(".rt-compare")).to_be_hidden()  # one alone is no comparison
    search.fill("")
    page.get_by_role("checkbox", name="Compare gentle").check()
    kit.expect(page.locator(".rt-differ tr").nth(1)).to_have_text(re.compile("Learning rate.*0.0003.*0.0001"))
    kit.expect(page.locator(".rt-legend li").last).to_contain_text("gentleLearning rate 0.0001")
    plot = page.locator(".rt-plot")
    kit.expect(plot).to_have_attribute("aria-label", re.compile("Loss.* by Step.*brisk: .*gentle: "))
    page.locator(".rt-y").select_option("rate")
    page.locator(".rt-x").select_option("tokens")
    kit.expect(plot).to_have_attribute("aria-label", re.compile("Learning rate by Tokens"))
    kit.expect(plot.locator("canvas")).to_have_count(1)
    page.set_viewport_size(kit.PHONE)
    assert kit.overflow(page) <= 0
    kit.assert_accessible(page)
    watch.check()
    page.context.close()


def test_an_app_ends_quietly_and_a_restarted_one_shows_the_same_on_the_page_that_stayed_open(
    chrome: Browser, tmp_path: Path
):
    workspace = Workspace.open(tmp_path / "workspace")
    ended(workspace, "survivor", 30)
    app = kit.start_app(workspace.root, **kit.ENGLISH)
    try:
        page, _ = kit.open_page(chrome, app)
        wait_until(lambda: "step 30" in curve(page))
        assert app.stop() == 0 and "Traceback" not in app.log.read_text("utf-8")
        kit.expect(page.locator("#live-chart .lc-note")).to_contain_text("Lost contact")
        kit.expect(page.get_by_text("start it again on its PC")).to_be_visible()
        waiting(workspace, "alpha", "beta")
        app = kit.start_app(workspace.root, app.port, **kit.ENGLISH)
        # Seen: gradio asks which app is there now, the guard answered that nothing is, and the page did nothing more
        # but draw its chart.
        kit.expect(page.locator("#queue-says")).to_contain_text(
            "waiting since LoRA Garage was closed: 2", timeout=30_000
        )
        wait_until(lambda: order(page) == "ab")
        kit.expect(page.locator("#live-chart .lc-note")).to_have_text("")
        kit.expect(page.locator("#run-card")).to_contain_text("survivor")
        wait_until(lambda: "step 30" in curve(page))
        assert {run.status().state for run in Runs(workspace).list()} == {State.COMPLETED, State.QUEUED}, (
            "nothing has begun"
        )
        page.context.close()
    finally:
        app.stop()
