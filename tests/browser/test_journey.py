"""The main job as a person does it: sample set, Start, the loss falls, Chat, both columns. Real model, real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.advice import plan
from core.data.sets.heldout import load_heldout
from core.judges.judge import is_right
from core.judges.specs import ExactJudge
from core.presets import PRESETS
from core.recipe import Recipe
from core.runs import sample_answers
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.browser import App, browser, choose, go_to_tab, open_page, set_dark, start_app, unfold, violations
from tests.kit.runs import with_settings
from tests.kit.waits import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def app(make_workspace: Callable[[], Workspace]) -> Iterator[App]:
    started = start_app(make_workspace().root, **kit.ENGLISH)
    yield started
    started.stop()


def loaded_heavy_libraries(app: App) -> list[str]:
    """Shared objects of torch mapped into the web process, as the system sees them."""
    with open(f"/proc/{app.process.pid}/maps") as maps:
        return sorted({line.split()[-1] for line in maps if "libtorch" in line or "/torch/" in line})


def fill(page: Page, setting: str, value: str) -> None:
    box = page.locator(f"#setting-{setting} input")
    box.fill(value)
    box.blur()


@pytest.mark.gate
@pytest.mark.parametrize("method", ["lora", pytest.param("qlora", marks=pytest.mark.full)])
def test_from_a_sample_set_to_a_tuned_model_answering_beside_its_base(app: App, method: str, full: bool) -> None:
    """The plan's steps learn the voice, and held-out prompts are answered in it; with --full its own 48, else a fifth
    of them with half the rows at five times the rate. Nobody watches meanwhile."""
    from playwright.sync_api import expect

    with browser() as chrome:
        page, watch = open_page(chrome, app)
        choose(page, "#data", "sample:pirate_answers")
        expect(kit.part(page, "data")).to_contain_text("68")
        unfold(page, "#step-plan")
        expect(page.locator("#plan-card")).to_contain_text("48 optimizer steps")
        unfold(page, "#all-settings")
        if method == "qlora":
            choose(page, "#method", "qlora")
            fill(page, "sample_seconds", "0")  # the other method's run has its film
        if not full:
            fill(page, "sample_seconds", "0")  # tests/model/test_film: a run leaves its film
            fill(page, "learning_rate", "0.005")
            fill(page, "max_steps", "16")
            fill(page, "per_device_train_batch_size", "2")
            # a Textbox does not hear of what `fill` fills
            page.locator("#setting-eval_steps input").press_sequentially("8")
            expect(page.locator("#plan-card")).to_contain_text("16 optimizer steps")
        page.locator("#start").click()

        expect(page.locator("#stop")).to_be_visible(timeout=30_000)
        plot = page.locator("#live-chart .lc-plot")
        expect(plot).to_have_attribute("aria-label", re.compile("[Ss]tep"), timeout=120_000)
        page.close()
        watch.check()

        runs = Runs(Workspace.open(app.workspace))
        run = runs.list()[0]
        wait_until(lambda: run.status().state not in (State.PREPARING, State.RUNNING, State.QUEUED), 600)
        assert run.status().state == State.COMPLETED, run.log_tail()
        losses = [line["loss"] for line in run.metrics().records if line["kind"] == "train"]
        # By the 48 steps 3.8 falls to 1.17; on held-out rows 3.63 to 1.20, on a 4-bit base 4.24 to 1.39 (2b98eb17).
        assert losses[0] > 2.5 and sum(losses[-5:]) / 5 < (1.3 if full else 1.6), losses
        validation = [line["eval_loss"] for line in run.metrics().records if line["kind"] == "eval"]
        assert not full or validation[-1] < {"lora": 1.25, "qlora": 1.45}[method] and validation[0] > 3.5, validation
        page, watch = open_page(chrome, app)
        expect(page.locator("#run-card")).to_contain_text("done", timeout=30_000)
        assert run.recipe().adapter.method == method
        assert bool(sample_answers.read(run)) == (full and method == "lora")

        page.locator("#run-open-chat").click()
        held = load_heldout(PRESETS / "samples" / "pirate_answers.heldout.yaml")[: 5 if full else 1]
        unfold(page, "#chat-settings")
        page.locator("#chat-max-new-tokens input").fill("48")  # the base rambles on
        hits = {"base": 0, "tuned": 0}
        for item in held:
            box = page.locator("#chat-message textarea")
            box.fill(item.prompt)
            page.locator("#chat-send").click()
            expect(page.locator("#chat-tuned-note p")).to_have_attribute("title", re.compile("tokens"), timeout=180_000)
            expect(page.locator("#chat-send")).to_be_visible(timeout=60_000)
            for column in hits:
                answers = page.locator(f"#chat-{column} [data-testid=bot]")
                expect(answers).to_have_count(1, timeout=30_000)
                hits[column] += is_right(item.judge or ExactJudge(), item.expected, answers.last.inner_text())
            if item is held[0] and method == "lora":
                for dark in (True, False):
                    set_dark(page, dark)
                    assert violations(page) == [], dark
            page.locator("#chat-clear").click()
            expect(page.locator("#chat-empty")).to_be_visible()
        assert hits == {"base": 0, "tuned": len(held)}
        assert loaded_heavy_libraries(app) == [], "the web process imported torch on the way"
        watch.check()


def test_stop_pause_reload_and_chat_give_the_device_to_each_other(app: App, full: bool) -> None:
    """The bare base answers before any run exists; a run, QLoRA on the real model, takes the device from the chat and
    says so; Pause keeps what was learned, and with --full it goes on and Stop keeps it too."""
    from playwright.sync_api import expect

    with browser() as chrome:
        page, watch = open_page(chrome, app)
        go_to_tab(page, "Chat")
        page.locator("#chat-message textarea").fill("What is the capital of France?")
        page.locator("#chat-send").click()
        expect(page.locator("#chat-base [data-testid=bot]").last).to_contain_text("Paris", timeout=180_000)
        expect(page.locator("#chat-tuned")).to_be_hidden()

        go_to_tab(page, "Train")
        choose(page, "#data", "sample:pirate_answers")
        learned_and_cut_tokens_are_marked_and_zero_learned_is_refused(page)
        fill(page, "max_steps", "5000")
        fill(page, "sample_seconds", "0")
        choose(page, "#method", "qlora")
        page.locator("#start").click()
        expect(page.locator("#stop")).to_be_visible(timeout=30_000)
        run = wait_until(lambda: next(iter(Runs(Workspace.open(app.workspace)).list()), None))
        wait_until(lambda: run.status().step >= 2, 120)
        go_to_tab(page, "Chat")
        expect(page.locator("#chat-status")).to_contain_text("train", timeout=20_000)
        page.locator("#chat-message textarea").fill("Hello?")
        page.locator("#chat-send").click()
        expect(page.locator("#chat-notice")).to_contain_text("Pirate", timeout=20_000)

        page.reload()  # shows the page that was open
        go_to_tab(page, "Train")
        expect(page.locator("#run-card")).to_contain_text("Pirate", timeout=30_000)
        page.locator("#pause").click()
        expect(page.locator("#run-card")).to_contain_text("Paused at step", timeout=60_000)
        step = run.status().step
        assert (
            run.status().state == State.PAUSED
            and run.saved_step() == step >= 2
            and run.recipe().adapter.method == "qlora"
        )
        watch.check()
        if not full:
            return
        page.locator("#resume").click()
        wait_until(lambda: run.status().state == State.RUNNING and run.status().step > step, 120)
        page.locator("#stop").click()
        expect(page.locator("#run-card")).to_contain_text("stopped", timeout=60_000)
        assert run.status().state == State.STOPPED and run.has_adapter()
        expect(page.locator("#run-open-chat")).to_be_visible(timeout=20_000)
        watch.check()


def learned_and_cut_tokens_are_marked_and_zero_learned_is_refused(page: Page) -> None:
    marked, counters = page.locator("#learned-row mark.lg-learned"), page.locator("#learned-counters")
    kit.open_step(page, "data")
    kit.expect(marked.first).to_contain_text("Arr, matey! Rome be the capital of Italy")
    kit.expect(counters).to_contain_text("42.4 %")
    page.locator("#row-after").click()
    kit.expect(page.locator("#learned-row")).to_contain_text("2 of 68")
    kit.open_step(page, "plan")
    unfold(page, "#all-settings")
    kit.expect(page.locator("#setting-max_length input")).to_have_value("128")
    fill(page, "max_length", "50")
    kit.open_step(page, "data")
    kit.expect(page.locator("#learned-row .lg-cut").first).to_be_visible()
    kit.open_step(page, "plan")
    fill(page, "max_length", "16")
    kit.open_step(page, "data")
    kit.expect(counters).to_contain_text("68")
    page.locator("#start").click()
    kit.expect(page.locator("#start-notice")).to_contain_text(
        "None of the 68 rows has anything to train on within the first 16 tokens"
    )
    kit.open_step(page, "plan")
    fill(page, "max_length", "128")
    kit.open_step(page, "data")
    kit.expect(counters).to_contain_text("42.4 %")
    kit.open_step(page, "plan")


@pytest.mark.full
def test_ctrl_c_in_the_terminal_pauses_and_saves_what_runs(tmp_path: Path, tiny_model: Path) -> None:
    workspace = Workspace.open(tmp_path)
    (tmp_path / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    app = start_app(tmp_path)
    recipe = with_settings(
        plan.resolve(Recipe.read(PRESETS / "recipes" / "quickstart.yaml"), "x", has_card=False),
        "model.id=library:tiny", "train.max_steps=100000", "train.sample_seconds=0",
    )  # fmt: skip
    run = Runs(workspace).create(recipe, "app")
    wait_until(lambda: run.status().step >= 2, 60)
    assert app.stop() == 0
    assert run.status().state == State.PAUSED and run.saved_step() == run.status().step
