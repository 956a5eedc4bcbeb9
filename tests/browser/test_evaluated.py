"""The evaluation of a run on its page: of one whose answers are there, and made from the button on by the starter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from core.chat.comparison import ComparisonAnswer
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.of_run import JUDGE, contestants_of_run
from core.chat.prompts import Prompt
from core.judges.specs import JUDGE_SPEC, JudgeSpec, LabelJudge
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.film import EVIL
from tests.kit.runs import trained
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

ANSWER_MS = 600_000
LABELS = LabelJudge(labels=("payment", "delivery", "defect", "praise"))
QUESTIONS = (
    "Why was I billed twice this month?",
    "The courier left the parcel at the wrong house, and nobody answers the phone.",
    "One of the legs is broken.",
    EVIL,
)


def evaluated(workspace: Workspace, run: RunFolder, judge: JudgeSpec = LABELS, rows: int = 40) -> SetEvaluation:
    """An evaluation with its answers: base, prompt, examples, fine-tuned, and that with the prompt."""
    prompts = [
        Prompt(turns=({"role": "user", "content": f"{QUESTIONS[at % 4]} ({at})"},), source="kept_apart",
               expected=LABELS.labels[at % 4])
        for at in range(rows)
    ]  # fmt: skip
    right = (
        lambda at: at % 8 == 1,
        lambda at: at % 2 == 1,
        lambda at: at % 5 > 1,
        lambda at: at % 13 > 0,
        lambda at: at % 11 > 0,
    )
    evaluation = SetEvaluation.create(
        workspace, prompts, list(contestants_of_run(run, "One word.")), 32, (run.name, "0")
    )
    for number, prompt in enumerate(prompts):
        for place, is_right in enumerate(right):
            text = prompt.expected if is_right(number) else f"I would call it “{EVIL}”, or a question of taste."
            evaluation.add(ComparisonAnswer(prompt=number, contestant=place, text=text, tokens=8, seconds=0.1,
                                            finish_reason="stop"))  # fmt: skip
    (evaluation.path / JUDGE).write_bytes(JUDGE_SPEC.dump_json(judge))
    return evaluation


def test_the_result_of_a_run_is_one_sentence_on_its_page(chrome: Browser, app: kit.App, workspace: Workspace) -> None:
    run = trained(workspace, "Shop labels")
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    part = page.locator("#run-evaluation")
    kit.expect(part.locator("[data-act=start]")).to_be_visible()
    evaluated(workspace, run)

    kit.expect(part.locator(".ev-conclusion")).to_contain_text("over the base model with examples")
    kit.expect(part.locator(".ev-share")).to_have_count(5)
    kit.expect(part.locator(".ev-share").nth(1)).to_contain_text("50 % (20 of 40)")
    kit.assert_accessible(page, "evaluated-phone")
    page.set_viewport_size(kit.DESKTOP)
    kit.assert_accessible(page, "evaluated")
    watch.check()
    page.context.close()


def test_a_press_outlives_what_changes_meanwhile_and_the_focus_stays_in_the_section(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    """Each new count replaced the button: a click that was half done was lost, and so was the focus."""
    run = trained(workspace, "Shop labels")
    page, watch = kit.open_page(chrome, app)
    start = page.locator("#run-evaluation [data-act=start]")
    start.hover()
    page.mouse.down()
    with page.expect_response(lambda reply: "component_server" in reply.url and "ev-conclusion" in reply.text()):
        evaluated(workspace, run)
    with page.expect_response(lambda reply: "component_server" in reply.url and "ev-conclusion" in reply.text()):
        kit.expect(start).to_be_focused()
    page.mouse.move(0, 0)
    page.mouse.up()
    kit.expect(page.locator("#run-evaluation [data-page=evaluate]")).to_be_focused()
    watch.check()
    page.context.close()


@pytest.mark.slow
@pytest.mark.full  # a run of the starter and a hundred answers: minutes
@pytest.mark.parametrize("language", ["en", "zh", "de"])
def test_one_press_evaluates_a_run_that_was_trained_here(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str
) -> None:
    """Stopped in between and pressed again, it goes on where it was; the result is there after a reload."""
    page, watch = kit.open_page(chrome, app, f"/?lang={language}")
    kit.choose(page, "#data", "sample:shop_messages")
    page.locator("#start").click()
    run = wait_until(lambda: next(iter(Runs(workspace).list()), None), 60)
    wait_until(lambda: run.status().state == State.COMPLETED, 900)
    part = page.locator("#run-evaluation")
    part.locator("[data-act=start]").click()
    kit.expect(part.locator("[data-act=stop]")).to_be_visible()
    some = "() => document.querySelector('#run-evaluation [aria-valuenow]')?.ariaValueNow > 5"
    page.wait_for_function(some, timeout=ANSWER_MS)
    part.locator("[data-act=stop]").click()
    kit.expect(part.locator("[data-act=start]")).to_be_visible()
    [evaluation] = SetEvaluation.all_of(workspace)
    kept = len(evaluation.answers())
    assert 0 < kept < len(evaluation.lineup.prompts) * 5
    part.locator("[data-act=start]").click()
    kit.expect(part.locator(".ev-conclusion")).to_be_visible(timeout=ANSWER_MS)
    [evaluation] = SetEvaluation.all_of(workspace)
    assert len(evaluation.answers()) == len(evaluation.lineup.prompts) * 5 == 100
    assert evaluation.lineup.contestants[3].run == run.id
    conclusion = part.locator(".ev-conclusion").inner_text()
    page.reload()
    kit.expect(page.locator("#run-evaluation .ev-conclusion")).to_have_text(conclusion)
    kit.assert_accessible(page, f"evaluated-journey-{language}")
    watch.check()
    page.context.close()
