"""Checks that the app and its pages do not grow during a long run.

    python launch.py test --collect-only -q      # once: installs what this needs
    .venv/bin/python -m benchmarks.soak [--steps 100000] [--pages 4] [--rate 100]

A scripted worker (a process of its own) writes `--steps` training lines at `--rate` a second, with the evaluations,
events and states that belong to them, while `--pages` browser pages are open on the run and poll as usual. Prints at
each tenth the memory of the app (RSS) and of each page (JavaScript heap after a garbage collection).

The first half is for caches, imports and the chart's points to fill up. Over the second half the app may grow by the
size of its curves (60 bytes a step, webui/state/curves.py) and APP_MB, a page by PAGE_MB: exit status 1 beyond that.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from playwright.sync_api import CDPSession, Page

from benchmarks import machine
from core.presets import PROJECT
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import browser as kit
from tests.kit.runs import ScriptedRun

APP_MB, PAGE_MB, CURVE_BYTES = 8.0, 1.5, 64
WRITER = """
import sys, time
from pathlib import Path
from core.runs.folder import RunFolder
from tests.kit.runs import ScriptedRun
run = ScriptedRun.__new__(ScriptedRun)
run.run, run.step, run.total_steps = RunFolder(Path(sys.argv[1])), 0, int(sys.argv[2])
steps, rate, started = int(sys.argv[2]), float(sys.argv[3]), time.monotonic()
BATCH = 20
while run.step < steps:
    run.train(min(BATCH, steps - run.step))
    if run.step % 100 == 0:
        for stage in ("measuring", "saving", "training"):
            run.run.log_event("stage", stage=stage)
        run.run.log_event("checkpoint", step=run.step, checkpoint=f"checkpoint-{run.step:06d}")
    time.sleep(max(0.0, started + run.step / rate - time.monotonic()))
"""


@dataclass(frozen=True)
class Look:
    """Megabytes at one moment of the soak."""

    step: int
    seconds: float
    app: float
    pages: tuple[float, ...]

    def __str__(self) -> str:
        pages = " ".join(f"{heap:6.2f}" for heap in self.pages)
        return f"{self.step:>8,} steps {self.seconds:7.0f} s   app {self.app:7.1f} MB   pages {pages} MB"


class Soak:
    def __init__(self, run: RunFolder, app: kit.App, pages: list[Page]):
        self.run = run
        self.app = psutil.Process(app.process.pid)
        self.pages: list[CDPSession] = [page.context.new_cdp_session(page) for page in pages]
        self.started = time.monotonic()
        for session in self.pages:
            session.send("Performance.enable")

    def look(self) -> Look:
        heaps = []
        for session in self.pages:
            heaps.append(min(self._heap(session) for _ in range(3)))  # an answer that is being read is no leak
        return Look(
            self.run.status().step, time.monotonic() - self.started, self.app.memory_info().rss / 1e6, tuple(heaps)
        )

    @staticmethod
    def _heap(session: CDPSession) -> float:
        session.send("HeapProfiler.collectGarbage")
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(metric["value"] for metric in metrics if metric["name"] == "JSHeapUsedSize") / 1e6


def beyond(looks: list[Look]) -> list[str]:
    """Return the processes that grew more over the second half than allowed."""
    half, last = looks[len(looks) // 2], looks[-1]
    allowed = APP_MB + CURVE_BYTES * (last.step - half.step) / 1e6
    found = []
    if last.app - half.app > allowed:
        found.append(
            f"the app grew by {last.app - half.app:.1f} MB in {last.step - half.step:,} steps (limit {allowed:.1f})"
        )
    for number, (before, now) in enumerate(zip(half.pages, last.pages, strict=True), 1):
        if now - before > PAGE_MB:
            found.append(
                f"page {number} grew by {now - before:.2f} MB in {last.step - half.step:,} steps (limit {PAGE_MB})"
            )
    return found


def soak(folder: Path, steps: int, pages: int, rate: float, looks_wanted: int = 10) -> list[Look]:
    workspace = Workspace.open(folder)
    with kit.browser() as chrome, ScriptedRun(workspace, "soak", total_steps=steps) as scripted:
        scripted.to(State.RUNNING)
        app = kit.start_app(workspace.root)
        writer = None
        try:
            opened = [kit.open_page(chrome, app, ("/?lang=en", "/zh")[number % 2])[0] for number in range(pages)]
            watched = Soak(scripted.run, app, opened)
            command = [sys.executable, "-c", WRITER, str(scripted.run.path), str(steps), str(rate)]
            writer = subprocess.Popen(command, cwd=PROJECT)
            looks = [watched.look()]
            print(looks[-1], flush=True)
            while looks[-1].step < steps:
                wanted = steps * len(looks) // looks_wanted
                while scripted.run.status().step < wanted:
                    if writer.poll() not in (None, 0):
                        raise RuntimeError(f"the writer ended with {writer.returncode}")
                    opened[0].wait_for_timeout(500)
                for page in opened:  # until it has drawn something of now: a page that sleeps proves nothing
                    page.wait_for_function(
                        "step => { const said = document.querySelector('#live-chart "
                        ".lc-plot')?.getAttribute('aria-label') ?? '';"
                        " const found = said.match(/[\\d,]{2,}/g) ?? ['0'];"
                        " return Math.max(...found.map(n => Number(n.replaceAll(',', '')))) >= step; }",
                        arg=wanted // 2, timeout=60_000, polling=500,
                    )  # fmt: skip
                looks.append(watched.look())
                print(looks[-1], flush=True)
            return looks
        finally:
            if writer:
                writer.kill()
                writer.wait()
            app.stop()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=100_000)
    options.add_argument("--pages", type=int, default=4)
    options.add_argument("--rate", type=float, default=100.0, help="steps a second")
    chosen = options.parse_args()
    print(machine.line("gradio", "playwright", "youplot"))
    with tempfile.TemporaryDirectory() as folder:
        looks = soak(Path(folder), chosen.steps, chosen.pages, chosen.rate)
    failures = beyond(looks)
    print("\n".join(failures) or "all within the limits")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
