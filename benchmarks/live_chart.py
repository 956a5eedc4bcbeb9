"""Measures the cost of the live curves in a browser while a run of 50,000 steps trains.

    python launch.py test --collect-only -q      # once: installs what this needs
    .venv/bin/python -m benchmarks.live_chart [--steps 50000] [--refreshes 60]

A scripted run writes its lines as a worker would; the page opens on it, is filled with the most points that it ever
holds (MAX_HELD in live_chart.js), and then gets one new row a second. Prints, as medians over the refreshes:

* ms of the main thread in each visible chart's drawing (the page's own performance.measure), limit 15
* ms of the main thread for everything in the 2 s of a refresh (CDP's TaskDuration: answer, layout, painting), less
  that of the same page in 2 s without a new row, by visible chart, limit 15
* bytes of an answer by new row, limit 1,024
* JavaScript heap after a garbage collection at the first and the last refresh, limit 1 MB more

Exit status 1 beyond a limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import CDPSession, Page, Response

from benchmarks import machine
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun

CHARTS = ("loss", "rate", "norm", "speed", "memory")
EACH_S = 2.0  # twice the time between two polls
LIMIT_MS, LIMIT_BYTES, LIMIT_HEAP = 15.0, 1024, 1_000_000
MAX_HELD, AT_ONCE = 6000, 1400  # of live_chart.js; rows appended between two polls, fewer than curves.MAX_POINTS
OBSERVE = """
window.drawn = [];
new PerformanceObserver(list => { for (const entry of list.getEntries()) if (entry.name.startsWith('lc-draw-'))
    window.drawn.push([entry.name.slice(8), entry.duration]); }).observe({ entryTypes: ['measure'] });
"""


class Browsing:
    """A page on the run, and the cost of its answers and its main thread."""

    def __init__(self, page: Page):
        self.page = page
        self.cdp: CDPSession = page.context.new_cdp_session(page)
        self.cdp.send("Performance.enable")
        self._responses: list[Response] = []
        page.on("response", self._keep)

    def _keep(self, response: Response) -> None:
        if "component_server" in response.url and '"curve"' in (response.request.post_data or ""):
            self._responses.append(response)

    def answers(self) -> list[tuple[int, int]]:
        """Return (bytes, new rows) of the answers with new rows since the last call."""
        bodies = [response.body() for response in self._responses]
        self._responses.clear()
        return [(len(body), rows) for body in bodies if (rows := len(json.loads(body)["x"]))]

    def wait_for(self, step: int) -> None:
        """Wait until the page has drawn this step."""
        label = f"document.querySelector('#live-chart .lc-plot')?.getAttribute('aria-label').includes('step {step} ')"
        self.page.wait_for_function(label, timeout=60_000, polling=100)

    def metric(self, name: str) -> float:
        metrics = self.cdp.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == name)

    def busy_ms(self, run: ScriptedRun, rows: int) -> float:
        """Return ms of the main thread in EACH_S; the run's state.json changes with and without new rows."""
        before, start = self.metric("TaskDuration"), time.monotonic()
        run.train(rows)
        self.wait_for(run.step)
        time.sleep(max(0.0, start + EACH_S - time.monotonic()))
        return 1000 * (self.metric("TaskDuration") - before)

    def heap(self) -> float:
        self.cdp.send("HeapProfiler.collectGarbage")
        return self.metric("JSHeapUsedSize")


def measure(run: ScriptedRun, browsing: Browsing, refreshes: int) -> list[str]:
    """Print the figures and return those beyond their limit."""
    held = browsing.answers()[-1][1]
    while held + AT_ONCE + refreshes < MAX_HELD:
        run.train(AT_ONCE)
        browsing.wait_for(run.step)
        held += AT_ONCE
    run.train(1)
    browsing.wait_for(run.step)
    browsing.page.evaluate("window.drawn = []")
    browsing.answers()
    heaps = [browsing.heap()]
    busy = [browsing.busy_ms(run, rows=1) for _ in range(refreshes)]
    heaps.append(browsing.heap())
    quiet = statistics.median(browsing.busy_ms(run, rows=0) for _ in range(refreshes // 3))
    drawn = browsing.page.evaluate("window.drawn")
    failures = []

    def judge(what: str, values: list[float], unit: str, limit: float) -> None:
        middle = statistics.median(values)
        print(f"{what}: {middle:,.1f} {unit} (largest {max(values):,.1f}, {len(values)} times; limit {limit:,.0f})")
        if middle > limit:
            failures.append(what)

    print(f"{run.step:,} steps on disk, {held + refreshes:,} held by the page")
    for chart in CHARTS:
        judge(f"drawing {chart}", [ms for name, ms in drawn if name == chart], "ms", LIMIT_MS)
    judge("main thread by visible chart", [(ms - quiet) / len(CHARTS) for ms in busy], "ms", LIMIT_MS)
    print(
        f"(of the whole page: {statistics.median(busy):.0f} ms in {EACH_S:.0f} s with a new row, {quiet:.0f} ms "
        f"without)"
    )
    judge("answer by new row", [size / rows for size, rows in browsing.answers()], "bytes", LIMIT_BYTES)
    print(
        f"heap: {heaps[0] / 1e6:.2f} MB, {heaps[-1] / 1e6:.2f} MB after {refreshes} refreshes (limit "
        f"{LIMIT_HEAP / 1e6:.0f} MB more)"
    )
    return failures + (["heap"] if heaps[-1] - heaps[0] > LIMIT_HEAP else [])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=50_000)
    options.add_argument("--refreshes", type=int, default=60)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, kit.browser() as chrome:
        print(f"{machine.line('gradio', 'playwright', 'youplot')}, Chromium {chrome.version}")
        workspace = Workspace.open(Path(folder) / "workspace")
        with ScriptedRun(workspace, "long one", total_steps=10 * chosen.steps) as run:
            run.to(State.RUNNING).train(chosen.steps)
            app = kit.start_app(workspace.root)
            try:
                page, _ = kit.open_page(chrome, app)
                browsing = Browsing(page)
                page.reload()
                page.evaluate(OBSERVE)
                browsing.wait_for(run.step)
                failures = measure(run, browsing, chosen.refreshes)
            finally:
                app.stop()
    print("beyond the limit: " + ", ".join(failures) if failures else "all within the limits")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
