"""The film on the page: what it is drawn from, and in a real browser on a scripted run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core import files
from core.runs import frames, scenes
from core.runs.folder import RunFolder
from core.runs.frames import Frame, FrameAnswer
from core.runs.scenes import Said, Scene, Scenes
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until
from webui.kit.wording import Wording
from webui.run.film import reel

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EVIL = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script> ${document.title='run'} {{value}}"
LOSSES = {0: 3.21, 20: 3.24, 40: 3.35, 60: 3.9, 80: 4.4}


def scene(source: str, asked: str, answer: str | None = None) -> Scene:
    return Scene(source=source, turns=(Said(role="user", content=asked),), answer=answer)


SCENES = Scenes(
    scenes=(
        scene("kept_apart", "What is a lantern?", "Arr, matey! A lantern be a light in the dark. Yo-ho-ho!"),
        scene("kept_apart", EVIL, EVIL),
        scene("own", "Wie heißt du?"),
        scene("neutral", "Write two sentences about the moon."),
    ),
    neutral_texts=("x",),
)


def film_of(run: RunFolder, *steps: int) -> None:
    files.replace_json(run.path / scenes.FILE, SCENES.model_dump(mode="json"))
    for step in steps:
        said = "A lantern is a device that gives light." if step < 40 else f"Arr, matey! Step {step} be bright. Yo-ho-ho!"
        answers = (said, f"{EVIL} {step}", "", "The moon goes around the Earth. It shines because the sun " * 2)
        endings = ("stop", "stop", "stop", "time")
        made = tuple(FrameAnswer(text=text, why=why) for text, why in zip(answers, endings, strict=True))
        frames.append(run, Frame(step=step, answers=made, neutral_loss=LOSSES[step]))


def test_a_film_is_sent_with_its_words_and_the_meter_of_each_frame(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert reel(run, Wording("en")) == {"run": run.id, "scenes": [], "frames": []}
    film_of(run, *LOSSES)
    frames.append(run, Frame(step=90, answers=()))  # of other scenes: of no use
    sent = reel(run, Wording("en"))
    assert [each["source"] for each in sent["scenes"]] == ["from your data, kept apart"] * 2 + ["your own", "neutral"]
    assert [each["step"] for each in sent["frames"]] == list(LOSSES) and sent["frames"][0]["answers"][3][1] is True
    assert sent["frames"][2]["meter"] == "Neutral text: loss 3.21 → 3.35, 4 % worse: it forgot little."
    assert [each["tone"] for each in sent["frames"]] == ["plain", "plain", "plain", "warn", "bad"]
    assert "3.21 → 3.35" in reel(run, Wording("zh"))["frames"][2]["meter"]


# ---- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Iterator[ScriptedRun]:
    with ScriptedRun(Workspace.open(tmp_path / "workspace"), "Filmed", total_steps=100) as run:
        run.to(State.RUNNING).train(60)
        film_of(run.run, 0, 20, 40)
        yield run


@pytest.fixture
def app(run: ScriptedRun) -> Iterator[kit.App]:
    started = kit.start_app(Path(run.run.path).parent.parent)
    yield started
    started.stop()


def answer(page: Page, film: str, place: int = 0) -> str:
    return page.locator(f"{film} .fs-scene").nth(place).locator(".fs-now .fs-words").inner_text()


@pytest.mark.browser
def test_the_strip_is_scrubbed_by_key_and_by_click_and_runs_nothing_of_what_was_answered(
    chrome: Browser, app: kit.App, run: ScriptedRun
) -> None:
    page, watch = kit.open_page(chrome, app, viewport=kit.PHONE)
    film = "#live-film"
    scrubber = page.locator(f"{film} .fs-range")
    kit.expect(scrubber).to_be_visible(timeout=30_000)
    kit.expect(page.locator(f"{film} .fs-frame")).to_have_count(3)
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 40")
    kit.expect(page.locator(f"{film} .fs-meter")).to_have_text("Neutral text: loss 3.21 → 3.35, 4 % worse: it forgot little.")
    assert answer(page, film) == "Arr, matey! Step 40 be bright. Yo-ho-ho!"
    assert EVIL in answer(page, film, 1) and page.locator(f"{film} img, {film} .fs-scenes script").count() == 0
    assert "cut off here" in page.locator(f"{film} .fs-scene").nth(3).locator(".fs-now").inner_text()

    scrubber.focus()
    page.keyboard.press("ArrowLeft")
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 20")
    assert scrubber.get_attribute("aria-valuetext") == "Frame 2 of 3, step 20"
    assert answer(page, film) == "A lantern is a device that gives light."
    page.keyboard.press("Home")
    kit.expect(page.locator(f"{film} .fs-meter")).to_contain_text("loss 3.21 before training")
    assert kit.violations(page) == [] and kit.overflow(page) <= 0

    film_of(run.run, 60)
    kit.expect(page.locator(f"{film} .fs-frame")).to_have_count(4, timeout=15_000)
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 0")  # whoever looks at an old frame goes on looking at it
    page.locator(f"{film} .fs-frame").last.click()
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 60")
    kit.expect(page.locator(f"{film} .fs-meter")).to_have_class("fs-meter fs-warn")
    film_of(run.run, 80)
    kit.expect(page.locator(f"{film} .fs-at")).to_have_text("step 80", timeout=15_000)  # the newest is followed
    kit.set_dark(page, True)
    assert kit.violations(page) == []

    kit.go_to_tab(page, "Runs")
    page.locator("#runs-list label").first.click()
    kit.expect(page.locator("#details-film .fs-frame")).to_have_count(5, timeout=30_000)
    assert page.title() == "LoRA Garage"
    wait_until(lambda: kit.overflow(page) <= 0, 10)
    watch.check()
    page.context.close()
