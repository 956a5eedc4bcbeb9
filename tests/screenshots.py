"""`python -m tests.screenshots [FOLDER]`: every page in its main states, light and dark, English and Chinese, desktop and phone.

Written to tests/.cache/screenshots. Uses scripted runs in a temporary workspace, so it needs no model and takes about two minutes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from core.states import State
from core.text import text
from core.workspace import Workspace
from tests import browser_kit as kit
from tests.scripted_run import ScriptedRun

VIEWS = (
    ("en", "desktop", False), ("en", "desktop", True), ("zh", "desktop", False), ("en", "phone", False), ("zh", "phone", True),
)  # fmt: skip
TABS = {"en": ("Train", "Chat", "Runs"), "zh": ("训练", "对话", "记录")}


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else kit.PROJECT / "tests" / ".cache" / "screenshots"
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, kit.browser() as chrome:
        workspace = Workspace.open(Path(folder) / "workspace")
        app = kit.start_app(workspace.root)
        try:
            shoot(chrome, app, target, "empty", tabs=(0, 1, 2))
            failed = ScriptedRun(workspace, "Too hot").to(State.RUNNING).train(30, nonfinite_at=30)
            failed.to(State.FAILED, text("run.not_finite", step=30, loss="nan", grad_norm="inf"), text("advice.not_finite"))
            (failed.run.path / "train.log").write_text("step 29 loss 0.71\nstep 30 loss nan\n", "utf-8")
            shoot(chrome, app, target, "failed", tabs=(0,))
            done = ScriptedRun(workspace, "海盗腔回答 / Pirate answers", method="qlora").to(State.RUNNING).train(100)
            done.run.log_event("warning", message=text("run.rows_cut", rows=3, max_length=512))
            done.to(State.COMPLETED, text("run.completed", step=100))
            shoot(chrome, app, target, "runs", tabs=(2,), open_first_run=True)
            with ScriptedRun(workspace, "Pirate answers") as run:
                run.to(State.RUNNING).train(64, seconds_left=140)
                shoot(chrome, app, target, "training", tabs=(0, 1))
        finally:
            app.stop()
    print(f"{len(list(target.glob('*.png')))} pictures in {target}")
    return 0


def shoot(chrome, app: kit.App, target: Path, state: str, tabs: tuple[int, ...], open_first_run: bool = False) -> None:
    for language, size, dark in VIEWS:
        viewport = kit.DESKTOP if size == "desktop" else kit.PHONE
        page, _ = kit.open_page(chrome, app, f"/?lang={language}", viewport=viewport, color_scheme="dark" if dark else "light")
        for tab in tabs:
            kit.go_to_tab(page, TABS[language][tab])
            if open_first_run:
                page.locator("#runs-list label").first.click()
            page.wait_for_timeout(2500)  # the curve, drawn once more after its first answer
            name = f"{state}-{TABS['en'][tab].lower()}-{language}-{size}-{'dark' if dark else 'light'}.png"
            page.screenshot(path=target / name, full_page=True)
        page.context.close()


if __name__ == "__main__":
    sys.exit(main())
