"""Measures the app's own cost while a large file is read on its page, and a person's waiting times there. Part of
`benchmarks.data_import`; Linux.

A real app, and a browser that drops the file as a person does, with the page's one poll a second. Memory is what the
kernel counts for the web process alone (Pss of /proc/PID/smaps_rollup, each 0.1 s), and beside it that of its reading
processes.
"""

from __future__ import annotations

import json
import re
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from core.data.large import dataset_process
from core.data.store import DatasetStore
from core.models import starter
from core.presets import PRESETS
from core.workspace.folder import Workspace
from tests.kit import browser as kit

EACH_S = 0.1
MENDED = 2  # buttons that are pressed: of each kind in every row
LONGEST_MS = 600_000  # of what is waited for


def pss_mib(pid: int) -> float:
    """Return the process's own memory and its share of memory mapped by others too."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:  # it has just ended
        return 0.0
    return int(found[1]) / 1024 if found else 0.0


class Watching:
    """Records the peaks of the web process, and of all processes that it has started, by phase."""

    def __init__(self, pid: int):
        self.pid, self._phase, self._over = pid, "at rest", threading.Event()
        self.peaks: dict[str, tuple[float, float]] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        app = psutil.Process(self.pid)
        while not self._over.wait(EACH_S):
            others = sum(pss_mib(child.pid) for child in app.children(recursive=True))
            web, beside = self.peaks.get(self._phase, (0.0, 0.0))
            self.peaks[self._phase] = max(web, pss_mib(self.pid)), max(beside, others)

    @contextmanager
    def during(self, phase: str) -> Any:
        begun = time.monotonic()
        self._phase = phase
        yield
        print(f"  {phase}: {time.monotonic() - begun:.1f} s", end="")
        time.sleep(2 * EACH_S)
        web, beside = self.peaks.get(phase, (0.0, 0.0))
        print(f", web process {web:.0f} MiB ({web * 1.048576:.0f} MB), beside it {beside:.0f} MiB", flush=True)

    def over(self) -> None:
        self._over.set()
        self._thread.join()


def measure(file: Path, folder: Path, model: Path | None) -> None:
    """Print each phase. model: the starter's folder on this PC; without it there is no preview by tokens."""
    workspace = Workspace.open(folder)
    if model:
        target = starter.folder(workspace.models)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(model, target_is_directory=True)
    app = kit.start_app(workspace.root)
    with kit.browser() as chrome:
        page, _ = kit.open_page(chrome, app)
        page.set_default_timeout(LONGEST_MS)
        watching = Watching(app.process.pid)
        try:
            with watching.during("at rest, a page open"):
                time.sleep(3)
            if file.stat().st_size >= dataset_process.LARGE_BYTES:
                _cancelled(page, file, workspace, app.process.pid)
            else:
                print("  not cancelled: a file of less than 64 MiB is read before anybody presses a button")
            with watching.during("import, to the tokens of a row in the step of the data"):
                page.locator("#file input[type=file]").set_input_files(file)
                page.locator("#learned-row .lg-row-text").wait_for()
            id = next(info.id for info in DatasetStore(workspace.datasets, PRESETS).list() if info.origin == "imported")
            with watching.during("page Data, first rows"):
                kit.go_to_tab(page, "Data")
                kit.choose(page, "#data-sets", id)
                page.locator(".dt-row:not(.dt-waits)").first.wait_for()
            with watching.during("the last of its rows"):
                page.locator(".dt-scroll").evaluate("part => { part.scrollTop = part.scrollHeight; }")
                last = page.locator("[role=grid]").get_attribute("aria-rowcount")
                page.locator(f".dt-row[aria-rowindex='{last}']:not(.dt-waits)").wait_for()
            with watching.during("page Data, what was found"):
                page.locator("#data-found button[data-mend]").first.wait_for()
            _mended(page, watching)
        except Exception:
            raise
        finally:
            watching.over()
            app.stop()


def _cancelled(page: Any, file: Path, workspace: Workspace, pid: int) -> None:
    """Print the seconds from the button to a page as it was, and the remains of the import then."""
    page.locator("#file input[type=file]").set_input_files(file)
    page.locator("#import-progress").wait_for()
    begun = time.monotonic()
    page.locator("#import-cancel").click()
    page.locator("#file-notice").get_by_text("Nothing was added").wait_for()
    page.locator("#import").wait_for(state="hidden")
    seconds = time.monotonic() - begun
    left = [
        path.name
        for path in workspace.datasets.rglob("*")
        if path.name == "importing" or path.name.startswith(".rows-")
    ]
    reading = sum(
        "core.data.large.dataset_worker" in child.cmdline() for child in psutil.Process(pid).children(recursive=True)
    )
    print(
        f"  cancelled on the page: {seconds:.2f} s, left behind: {left or 'nothing'}, processes that still read: "
        f"{reading}"
    )


def _mended(page: Any, watching: Watching) -> None:
    buttons = page.locator("#data-found button[data-mend]")
    for mend in [each.get_attribute("data-mend") for each in buttons.all()[:MENDED]]:
        button = page.locator(f"#data-found button[data-mend={json.dumps(mend)}]")
        field = button.locator("xpath=../input")
        if field.count():
            field.fill("Kim")
        with watching.during(f"button “{button.inner_text()}”"):
            button.click()
            page.locator("#data-undo:not([disabled])").wait_for()
        with watching.during("the set looked at anew"):
            button.wait_for(state="hidden")
        with watching.during("undo"):
            page.locator("#data-undo").click()
            page.locator("#data-redo:not([disabled])").wait_for()
            button.wait_for()  # or what is pressed next would be a button of the version that was left
