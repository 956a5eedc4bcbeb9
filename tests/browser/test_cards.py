"""A PC with two unequal cards, in a real browser: which of them train is chosen, and the plan and the run follow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.progress import RankUse
from core.runs.states import State
from core.values import GIB
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import nvml
from tests.kit.runs import ScriptedRun

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
# 12 GB half full, with the monitor; 8 GB nearly empty
LARGER, FREER = (str(nvml.UNEQUAL[f"{index}.uuid"]) for index in (0, 1))


def test_of_two_cards_one_or_both_are_chosen_and_the_plan_and_the_run_have_them(
    chrome: Browser, card_app: kit.App, cards: Path, full: bool
):
    nvml.write(cards, nvml.UNEQUAL)
    workspace = Workspace.open(card_app.workspace)
    page, watch = kit.open_page(chrome, card_app)
    if full:  # with data a process would measure the pace
        kit.choose(page, "#data", "sample:pirate_answers")
    kit.unfold(page, "#step-plan")
    larger, freer = (page.get_by_role("checkbox", name=f"GPU {index}: NVIDIA GeForce RTX") for index in (0, 1))
    kit.expect(freer).to_be_checked()
    kit.expect(larger).not_to_be_checked()
    kit.expect(page.locator("#cards")).to_contain_text("GPU 0: NVIDIA GeForce RTX 3060, 12 GB")
    kit.expect(page.locator("#cards-now")).to_contain_text("GPU 0: 6.0 of 12.0 GiB free, 7 % load, drives the display")
    kit.expect(page.locator("#cards-now")).to_contain_text("GPU 1: 7.4 of 8.0 GiB free, 7 % load")
    plan = page.locator("#plan-card")
    kit.expect(plan).to_contain_text("7.4 GiB")
    larger.click()
    kit.expect(plan).to_contain_text("Trains on 2 GPUs together")
    kit.expect(plan).to_contain_text("NVIDIA GeForce RTX 3060 (6.0 GiB)")
    if full:
        kit.unfold(page, "#all-settings")
        kit.expect(page.locator("#setting-seed")).to_be_visible()
        kit.expect(page.locator("#setting-ranks")).to_be_hidden()
        kit.unfold(page, "#all-settings")
        kit.assert_accessible(page, "cards")
        with kit.made_by_start(page, workspace) as run:
            facts = run.facts()
            assert (facts.wanted_device, facts.wanted_beside) == (FREER, {LARGER: "NVIDIA GeForce RTX 3060"})
            assert run.recipe().train.ranks == 2
    # The one that was chosen last is left, though the other has more free memory; then it goes away.
    kit.expect(larger).to_be_checked()
    freer.click()
    kit.expect(plan).not_to_contain_text("Trains on 2 GPUs")
    kit.expect(plan).to_contain_text("6.0 GiB")
    nvml.write(cards, nvml.dead(nvml.UNEQUAL, 0))
    kit.expect(plan).to_contain_text("RTX 3060 no longer responds")
    kit.expect(page.locator("#choice-of-cards")).to_have_count(0)
    if full:
        nvml.write(cards, nvml.UNEQUAL)
        with ScriptedRun(workspace, "on both") as at_work:
            use = (("NVIDIA GeForce RTX 4060", 7.1, 8, 98), ("NVIDIA GeForce RTX 3060", 6.4, 12, 95))
            ranks = tuple(
                RankUse(device=name, used_bytes=int(used * GIB), total_bytes=of * GIB, load_percent=load)
                for name, used, of, load in use
            )
            at_work.to(State.RUNNING, ranks=ranks)
            kit.expect(page.locator("#run-card .lg-ranks li")).to_have_text(
                [
                    "Process 0: NVIDIA GeForce RTX 4060, 7.1 of 8.0 GiB, 98 % load",
                    "Process 1: NVIDIA GeForce RTX 3060, 6.4 of 12.0 GiB, 95 % load",
                ]
            )
            kit.assert_accessible(page, "ranks")
            at_work.to(State.STOPPED)
    watch.check()
    page.context.close()
