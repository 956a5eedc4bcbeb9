"""The Evaluate page in a browser: from a run to its answers, votes, tests and sets; and before any training."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from core.api.datasets import dataset_store
from core.chat.client import ChatClient
from core.chat.comparison import ComparisonAnswer
from core.chat.evaluation import sets, votes
from core.chat.evaluation.evaluation import SetEvaluation
from core.workspace.folder import Workspace
from tests.browser.test_evaluated import evaluated
from tests.kit import browser as kit
from tests.kit.film import EVIL
from tests.kit.runs import trained
from tests.kit.waits import wait_until
from webui.state.evaluating import Choice, Evaluating

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser

NAMES = {"en": "Evaluate", "zh": "评估", "de": "Auswerten"}
OWN = b'{"prompt": "Who is it?", "expected": "A pirate"}\n{"prompt": "And now?", "expected": "Still a pirate"}\n'
BOTH_CHANGE = """() => ["server", "judge_model"].forEach((name) =>
    document.querySelector(`[name=${name}]`).dispatchEvent(new Event("change", { bubbles: true })))"""
BROKEN = b'{"prompt": "Who is it?"}\n{"prompt": oh\n'


def bring(place: Locator, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    place.locator("input[data-most]").set_input_files(files=[file])


def open_place(page: Page, language: str = "en") -> Locator:
    kit.go_to_tab(page, NAMES[language])
    place = page.locator("#evaluate")
    kit.expect(place.locator("#ep-choose")).to_be_visible()
    return place


@pytest.mark.parametrize(
    ("language", "viewport"),
    [
        ("en", kit.DESKTOP),
        pytest.param("zh", kit.PHONE, marks=pytest.mark.full),
        pytest.param("de", kit.PHONE, marks=pytest.mark.full),
    ],
    ids=["en-desktop", "zh-phone", "de-phone"],
)
def test_from_a_run_to_a_bad_answer_that_is_a_test(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict
) -> None:
    """Every step but the file is taken by the keyboard as well: what has the focus stays in the page that changes."""
    run = trained(workspace, "Shop labels")
    evaluation = evaluated(workspace, run)
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    page.locator("#run-evaluation [data-page=evaluate]").click()
    place = page.locator("#evaluate")
    kit.expect(place.locator("#ep-model")).to_have_value(f"run:{run.id}")
    kit.expect(place.locator(".ev-conclusion")).to_be_visible()
    rows = place.locator(".ev-row")
    kit.expect(rows).to_have_count(40)
    place.locator("[data-value=base_right]").click()
    kit.expect(place.locator("[data-value=base_right]")).to_have_attribute("aria-pressed", "true")
    kit.expect(place.locator("[data-value=base_right]")).to_be_focused()
    assert 0 < rows.count() < 40
    place.locator("[data-value=all]").click()
    kit.expect(rows).to_have_count(40)

    opener = place.locator("#ev-open-3")
    opener.focus()
    page.keyboard.press("Enter")
    opened = place.locator("#ev-answers-3")
    kit.expect(opened.locator(".ev-answer")).to_have_count(6)
    kit.expect(opener).to_be_focused()
    assert EVIL in opened.inner_text() and place.locator("img, script").count() == 0, "nothing of a row is run"
    wrong = opened.locator("[data-place='3'][data-verdict=wrong]")
    wrong.click()
    kit.expect(wrong).to_have_attribute("aria-pressed", "true")
    prompt, answer = evaluation.lineup.prompts[3], evaluation.answers()[3, 3]
    assert votes.read(workspace.root) == {votes.key_of(prompt.turns, answer.text): "wrong"}
    opened.locator("[data-place='3'][data-act=bad]").click()
    kit.expect(place.locator(".ev-message")).to_contain_text("SmolLM2")
    [failures] = sets.all_sets(workspace)
    assert [one.question for one in failures.prompts] == [prompt.question]
    place.locator("#ep-confusions > summary").click()
    kit.expect(place.locator("#ep-confusions td.ev-cell").first).to_be_visible()
    kit.assert_accessible(page, f"evaluate-answers-{language}")

    place.locator("[name=questions]").select_option(f"set:{failures.name}")
    kit.expect(place.locator(".ev-conclusion")).to_have_count(0)
    kit.expect(place.locator("#ep-start")).to_be_visible()
    kit.expect(place.locator("[name=questions]")).to_have_value(f"set:{failures.name}")
    kit.assert_accessible(page, f"evaluate-before-{language}")
    watch.check()
    page.context.close()


def test_sets_are_brought_in_opened_added_to_and_deleted(chrome: Browser, app: kit.App, workspace: Workspace) -> None:
    page, watch = kit.open_page(chrome, app)
    place = open_place(page)
    sentence, listed = place.locator(".ev-message"), place.locator(".ep-set")
    bring(place, "broken.jsonl", BROKEN)
    kit.expect(sentence).to_contain_text("broken.jsonl, line 2")
    bring(place, "latin.jsonl", b'{"prompt": "Gr\xfc\xdfe?"}')
    kit.expect(sentence).to_contain_text("latin.jsonl")
    bring(place, "many.jsonl", b"".join(b'{"prompt": "%d"}\n' % at for at in range(100_000)))
    kit.expect(sentence).to_contain_text("100,000 questions are too many")
    kit.expect(listed).to_have_count(0)
    bring(place, "Mine.jsonl", OWN)
    kit.expect(listed).to_have_text(["Mine (2 questions)"])
    kit.expect(place.locator(".ep-questions li")).to_have_count(2)

    place.locator("#ep-add > summary").click()
    kit.expect(place.locator("[name=title]")).to_have_value("Mine")
    question = place.locator("[name=question]")
    question.fill(f"What is {EVIL}?")
    place.locator("[name=expected]").fill("Evil")
    place.locator("[data-act=add]").dblclick()
    kit.expect(place.locator(".ep-questions li")).to_have_count(3)
    kit.expect(question).to_have_value("")
    [mine] = sets.all_sets(workspace)
    assert [one.expected for one in mine.prompts] == ["A pirate", "Still a pirate", "Evil"], "two presses add it once"
    with page.expect_download() as download:
        place.locator("#ep-sets a[download]").click()
    assert download.value.path().read_text("utf-8") == "".join(sets.lines(mine))
    kit.assert_accessible(page, "evaluate-sets")

    place.locator("[name=questions]").select_option(f"set:{mine.name}")
    kit.expect(place.locator(".ep-trial tbody tr")).to_have_count(3)
    place.locator("[name=judge]").select_option("similarity")
    kit.expect(place.locator("[name=judge]")).to_have_value("similarity")
    place.locator("[name=judge]").select_option("regex")
    kit.expect(place.locator(".ep-trial")).to_have_count(0)
    place.locator("[name=pattern]").fill("pirate$")
    page.keyboard.press("Tab")
    kit.expect(place.locator(".ep-trial .ev-right")).to_have_count(4)
    place.locator("[name=judge]").select_option("model")
    kit.expect(place.locator("[name=server], [name=judge_model]")).to_have_count(2)
    sent = count()
    with page.expect_request(lambda one: '"act":"judge"' in (one.post_data or "") and next(sent) == 1):
        page.evaluate(BOTH_CHANGE)  # seen: on a busy PC, what was typed second was dropped
    kit.assert_accessible(page, "evaluate-judge")
    place.locator("[data-act=remove]").first.click()
    kit.expect(place.locator(".ep-questions li")).to_have_count(2)
    page.once("dialog", lambda dialog: dialog.dismiss())
    place.locator("[data-act=delete]").click()
    kit.expect(listed).to_have_count(1)
    page.once("dialog", lambda dialog: dialog.accept())
    place.locator("[data-act=delete]").click()
    kit.expect(listed).to_have_count(0)
    kit.expect(place.locator("[name=questions]")).not_to_have_value(f"set:{mine.name}")
    watch.check()
    page.context.close()


def test_what_is_typed_and_unfolded_stays_while_the_page_changes(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    run = trained(workspace, "Shop labels")
    page, watch = kit.open_page(chrome, app)
    place = open_place(page)
    place.locator("[name=who][value='tuned+prompt']").uncheck()
    prompt = place.locator("[name=prompt]")
    prompt.fill("Be brief.")
    trained(workspace, "Another one")  # comes above the one that is chosen
    kit.expect(place.locator("#ep-model option")).to_have_count(3, timeout=kit.PATIENCE_MS)
    kit.expect(place.locator("#ep-model")).to_have_value(f"run:{run.id}")
    kit.expect(prompt).to_have_value("Be brief.")
    kit.expect(prompt).to_be_focused()
    kit.expect(place.locator("[name=who][value='tuned+prompt']")).not_to_be_checked()
    watch.check()
    page.context.close()


def test_train_shows_what_a_model_did_without_fine_tuning_once_it_is_opened_again(
    chrome: Browser, app: kit.App, workspace: Workspace
) -> None:
    page, watch = kit.open_page(chrome, app)
    links = page.locator("#start-links")
    kit.expect(links.locator("[data-page=evaluate]")).to_have_attribute("data-start", "yes")
    kit.go_to_tab(page, "Evaluate")
    evaluating = Evaluating(workspace, dataset_store(workspace), ChatClient(workspace))
    evaluation = evaluating.prepare(Choice("base:starter", "data:sample:pirate_answers", ("base",)))
    for number in range(len(evaluation.lineup.prompts)):
        evaluation.add(ComparisonAnswer(prompt=number, contestant=0, text="Arr", tokens=1, seconds=0.1,
                                        finish_reason="stop"))  # fmt: skip
    kit.go_to_tab(page, "Train")
    kit.expect(links).to_contain_text("right")  # seen: the link alone, which started another evaluation
    watch.check()
    page.context.close()


@pytest.mark.slow
@pytest.mark.full  # sixty answers of the starter: minutes
@pytest.mark.parametrize("language", ["en", "zh", "de"])
def test_a_dataset_is_tried_without_fine_tuning_first(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str
) -> None:
    page, watch = kit.open_page(chrome, app, f"/?lang={language}")
    kit.choose(page, "#data", "sample:shop_messages")
    page.locator("#start-links [data-questions='data:sample:shop_messages']").click()  # before, it is the default set's
    place = page.locator("#evaluate")
    kit.expect(place.locator("[data-act=stop]")).to_be_visible()
    kit.expect(place.locator("#ep-model")).to_have_value("base:starter")
    evaluation = wait_until(lambda: next(SetEvaluation.all_of(workspace), None), 120)
    wait_until(lambda: len(evaluation.answers()) > 5, 600)
    place.locator("[data-act=stop]").click()
    kit.expect(place.locator("#ep-start")).to_be_visible(timeout=120_000)
    kept = len(evaluation.answers())
    assert 0 < kept < len(evaluation.lineup.prompts) * 3
    place.locator("#ep-start").click()
    kit.expect(place.locator(".ev-conclusion")).to_be_visible(timeout=900_000)
    assert len([*SetEvaluation.all_of(workspace)]) == 1
    sentence = place.locator(".ev-conclusion").inner_text()
    kit.assert_accessible(page, f"evaluate-first-{language}")
    kit.go_to_tab(page, {"en": "Train", "zh": "训练", "de": "Training"}[language])
    kit.expect(page.locator("#start-links")).to_contain_text(sentence)
    watch.check()
    page.context.close()
