"""Measures whether the page stays fluent while a run trains on the same processor: by the browser's own observers.

    .venv/bin/python -m benchmarks.page_while_training [--seconds 30]

A new workspace, 1,280 x 900; a sample set is chosen and Start pressed in the browser. Every second another tab is
opened, first at rest, then while the run trains. Prints for both times the longest frame and how many took more than 50
ms (the goal: none), the browser's own count of tasks above 50 ms, and the time of the page's requests, median and
longest (the goal: 200 ms). A headless Chromium draws on the processor, where a PC uses a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import beside_busy, machine
from core.runs.all import Runs
from core.workspace.folder import Workspace
from tests.kit import browser as kit

FRAME_MS, WARM_LINES = 50.0, 5
# The gap between two frames has what the browser waited for too; a long task is script, style and layout alone.
WATCH = """() => { window.frames_ = []; window.tasks_ = []; let before = performance.now();
    const next = now => { frames_.push(now - before); before = now; requestAnimationFrame(next); };
    requestAnimationFrame(now => { before = now; requestAnimationFrame(next); });
    new PerformanceObserver(list => list.getEntries().forEach(each => tasks_.push(each.duration))).observe({
      type: "longtask" });
    performance.clearResourceTimings(); performance.setResourceTimingBufferSize(5000); }"""
TOLD = """() => ({ frames: frames_, tasks: tasks_, answers: performance.getEntriesByType("resource")
    .filter(each => /run\\/predict|component_server/.test(each.name)).map(each => each.duration) })"""
TABS = ("Data", "Runs", "Settings", "Train")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=30, help="at rest, and as many while it trains")
    parser.add_argument("--models", type=Path, help="a workspace whose starter model may be used")
    chosen = parser.parse_args()
    print(machine.line("gradio", "torch"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, kit.browser() as chrome:
        space = Workspace.open(folder)
        if chosen.models:
            space.models.rmdir()
            space.models.symlink_to(chosen.models.absolute() / "models")
        app = kit.start_app(space.root)
        try:
            page = chrome.new_context(viewport=kit.DESKTOP, locale="en-US").new_page()
            page.goto(app.url)
            page.wait_for_function("document.body.classList.contains('lg-arrived')", timeout=60_000)
            print(told("at rest", watched(page, chosen.seconds)))
            kit.go_to_tab(page, "Train")
            kit.choose(page, "#data", "sample:pirate_answers")
            page.locator("#start:enabled").click()
            beside_busy.until(
                lambda: any(len(run.metrics().records) > WARM_LINES for run in Runs(space).list()), app.process
            )
            print(told("while it trains", watched(page, chosen.seconds)))
        finally:
            app.stop()


def watched(page: Any, seconds: int) -> dict[str, list[float]]:
    page.evaluate(WATCH)
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        kit.go_to_tab(page, TABS[number % len(TABS)])
        number += 1
        page.wait_for_timeout(1000)
    return page.evaluate(TOLD)


def told(when: str, found: dict[str, list[float]]) -> str:
    long = [each for each in found["frames"] if each > FRAME_MS]
    answers = found["answers"]
    frames = (
        f"longest frame {max(found['frames']):.0f} ms, {len(long)} of {len(found['frames'])} above "
        f"{FRAME_MS:.0f} "
        f"ms, {len(found['tasks'])} long tasks"
    )
    return (
        f"{when}: {frames}; {len(answers)} answers, median {statistics.median(answers):.0f} ms, longest "
        f"{max(answers):.0f} ms"
    )


if __name__ == "__main__":
    main()
