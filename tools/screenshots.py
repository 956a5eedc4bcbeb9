"""`python -m tools.screenshots [FOLDER]`: takes every page in its main states, light and dark, English and Chinese,
desktop and phone.

Written to tests/.cache/screenshots, in about ten minutes on two cores. Runs are scripted and cards are a fake driver
library, so nothing is trained. Rows with marked tokens need the starter model (LORA_GARAGE_TEST_STARTER, else
tests/.cache), cards need a C compiler; pictures left out for want of them are listed at the end.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from core.data.store import DatasetStore
from core.messages import msg
from core.models import starter
from core.presets import PRESETS, PROJECT
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit import nvml
from tests.kit.files import link_or_copy
from tests.kit.runs import ScriptedRun
from webui.pages.rail import PAGES

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWS = (
    ("en", "desktop", False), ("en", "desktop", True), ("zh", "desktop", False), ("en", "phone", False), ("zh", "phone",
        True),
)  # fmt: skip
TRAIN, CHAT, DATA, RUNS, EVALUATE, MODELS, SETTINGS, HELP = PAGES
SEVEN_BILLION = "Qwen/Qwen2.5-7B-Instruct"
OWN_ROWS = [
    {"question": f"What does shelf {n} hold?", "answer": f"Shelf {n} holds jars of pickled lemons. " * n}
    for n in range(1, 40)
]
BAD_ROWS = [{"question": "What is missing here?", "answer": ""}, {"question": "And here?"}, OWN_ROWS[0]]

Arrange = Callable[["Page"], object]  # what it gives is not looked at


@dataclass(frozen=True)
class Shot:
    """One picture: its page, and the actions before it. A page keeps the effects of earlier shots."""

    state: str
    of: str = TRAIN
    arrange: Arrange = lambda page: None


@dataclass
class Studio:
    chrome: Browser
    target: Path
    left_out: list[str] = field(default_factory=list)

    def shoot(self, app: kit.App, shots: Sequence[Shot]) -> None:
        """Each shot in each view."""
        for language, size, dark in VIEWS:
            viewport = kit.DESKTOP if size == "desktop" else kit.PHONE
            page, _ = kit.open_page(
                self.chrome, app, f"/?lang={language}", viewport=viewport, color_scheme="dark" if dark else "light"
            )
            page.wait_for_timeout(2500)  # what arrives after the first answer: choices, folds, the curve
            for shot in shots:
                page.locator(f"a[data-page={shot.of}]").click()
                shot.arrange(page)
                page.wait_for_timeout(2000)
                name = f"{shot.state}-{shot.of}-{language}-{size}-{'dark' if dark else 'light'}.png"
                page.screenshot(path=self.target / name, full_page=True)
            page.context.close()


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "tests" / ".cache" / "screenshots"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, kit.browser() as chrome:
        studio = Studio(chrome, target)
        workspace = Workspace.open(Path(folder) / "workspace")
        if not link_starter(workspace):
            studio.left_out.append("counted tokens and the marked row: the starter model is not here")
        own = add_own_data(workspace, Path(folder))
        app = kit.start_app(workspace.root)
        try:
            before_any_run(studio, app, own)
            after_runs(studio, app, workspace)
        finally:
            app.stop()
        with_a_card(studio, Path(folder))
    print(f"{len(list(target.glob('*.png')))} pictures in {target}")
    for reason in studio.left_out:
        print(f"left out: {reason}")
    return 0


# ---- states --------------------------------------------------------------------------------------


def before_any_run(studio: Studio, app: kit.App, own: str) -> None:
    studio.shoot(app, [Shot("empty", each) for each in PAGES])
    studio.shoot(
        app,
        [
            Shot("step-goal", arrange=lambda page: kit.open_step(page, "goal")),
            Shot("step-goal-unsuitable", arrange=unsuitable_goal),
            Shot("step-model", arrange=lambda page: kit.open_step(page, "model")),
            Shot("step-data", arrange=lambda page: kit.open_step(page, "data")),
            Shot("step-data-problems", arrange=lambda page: kit.choose(page, "#data", own)),
            Shot("step-plan", arrange=lambda page: kit.open_step(page, "plan")),
            Shot("step-plan-unfolded", arrange=unfold_plan),
            Shot("step-train", arrange=lambda page: kit.open_step(page, "train")),
        ],
    )
    studio.shoot(
        app, [Shot("planned-24-gb", arrange=lambda page: (ready_for(page, SEVEN_BILLION), plan_for(page, "24 GB")))]
    )


def after_runs(studio: Studio, app: kit.App, workspace: Workspace) -> None:
    with ScriptedRun(workspace, "Too hot") as failed:
        failed.to(State.RUNNING).train(30, nonfinite_at=30)
        failed.to(State.FAILED, msg("run.not_finite", step=30, loss="nan", grad_norm="inf"), msg("advice.not_finite"))
    (failed.run.path / "train.log").write_text("step 29 loss 0.71\nstep 30 loss nan\n", "utf-8")
    studio.shoot(app, [Shot("failed")])
    with ScriptedRun(workspace, "海盗腔回答 / Pirate answers", method="qlora") as done:
        done.to(State.RUNNING).train(100)
        done.run.log_event("warning", message=msg("run.rows_cut", rows=3, max_length=512))
        done.to(State.COMPLETED, msg("run.completed", step=100))
    studio.shoot(
        app,
        [
            Shot("done"),
            Shot("done", CHAT),
            Shot("runs", RUNS, lambda page: page.locator("#runs-list label").first.click()),
            Shot("runs-unfolded", RUNS, lambda page: kit.unfold(page, "#manage-fold")),
        ],
    )
    with ScriptedRun(workspace, "Game night") as paused:
        paused.to(State.RUNNING).train(40).to(State.PAUSED, msg("run.paused", step=40))
    studio.shoot(app, [Shot("paused")])
    with ScriptedRun(workspace, "Pirate answers") as run:
        run.to(State.RUNNING).train(64, seconds_left=140).film(0, 20, 40, 60)
        more = Shot("training-more-curves", arrange=lambda page: open_details(page, "#live-chart .lc-more"))
        studio.shoot(app, [Shot("training"), Shot("training", CHAT), more])


def with_a_card(studio: Studio, folder: Path) -> None:
    """Take the shots in a workspace of its own, whose plans are for a card of 8 GB."""
    try:
        driver = nvml.compile(folder)
    except pytest.skip.Exception as reason:
        studio.left_out.append(f"a card of 8 GB: {reason}")
        return
    workspace = Workspace.open(folder / "with-card")
    link_starter(workspace)
    cards = nvml.write(folder / "cards.txt", nvml.EIGHT_GB)
    app = kit.start_app(workspace.root, None, (), **nvml.environment(driver, cards))
    try:
        studio.shoot(
            app,
            [
                Shot(
                    "card-8-gb-models",
                    arrange=lambda page: (
                        kit.open_step(page, "model"),
                        page.locator("#shelf-words input").fill("small japanese"),
                    ),
                ),
                Shot("card-8-gb", arrange=lambda page: (ready_for(page, SEVEN_BILLION), unfold_reasons(page))),
                Shot("card-8-gb", SETTINGS),
            ],
        )
    finally:
        app.stop()


# ---- what is done on a page ----------------------------------------------------------------------


def unsuitable_goal(page: Page) -> None:
    page.locator("#goal-against summary").click()
    kit.choose(page, "#goal", "domain_knowledge")


def ready_for(page: Page, model: str) -> None:
    """Choose the pirate set for a model, and wait for the plan."""
    kit.choose(page, "#data", "sample:pirate_answers")
    kit.open_step(page, "model")
    page.locator("#model input").fill(model)
    page.locator("#model input").press("Enter")
    page.locator("#model input").blur()
    kit.open_step(page, "plan")
    page.wait_for_timeout(1000)


def plan_for(page: Page, size: str) -> None:
    page.locator("#plan-for input").click()
    page.get_by_role("option").filter(has_text=f" {size}").first.click()


def unfold_reasons(page: Page) -> None:
    page.wait_for_timeout(1000)
    if not page.locator("#plan-more details").count():
        kit.unfold(page, "#plan-more")
    open_details(page, "#plan-more details")


def unfold_plan(page: Page) -> None:
    unfold_reasons(page)
    unfold_all(page, "#all-settings", "#save-preset")


def open_details(page: Page, which: str) -> None:
    """Open folds without clicks: some are open already, on a wide page for instance, and a click would close them."""
    page.evaluate("which => document.querySelectorAll(which).forEach(fold => { fold.open = true; })", which)


def unfold_all(page: Page, *folds: str) -> None:
    for fold in folds:
        kit.unfold(page, fold)


# ---- what the pages are of -----------------------------------------------------------------------


def link_starter(workspace: Workspace) -> bool:
    """Link an existing starter model into workspace; nothing is downloaded for pictures."""
    named = os.environ.get("LORA_GARAGE_TEST_STARTER")
    made = Path(named) if named else starter.folder(PROJECT / "tests" / ".cache" / "models")
    if not (made / "config.json").is_file():
        return False
    target = starter.folder(workspace.models)
    target.mkdir(parents=True, exist_ok=True)
    for file in made.iterdir():
        link_or_copy(file, target / file.name)
    return True


def add_own_data(workspace: Workspace, folder: Path) -> str:
    """Import a person's own file with some rows that cannot be trained on; return the id of its dataset."""
    file = folder / "shelves.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in OWN_ROWS + BAD_ROWS), "utf-8")
    return DatasetStore(workspace.datasets, PRESETS, workspace.library_folders).import_file(file, "shelves").id


if __name__ == "__main__":
    sys.exit(main())
