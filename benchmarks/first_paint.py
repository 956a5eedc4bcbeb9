"""Measures when a browser shows the page, the bytes it received for it, and layout shifts afterwards: by the browser's
own observers.

    .venv/bin/python -m benchmarks.first_paint [--rounds 5]

An empty workspace, a new visitor each round (nothing cached), 1,280 x 900 and 390 x 844. Prints medians: first paint,
first contentful paint, the moment from which Start is visible and works (goal 2.0 s), kB of our own (the page, its
style sheets, scripts and words, as they came over the line; goal 400) beside gradio's files, and the largest layout
shift after Start was visible (goal 0.05). It decides nothing: a number beside other programs is theirs too.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import machine
from tests.kit import browser as kit

GRADIOS = ("/assets/", "/static/", "/svelte/", "/theme.css", "/favicon.ico")
WATCH = """window.moved = []; new PerformanceObserver(list => {
    for (const each of list.getEntries()) if (!each.hadRecentInput) moved.push([each.startTime, each.value]);
}).observe({ type: "layout-shift", buffered: true });
const seen = setInterval(() => {
    const start = document.querySelector("#start");
    if (start?.checkVisibility() && document.body.classList.contains("lg-arrived")) {
      window.usable = performance.now(); clearInterval(seen); }
}, 10);"""
TOLD = """() => { const paint = Object.fromEntries(performance.getEntriesByType("paint")
  .map(each => [each.name, each.startTime]));
    const files = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    return { first: paint["first-paint"], content: paint["first-contentful-paint"], usable, moved,
             files: files.map(each => [new URL(each.name).pathname, each.transferSize]) }; }"""
SETTLED_MS = 5000  # what comes later than that follows the clock, not the page


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(machine.line("gradio"))
    with tempfile.TemporaryDirectory() as folder, kit.browser() as chrome:
        app = kit.start_app(Path(folder))
        try:
            for size in (kit.DESKTOP, kit.PHONE):
                found = []
                for _ in range(rounds):
                    context = chrome.new_context(viewport=size, locale="en-US")
                    page = context.new_page()
                    page.add_init_script(WATCH)
                    page.goto(app.url)
                    page.wait_for_function("window.usable", timeout=60_000)
                    page.wait_for_timeout(SETTLED_MS)
                    found.append(page.evaluate(TOLD))
                    context.close()
                print(f"{size['width']} px, {rounds} rounds: {told(found)}")
        finally:
            app.stop()


def told(found: list[dict[str, Any]]) -> str:
    def median(values: list[float]) -> float:
        return statistics.median(values)

    seconds = {name: median([each[name] for each in found]) / 1000 for name in ("first", "content", "usable")}
    own = median([sum(size for path, size in each["files"] if not path.startswith(GRADIOS)) for each in found]) / 1000
    whole = median([sum(size for _, size in each["files"]) for each in found]) / 1000
    moved = max(max((value for at, value in each["moved"] if at > each["usable"]), default=0.0) for each in found)
    times = (
        f"first paint {seconds['first']:.2f} s, of contents {seconds['content']:.2f}, usable {seconds['usable']:.2f}"
    )
    return f"{times}; {own:.0f} kB of our own, {whole:.0f} with gradio's; largest shift afterwards {moved:.3f}"


if __name__ == "__main__":
    main()
