"""The whole way in the browser, on the starter, in both languages: train, vote blind on ten questions, correct five
answers, learn from them with DPO, and let the two runs meet over the same questions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from os.path import commonprefix
from typing import TYPE_CHECKING

import pytest

from core.api.datasets import dataset_store
from core.chat.comparison import PromptComparison
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.waits import wait_until
from webui.kit import format
from webui.kit.wording import Wording

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.full]  # 45 answers and two runs: minutes

ANSWER_S = 600_000
TEN = "\n".join(f"What is {number} + 1?" for number in range(10))


@pytest.fixture
def app(make_workspace: Callable[[], Workspace]) -> Iterator[kit.App]:
    started = kit.start_app(make_workspace().root)
    yield started
    started.stop()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_train_vote_correct_learn_from_it_and_let_both_runs_meet(chrome: Browser, app: kit.App, language: str) -> None:
    w, space = Wording(language), Workspace.open(app.workspace)
    page, watch = kit.open_page(chrome, app, f"/?lang={language}")
    kit.choose(page, "#data", "sample:pirate_answers")
    parent = trained(page, w, space, max_steps="3", learning_rate="0.002", eval_steps="")
    assert parent.recipe().train.objective == "sft"

    page.locator("#run-open-chat").click()
    duel_of_ten(page, w, parent.name)
    assert [one.column for one in next(PromptComparison.all_of(space)).lineup.contestants] == ["base", "tuned"]

    kit.unfold(page, "#chat-settings")
    page.locator("#chat-max-new-tokens input").fill("8")
    for number in range(5):
        page.locator("#chat-message textarea").fill(f"What is {number} + {number}?")
        page.locator("#chat-send").click()
        kit.expect(page.locator("#chat-tuned-note p")).to_be_visible(timeout=ANSWER_S)
        kit.expect(page.locator("#chat-send")).to_be_visible(timeout=ANSWER_S)
        page.locator("#chat-correct").click()
        page.locator("#chat-correction-text textarea").fill(f"Arr! {number + number}, ye landlubber.")
        page.locator("#chat-correction-save").click()
        kit.expect(page.locator("#chat-correction-notice")).to_contain_text(str(number + 1))
        if number < 4:
            page.locator("#chat-clear").click()
            kit.expect(page.locator("#chat-empty")).to_be_visible()
    [corrections] = [info for info in dataset_store(space).list() if info.corrects == f"run:{parent.id}"]
    assert corrections.good_rows == 5

    page.locator("#chat-train-these").click()
    kit.expect(page.locator("#further-message")).to_contain_text(parent.name)
    settings_shown(page)
    page.locator("#setting-objective select").select_option(w.t("wizard.choice_dpo"))
    child = trained(page, w, space, max_steps="2", learning_rate="0.0001")
    assert child.recipe().train.objective == "dpo" and child.facts().parent.run == parent.id
    assert any({"rewards/accuracies", "rewards/margins"} <= record.keys() for record in child.metrics().records)

    page.locator("#run-open-chat").click()
    for side, run in (("first", parent), ("second", child)):
        page.locator(f"#duel-{side} input").click()
        named = w.t("chat_page.choice_run", name=run.name, when=format.moment(w, run.facts().created))
        page.get_by_role("option", name=named, exact=True).click()
        kit.expect(page.get_by_role("option")).to_have_count(0)  # folded up, before the other one unfolds
        kit.expect(page.locator(f"#duel-{side}-checkpoint")).to_be_visible()
    kit.assert_accessible(page, f"duel-of-two-{language}")
    duel_of_ten(page, w, child.name)
    last = next(PromptComparison.all_of(space))
    assert [(one.source, one.question) for one in last.lineup.prompts] == [("own", line) for line in TEN.splitlines()]
    assert [one.run for one in last.lineup.contestants] == [parent.id, child.id] and len(last.votes()) == 10
    watch.check()
    page.context.close()


def settings_shown(page: Page) -> None:
    for fold, inside in (("#step-plan", "#rank"), ("#all-settings", "#setting-max_steps")):
        if not page.locator(inside).is_visible():
            kit.unfold(page, fold)
            kit.expect(page.locator(inside)).to_be_visible()


def trained(page: Page, w: Wording, space: Workspace, **settings: str) -> RunFolder:
    """The run that the form makes with these settings, at its end."""
    before = {run.id for run in Runs(space).list()}
    settings_shown(page)
    for name, value in (settings | {"sample_seconds": "0"}).items():
        box = page.locator(f"#setting-{name} input")
        box.fill(value)
        box.blur()
    steps = settings["max_steps"]
    planned = [w.t("plan_view.time_unknown", steps=steps), w.t("plan_view.time", steps=steps, time="", source="")]
    kit.expect(page.locator("#plan-card")).to_contain_text(commonprefix(planned))
    page.locator("#start").click()
    run = wait_until(lambda: next((run for run in Runs(space).list() if run.id not in before), None), 60)
    assert isinstance(run, RunFolder)
    wait_until(lambda: run.status().state not in (State.PREPARING, State.RUNNING, State.QUEUED), 900)
    assert run.status().state == State.COMPLETED, run.log_tail()
    kit.expect(page.locator("#run-card")).to_contain_text(run.name, timeout=60_000)
    return run


def duel_of_ten(page: Page, w: Wording, winner: str) -> None:
    """Ten verdicts by key, each after its two answers are there, of a few tokens; then whose they were."""
    if not page.locator("#duel-length").is_visible():
        kit.unfold(page, "#duel-contenders")
    page.locator("#duel-own textarea").fill(TEN)
    page.locator("#duel-length input").fill("6")
    page.locator("#duel-length input").blur()
    page.locator("#duel-begin").click()
    for number in range(1, 11):
        kit.expect(page.locator("#duel-message")).to_contain_text(
            w.t("blind_duel.which", number=number, count=10)[:30], timeout=ANSWER_S
        )
        kit.expect(page.locator("#duel-answers h3")).to_have_text([w.t("blind_duel.a"), w.t("blind_duel.b")])
        page.locator("#duel-question").click()
        page.keyboard.press("1234"[number % 4])
    kit.expect(page.locator("#duel-result h3").first).to_have_text(w.t("blind_duel.over"), timeout=60_000)
    kit.expect(page.locator("#duel-result")).to_contain_text(winner)
    kit.expect(page.locator("#duel-pairs")).to_be_visible()
