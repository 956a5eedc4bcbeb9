"""In a real browser: what the run doctor finds is seen, its button pressed, the form changed. Scripted runs, no
model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from core.data.store import DatasetStore
from core.messages import msg
from core.presets import PRESETS, PROJECT
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
CURVES = PROJECT / "tests" / "data" / "curves"
EN, ZH = ("en", kit.DESKTOP), ("zh", kit.PHONE)


def add(workspace: Workspace, name: str, rows: list[dict[str, str]]) -> str:
    file = workspace.cache / f"{name}.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return DatasetStore(workspace.datasets, PRESETS).import_file(file, name).id


def shelves(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is on shelf {n}?", "answer": f"Shelf {n} holds jar number {n}."} for n in range(count)]


def replay(workspace: Workspace, name: str, curve: str, until: int) -> ScriptedRun:
    """A run with the numbers of a recorded one, up to a step."""
    value = json.loads((CURVES / f"{curve}.json").read_text("utf-8"))
    facts = {"rows_measured": value["measured_rows"], "advice": {"usual_rate": 1e-3}}
    scripted = ScriptedRun(
        workspace, name, len(value["train"]), train={"learning_rate": value["learning_rate"]}, **facts
    )
    for step, loss, norm, rate in value["train"][:until]:
        scripted.run.log_metrics("train", 1, step, loss=loss, grad_norm=norm, learning_rate=rate, tokens_per_second=800)
    for step, loss in value["eval"]:
        if step <= until:
            scripted.run.log_metrics("eval", 1, step, eval_loss=loss)
    scripted.step = until
    return scripted


@pytest.mark.parametrize(("language", "viewport"), [EN, pytest.param(*ZH, marks=pytest.mark.full)])
def test_what_is_wrong_with_a_plan_is_seen_and_its_button_changes_the_form(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict
):
    repeated = add(workspace, "repeated", shelves(70) + shelves(30))
    few = add(workspace, "few", shelves(5))
    answer = "Der Verein trifft sich am {}. des Monats in der Halle, und die Kosten sind nicht hoch."
    german = add(workspace, "german", [{"question": f"{n}?", "answer": answer.format(n)} for n in range(28)])
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    kit.open_step(page, "data")
    kit.choose(page, "#data", repeated)
    kit.expect(page.locator("#finding-duplicates")).to_contain_text("30")
    kit.expect(page.locator("#finding-duplicates")).to_contain_text("71")
    kit.expect(page.locator("#finding-leakage")).to_be_visible()
    kit.expect(kit.part(page, "data")).to_contain_text(re.compile("2 problems|2 个问题"))
    kit.assert_accessible(page, f"repeated-{language}")
    page.locator("#remedy-duplicates").click()
    kit.expect(page.locator("#finding-duplicates")).to_be_hidden()
    kit.expect(page.locator("#finding-leakage")).to_be_hidden()
    kit.expect(page.locator("#data-left-out")).to_contain_text("30")

    kit.choose(page, "#data", few)
    kit.expect(page.locator("#finding-few_rows")).to_contain_text("5")
    page.locator("#remedy-few_rows").click()
    kit.expect(page.locator("#data input").first).to_be_focused()
    kit.unfold(page, "#step-plan")
    kit.expect(page.locator("#finding-few_steps")).to_contain_text("10")
    kit.unfold(page, "#all-settings")
    kit.expect(page.locator("#setting-deduplicate input")).to_be_checked()
    epochs = page.locator("#setting-num_train_epochs input")
    kit.expect(epochs).to_have_value("5")
    page.locator("#remedy-few_steps").click()
    kit.expect(page.locator("#finding-few_steps")).to_be_hidden()
    kit.expect(epochs).to_have_value("10")
    rate = page.locator("#setting-learning_rate input")
    rate.fill("0.03")
    rate.blur()
    kit.expect(page.locator("#finding-hot_plan")).to_contain_text("0.03")
    kit.expect(kit.part(page, "plan")).to_contain_text(re.compile("1 problem|1 个问题"))
    page.locator("#remedy-hot_plan").click()
    kit.expect(rate).to_have_value("0.001")
    kit.expect(page.locator("#finding-hot_plan")).to_be_hidden()

    kit.open_step(page, "data")
    kit.choose(page, "#data", german)
    page.locator("#remedy-other_language").click()
    kit.expect(page.locator("#shelf-language input")).to_have_value(re.compile("German|德语"))
    kit.expect(page.locator("#shelf")).to_contain_text(re.compile("with German|含德语"))
    watch.check()
    page.context.close()


@pytest.mark.parametrize(("language", "viewport"), [ZH, pytest.param(*EN, marks=pytest.mark.full)])
def test_what_is_wrong_with_a_run_stands_on_its_card_and_its_button_stops_or_plans_anew(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict
):
    with replay(workspace, "ten rows", "ten_rows", 90) as over:
        over.to(State.COMPLETED, msg("run.completed", step=90))
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    with replay(workspace, "too hot", "hot", 20) as hot:
        hot.to(State.RUNNING)
        kit.expect(page.locator("#run-finding")).to_contain_text("0.03")
        kit.assert_accessible(page, f"hot-{language}")
        page.locator("#run-remedy").click()
        wait_until(lambda: hot.run.requested() == "stop")
        hot.to(State.STOPPED, msg("run.stopped_kept", step=20))
    kit.expect(page.locator("#form-column")).to_be_visible()
    kit.expect(kit.part(page, "train")).to_contain_text("too hot")
    kit.expect(page.locator("#run-remedy")).to_contain_text("0.001")  # over now: it plans anew, and stops nothing
    kit.unfold(page, "#step-plan")
    kit.unfold(page, "#all-settings")
    kit.expect(page.locator("#setting-learning_rate input")).to_have_value("0.001")
    kit.go_to_tab(page, {"en": "Runs", "zh": "训练记录"}[language])
    kit.choose(page, "#runs-list", over.run.id)
    kit.expect(page.locator("#details-finding")).to_contain_text("18")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    page.locator("#details-remedy").click()
    kit.expect(kit.part(page, "train")).to_contain_text("ten rows")
    kit.expect(page.locator("#setting-max_steps input")).to_have_value("20")
    watch.check()
    page.context.close()
