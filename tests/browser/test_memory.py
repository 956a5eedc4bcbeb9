"""Free memory decides, in a real browser: a card that fills up turns the plan, who holds it is listed, closing is
seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.memory.record import MemoryRecord, Rig
from core.runs.run_json import RunFacts
from core.system.machine import this_machine
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import nvml
from tests.kit.runs import ended

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
MODEL = "Qwen/Qwen3-1.7B"


def test_a_card_that_fills_up_turns_fits_into_does_not_fit_and_back(
    chrome: Browser, card_app: kit.App, cards: Path, full: bool
):
    """Within 5 seconds, which the long form asks; in the gate no second decides."""
    soon = {"timeout": 5_000} if full else {}
    page, watch = kit.open_page(chrome, card_app)
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.unfold(page, "#step-model")
    page.locator("#model input").fill(MODEL)
    page.locator("#model input").press("Enter")
    kit.unfold(page, "#step-plan")
    plan = page.locator("#plan-card .lg-plan-head")
    kit.expect(plan).to_contain_text("fits")
    kit.expect(plan).not_to_contain_text("does not fit")
    kit.expect(page.locator("#memory-holders")).to_be_hidden()
    kit.expect(page.locator("#cards, #cards-now")).to_have_count(0)  # one card is no choice
    holder = "4194303:5000"
    nvml.write(cards, {**nvml.EIGHT_GB, "0.used": 6140, "0.compute": holder})  # 2 GiB are left
    kit.expect(plan).to_contain_text("does not fit", **soon)
    kit.expect(page.locator("#memory-holders")).to_contain_text("4.9 GiB")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0
    kit.expect(page.locator("#plan-beside")).to_have_css("position", "sticky")
    # Another program takes what one gave back: nothing that a page follows has moved, and the button looks all the
    # same.
    nvml.write(cards, {**nvml.EIGHT_GB, "0.used": 6140, "0.compute": "4194302:3000"})
    page.locator("#recheck-memory").click()
    kit.expect(page.locator("#memory-holders")).to_contain_text("2.9 GiB")
    nvml.write(cards, nvml.EIGHT_GB)
    kit.expect(plan).not_to_contain_text("does not fit", **soon)
    kit.expect(page.locator("#memory-holders")).to_be_hidden()
    watch.check()
    page.context.close()


def test_predicted_stands_beside_measured_and_a_measurement_corrects_the_plan(
    chrome: Browser, app: kit.App, workspace: Workspace
):
    rig = Rig.from_machine(this_machine(), None)
    for run, measured in (("a", 1.04), ("b", 1.1), ("c", 1.03)):
        MemoryRecord(workspace).add(run, rig, "starter", "lora", 1.0, measured)
    done = ended(workspace, "the first one", 30)
    memory = {"predicted_gib": 1.31, "measured_gib": 1.42, "runs": 2, "factor": 1.04}
    done.add_facts(
        RunFacts(
            memory=memory, predicted_seconds=240, time={"after_steps": 20, "said_seconds": 300, "took_seconds": 310}
        )
    )
    page, watch = kit.open_page(chrome, app)
    kit.unfold(page, "#run-story-fold")
    kit.expect(page.locator("#run-story")).to_contain_text("estimated 1.31 GiB, measured 1.42 GiB")
    kit.expect(page.locator("#run-story")).to_contain_text("about 4 min estimated before the start")
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.unfold(page, "#step-plan")
    run, plan = (page.locator(part).bounding_box() for part in ("#run-box", "#plan-beside"))
    assert plan["y"] >= run["y"] + run["height"]  # it does not cover the run's card
    kit.expect(page.locator("#plan-card")).to_contain_text("Adjusted by measurements of 3 runs on this PC: ×1.04.")
    kit.assert_accessible(page)
    watch.check()
    page.context.close()
