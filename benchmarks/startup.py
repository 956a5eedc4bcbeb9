"""Measures the time from the start of a process to a usable page: LoRA Garage against an empty Gradio page.

    python launch.py test --collect-only -q      # once: installs what this needs
    .venv/bin/python -m benchmarks.startup [--runs 7] [--ready SELECTOR]

Pairs run one after the other (ours, empty, empty, ours, ...), each with a fresh server and a fresh page in one Chromium
that is already open. The clock starts before the process and stops when READY is visible (ours) or the empty page's own
button is. LoRA Garage is started as a person does, through launch.py. Prints each pair, medians and their ratio; exit
status 1 if the ratio is above 1.2.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent
READY = "[role=tab] >> visible=true"  # the first tab of our page: it is there once the page's script has run
EMPTY_READY = "button#empty-ready >> visible=true"
LIMIT = 1.2
EMPTY_PAGE = """
import sys
import gradio as gr
with gr.Blocks() as page:
    gr.Button("ready", elem_id="empty-ready")
page.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True, inbrowser=False)
"""
BROWSER_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def seconds_to_ready(command: list[str], port: int, selector: str, browser: Browser, log: Path) -> float:
    """Start the server and the page; return the seconds. Raises RuntimeError with the log's tail if the page does not
    come within 60 s."""
    environ = os.environ | {"GRADIO_ANALYTICS_ENABLED": "False"}
    page = browser.new_page()
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ, cwd=log.parent)
        try:
            url = f"http://127.0.0.1:{port}/"
            while not answers(url):
                if process.poll() is not None or time.perf_counter() - start > 60:
                    raise RuntimeError(f"{command} did not serve a page:\n" + log.read_text(errors="replace")[-2000:])
                time.sleep(0.01)
            page.goto(url, wait_until="commit")
            page.wait_for_selector(selector, timeout=60_000)
            return time.perf_counter() - start
        finally:
            page.close()
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
        return True
    except (urllib.error.URLError, OSError):
        return False


def browser_path() -> str | None:
    named = os.environ.get("LORA_GARAGE_BROWSER")
    return named or next(filter(None, map(shutil.which, ("google-chrome", "chromium", "chromium-browser"))), None)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=7, help="pairs after one that only warms the disk cache")
    options.add_argument("--ready", default=READY, help="selector that says our page can be used")
    chosen = options.parse_args()
    ours: list[float] = []
    empty: list[float] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=BROWSER_ARGS)
        print(f"{machine.line('gradio', 'playwright')}, Chromium {browser.version}")

        def garage() -> float:
            port = free_port()
            command = [
                sys.executable,
                str(ROOT / "launch.py"),
                "--no-browser",
                "--port",
                str(port),
                "--workspace",
                folder,
            ]
            return seconds_to_ready(command, port, chosen.ready, browser, Path(folder) / "garage.log")

        def blank() -> float:
            port = free_port()
            command = [sys.executable, "-c", EMPTY_PAGE, str(port)]
            return seconds_to_ready(command, port, EMPTY_READY, browser, Path(folder) / "empty.log")

        for pair in range(chosen.runs + 1):
            a, b = (garage(), blank()) if pair % 2 else tuple(reversed((blank(), garage())))
            if pair == 0:
                continue
            ours.append(a)
            empty.append(b)
            print(f"pair {pair}: LoRA Garage {a:.2f} s, empty Gradio page {b:.2f} s, ratio {a / b:.2f}", flush=True)
        browser.close()
    ratio = statistics.median(ours) / statistics.median(empty)
    print(
        f"median of {len(ours)}: LoRA Garage {statistics.median(ours):.2f} s, empty Gradio page "
        f"{statistics.median(empty):.2f} s"
    )
    print(f"ratio of medians {ratio:.2f} (limit {LIMIT}); goal for LoRA Garage 2.5 s")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
