"""The wizard walked through as a newcomer (only Next and Start) and by somebody who comes back, in a real browser.

Cards are a fake driver library under the real pynvml. The device is held meanwhile, so that a run starts and waits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import nvml
from tests.kit.runs import ended

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
START = {"en": "Start training", "zh": "开始训练"}


def walks() -> pytest.MarkDecorator:
    """All eight of language, size and card; in the gate it is walked by keyboard."""
    each = []
    for language, (size, viewport), card in product(
        ("en", "zh"), (("desktop", kit.DESKTOP), ("phone", kit.PHONE)), (False, True)
    ):
        name = f"{language}-{size}-{'8_gb' if card else 'no_card'}"
        each.append(pytest.param(language, viewport, card, id=name, marks=pytest.mark.full))
    return pytest.mark.parametrize(("language", "viewport", "card"), each)


@walks()
def test_a_newcomer_gets_to_a_run_with_next_and_start_alone(
    chrome: Browser, serve: Callable[[bool], kit.App], language: str, viewport: dict, card: bool
):
    app = serve(card)
    workspace = Workspace.open(app.workspace)
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    kit.expect(page.locator("#header-hardware")).to_contain_text("RTX 4060" if card else "CPU")
    bar, plan = page.locator("#start-summary"), page.locator("#plan-card")
    kit.expect(bar).to_contain_text({"en": "LoRA, rank 8", "zh": "LoRA，秩 8"}[language])  # before anything is chosen
    kit.expect(bar).to_contain_text({"en": "Pirate answers", "zh": "海盗"}[language])
    kit.expect(page.locator("#goal")).to_be_hidden()  # has its answer, and is a part of the bar
    kit.open_step(page, "data")
    kit.expect(page.locator("#learned")).to_be_visible()
    page.locator("#next-data").click()
    kit.expect(plan).to_contain_text(re.compile("48 (optimizer steps|个优化步)"))
    kit.expect(plan).to_contain_text("RTX 4060" if card else {"en": "no GPU is used", "zh": "不使用显卡"}[language])
    kit.unfold(page, "#plan-more")
    page.locator("#plan-more summary").first.click()
    assert kit.overflow(page) <= 0
    below, above = (page.locator(part).bounding_box() for part in ("#plan-more", "#plan-card .lg-plan"))
    assert below["y"] >= above["y"] + above["height"] - 1  # however much is unfolded, nothing is drawn over the plan
    page.locator("#next-plan").click()
    kit.expect(page.locator("#run-name")).to_be_visible()
    kit.expect(page.locator("#start")).to_have_text(START[language])
    with kit.made_by_start(page, workspace) as run:
        kit.expect(page.locator("#run-card")).to_contain_text(run.name)
    recipe, facts = run.recipe(), run.facts()
    assert (recipe.goal, recipe.data.source, recipe.train.max_steps) == ("style", "sample:pirate_answers", 48)
    assert recipe.train.optim == "adamw_torch"  # on the card too: its states are a trifle
    assert facts.advice["budget"]["kind"] == ("card" if card else "cpu")
    watch.check()
    page.context.close()


@walks()
def test_somebody_who_comes_back_needs_two_actions(
    chrome: Browser, serve: Callable[[bool], kit.App], language: str, viewport: dict, card: bool
):
    app = serve(card)
    workspace = Workspace.open(app.workspace)
    ended(workspace, "the first one", 10)
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    kit.expect(page.locator("#run-card")).to_contain_text("the first one")
    kit.expect(page.locator("#goal")).to_be_hidden()
    kit.choose(page, "#data", "sample:shop_messages")
    kit.expect(kit.part(page, "goal")).to_contain_text({"en": "Text classification", "zh": "分类"}[language])
    with kit.made_by_start(page, workspace) as run:
        kit.expect(page.locator("#run-card")).to_contain_text(run.name)
    assert run.recipe().goal == "classification" and run.recipe().data.source == "sample:shop_messages"
    watch.check()
    page.context.close()


@pytest.mark.gate
def test_the_whole_way_to_a_run_goes_by_keyboard(chrome: Browser, app: kit.App, workspace: Workspace):
    page, watch = kit.open_page(chrome, app)
    kit.expect(page.locator("#start-summary")).to_contain_text("fits")
    passed = tab_to(page, "#start-summary [data-step=goal]")
    page.keyboard.press("Enter")
    kit.expect(page.locator("#goal")).to_be_visible()
    for step, following in (("goal", "model"), ("model", "data"), ("data", "plan"), ("plan", "train")):
        passed += tab_to(page, f"#next-{step}")
        page.keyboard.press("Enter")
        kit.expect(page.locator(f"#step-{following} > button")).to_be_focused()  # not back at the top of the page
    kit.expect(page.locator("#start-summary")).to_contain_text(re.compile("LoRA.*rank 8.*48 steps"))
    passed += tab_to(page, "#run-name")
    passed += tab_to(page, "#start", "Shift+Tab")
    assert {"rail", "start-cards", "goal", "model", "data", "file", "plan-for", "method", "rank", "run-name"} <= set(
        passed
    )
    kit.expect(page.locator("#start")).to_have_text(START["en"])
    with kit.made_by_start(page, workspace) as run:
        kit.expect(page.locator("#run-card")).to_contain_text(run.name)
    recipe = run.recipe()
    assert (recipe.goal, recipe.data.source, recipe.train.max_steps) == ("style", "sample:pirate_answers", 48)
    assert run.facts().advice["budget"]["kind"] == "cpu"
    watch.check()
    page.context.close()


def tab_to(page: Page, wanted: str, key: str = "Tab") -> list[str]:
    """Press key until the element wanted, or something in it, has the focus; the ids of all that had it on the way,
    and of what is around them."""
    passed: list[str] = []
    for _ in range(60):
        page.keyboard.press(key)
        around, is_there = page.evaluate(
            "wanted => { const ids = []; for (let at = document.activeElement; at; at = at.parentElement) if (at.id) "
            "ids.push(at.id);"
            " return [ids, document.activeElement.closest(wanted) !== null]; }",
            wanted,
        )
        passed += around
        if is_there:
            return passed
    raise AssertionError(f"{wanted} is not reached with {key}; passed {passed}")


@pytest.mark.parametrize(
    ("language", "viewport"), [pytest.param("en", kit.DESKTOP, marks=pytest.mark.full), ("zh", kit.PHONE)]
)
def test_every_step_is_accessible_and_a_plan_for_another_card_is_only_a_plan(
    chrome: Browser, app: kit.App, workspace: Workspace, language: str, viewport: dict
):
    page, watch = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport)
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.unfold(page, "#step-goal")
    kit.unfold(page, "#start-from")
    against = page.locator("#goal label:has([value='code_math'])")
    kit.expect(against).to_be_hidden()
    page.locator("#goal-against summary").click()
    kit.expect(against).to_be_visible()
    kit.assert_accessible(page)
    for step in ("model", "data", "train"):
        kit.unfold(page, f"#step-{step}")
        kit.assert_accessible(page)
    kit.unfold(page, "#step-plan")
    for fold in ("#all-settings", "#plan-more"):
        kit.unfold(page, fold)
    # while what it starts is further up than the window is high
    page.locator("#next-plan").scroll_into_view_if_needed()
    kit.expect(page.locator("#start")).to_be_in_viewport(ratio=1)
    page.locator("#plan-for input").click()
    page.get_by_role("option").filter(has_text="12 GB").click()
    kit.expect(page.locator("#start")).to_contain_text({"en": "another GPU", "zh": "另一张显卡"}[language])
    page.locator(".lg-plan summary").evaluate_all("all => all.forEach((one) => one.click())")
    kit.expect(page.locator("#plan-more table").last).to_be_visible()  # the documented one
    kit.assert_accessible(page)
    page.locator("#start").click()
    kit.expect(page.locator("#start-notice")).to_contain_text("12 GB")
    assert not Runs(workspace).list()
    watch.check()
    page.context.close()


def test_settings_are_found_by_a_word_edited_and_given_back(chrome: Browser, app: kit.App, tmp_path: Path):
    page, watch = kit.open_page(chrome, app)
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.unfold(page, "#step-plan")
    kit.unfold(page, "#all-settings")
    decay, steps, seed = (page.locator(f"#setting-{name} input") for name in ("weight_decay", "max_steps", "seed"))
    kit.expect(steps).to_have_value("48")
    search = page.locator("#settings-search input, #settings-search textarea").first
    search.press_sequentially("overlap")
    kit.expect(page.locator("#setting-overlap input")).to_be_visible()
    kit.expect(seed).to_be_hidden()
    search.fill("")
    search.press_sequentially("random seed")
    kit.expect(decay).to_be_hidden()
    kit.expect(seed).to_be_visible()
    seed.fill("7")
    seed.blur()
    kit.expect(page.locator("#reset-settings")).to_contain_text("1 changed by you")
    kit.unfold(page, "#plan-more")
    reasons = page.locator("#plan-more .lg-reason").first
    kit.open_details(reasons)
    kit.choose(page, "#rank", "16")  # seen: words alone changed, and gradio puts those into the elements that are there
    kit.expect(page.locator(".lg-plan-head")).to_contain_text("rank 16")
    kit.expect(reasons).to_have_attribute("open", "")
    kit.choose(page, "#data", "sample:kettlewisp_facts")
    search.fill("")
    kit.expect(steps).to_have_value("-1")
    kit.expect(seed).to_have_value("7")
    # seen: the plan was drawn anew and folded itself while it was read
    kit.expect(reasons).to_have_attribute("open", "")
    with kit.accepting_dialog(page):
        page.locator("#reset-settings").click()
    kit.expect(seed).to_have_value("42")
    of_pairs = {name: page.locator(f"#setting-{name}") for name in ("objective", "beta", "loss_type", "simpo_gamma")}
    for setting in of_pairs.values():  # these rows have one answer each
        kit.expect(setting).to_be_hidden()
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No idea."} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    page.locator("#file input[type=file]").set_input_files(tmp_path / "pairs.jsonl")
    kit.expect(page.locator("#data-report")).to_contain_text("30 of 30")
    settings_again(page)
    objective = of_pairs["objective"].locator("select")
    kit.expect(objective.locator("option:checked")).to_have_text("SFT: learn the answers")
    kit.expect(of_pairs["beta"]).to_be_hidden()
    objective.select_option("dpo")
    kit.expect(of_pairs["beta"].locator("input, textarea")).to_have_value("0.1")
    kit.expect(of_pairs["loss_type"]).to_be_visible()
    kit.expect(of_pairs["simpo_gamma"]).to_be_hidden()
    kit.expect(page.locator("#plan-card")).to_contain_text("Only 30 pairs")
    kit.expect(page.locator("#plan-more")).to_contain_text("as in the paper")
    rated = [{"prompt": f"What is {i}?", "completion": f"It is {i}.", "label": i % 3 > 0} for i in range(33)]
    (tmp_path / "rated.jsonl").write_text("\n".join(map(json.dumps, rated)), "utf-8")
    page.locator("#file input[type=file]").set_input_files(tmp_path / "rated.jsonl")
    kit.expect(page.locator("#data-report")).to_contain_text("33")
    settings_again(page)
    objective.select_option("kto")
    for weight in ("desirable_weight", "undesirable_weight"):
        kit.expect(page.locator(f"#setting-{weight} input")).to_have_value("1")
    kit.expect(of_pairs["loss_type"]).to_be_hidden()
    kit.expect(of_pairs["beta"].locator("input, textarea")).to_have_value("0.1")
    kit.expect(page.locator("#plan-card")).to_contain_text("Only 33 answers marked good or bad")
    watch.check()
    page.context.close()


def settings_again(page: Page) -> None:
    """A dropped file opens the step of the data; the one that was open before is folded up, with what is in it."""
    kit.open_step(page, "plan")
    if not page.locator("#setting-objective").is_visible():
        kit.unfold(page, "#all-settings")


def test_a_card_that_dies_while_watched_is_said_and_nothing_breaks(chrome: Browser, card_app: kit.App, cards: Path):
    page, watch = kit.open_page(chrome, card_app)
    kit.expect(page.locator("#header-hardware")).to_contain_text("0.6 of 8.0 GiB")
    kit.go_to_tab(page, "Settings")
    kit.expect(page.locator("#hardware")).to_contain_text("580.65.06")
    nvml.write(cards, nvml.dead(nvml.EIGHT_GB))
    kit.expect(page.locator("#header-hardware .lg-bad")).to_contain_text("RTX 4060")
    assert kit.violations(page) == []
    watch.check()
    page.context.close()
