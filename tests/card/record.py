"""What each test did on the null card: a pytest plugin that writes it (`-p tests.card.record`), and the page made of
it.

The plugin appends one line of JSON to LORA_GARAGE_CARD_RECORD after each test: its name, outcome and seconds, what the
processes that it started have reported (NULLCARD_REPORT of null/runtime.c) and, where pytest itself is on the card,
what pytest did. A process that is killed reports nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from core.presets import PROJECT

PAGE, EXPLAINED = PROJECT / "docs/null-card-record.md", PROJECT / "docs/null-card.md"
MOST_CASES = 6  # of one test, each with a row of its own
# Where the host waits for the card; a blocking copy of torch's own waits by the first.
WAITS = {
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "copy D2H blocking",
    "copy H2D blocking",
}


@dataclass(frozen=True)
class Counts:
    """Kernels launched, times that the host waited, and the most bytes of the card that one process held."""

    launches: int = 0
    waits: int = 0
    peak_bytes: int = 0

    @classmethod
    def of_report(cls, text: str) -> Counts:
        lines = [line.split(" ", 2) for line in text.splitlines()]
        return cls(
            sum(int(line[1]) for line in lines if line[0] == "kernel"),
            sum(int(line[1]) for line in lines if line[0] == "call" and line[2] in WAITS),
            max((int(line[1]) for line in lines if line[0] == "peak"), default=0),
        )


@dataclass(frozen=True)
class Line:
    """One test. why: the first line of a failure, or the reason of a skip."""

    test: str
    outcome: str
    seconds: float
    counts: Counts
    why: str = ""

    @classmethod
    def read(cls, file: Path) -> list[Line]:
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        return [cls(**value | {"counts": Counts(**value["counts"])}) for value in map(json.loads, lines)]

    def row(self) -> str:
        """Of the table: the test's name as a sentence."""
        name, _, parameters = self.test.rpartition("::")[2].removesuffix("]").partition("[")
        sentence = name.removeprefix("test_").replace("_", " ") + (f" ({parameters})" if parameters else "")
        counts = self.counts
        ran = (
            (f"{counts.launches:,}", f"{counts.waits:,}", f"{counts.peak_bytes / 2**20:,.0f}")
            if counts.launches
            else ("", "", "")
        )
        cells = (sentence, self.outcome, f"{self.seconds:.0f}" if self.seconds >= 0.5 else "", *ran, self.why)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def together(lines: Sequence[Line]) -> list[Line]:
    """One line for the cases of a test that has more than MOST_CASES and passed them all."""
    by_test: dict[str, list[Line]] = {}
    for line in lines:
        by_test.setdefault(line.test.partition("[")[0], []).append(line)
    shown: list[Line] = []
    for test, cases in by_test.items():
        if len(cases) <= MOST_CASES or any(case.outcome != "passed" for case in cases):
            shown += cases
            continue
        launches, waits = (sum(getattr(case.counts, name) for case in cases) for name in ("launches", "waits"))
        counts = Counts(launches, waits, max(case.counts.peak_bytes for case in cases))
        shown.append(Line(f"{test}[{len(cases)} cases]", "passed", sum(case.seconds for case in cases), counts))
    return shown


HEAD = "| journey | | seconds | launches | waits | peak MiB | why |\n|---|---|---|---|---|---|---|"


def page(heading: str, files: Sequence[str], lines: Sequence[Line]) -> str:
    """The record in Markdown: what the null card cannot show, then a table for each file."""
    cannot = re.search(r"## What it cannot show\n+(.+?)\n+## ", EXPLAINED.read_text("utf-8"), re.DOTALL)
    assert cannot, f"{EXPLAINED} says no longer what the null card cannot show"
    passed, failed, skipped = (
        sum(line.outcome == outcome for line in lines) for outcome in ("passed", "failed", "skipped")
    )
    parts = [
        "# What ran on the null card",
        "**No real GPU has run LoRA Garage.** The CUDA build of PyTorch ran on [a GPU on host memory](null-card.md); "
        "`python launch.py test --card --record` writes this page. Launches are kernels, waits the times that the host "
        "waited for the "
        "card, the peak is the most memory that one process held, with a context of 300 MiB that is invented. A "
        "process that is killed, such as "
        "the one of a chat, reports nothing; a run that several tests look at is told by the first of them.",
        "What it cannot show:",
        cannot[1],
        (
            f"{heading}: {passed} passed, {failed} failed, {skipped} skipped, "
            f"{sum(line.seconds for line in lines) / 60:.0f} minutes."
        ),
    ]
    for file in files:
        parts += [
            f"## {file}",
            "\n".join(
                [HEAD, *(line.row() for line in together([line for line in lines if line.test.startswith(file)]))]
            ),
        ]
    return "\n\n".join(parts) + "\n"


# ---- the plugin ----------------------------------------------------------------------------------


class Recorder:
    def __init__(self, into: Path):
        self.into, self.report = into, into.with_suffix(".counts")
        self.seconds, self.outcome, self.why = 0.0, "passed", ""
        on_card = "libcudart" in os.environ.get("LD_PRELOAD", "")
        self.library: Any = ctypes.CDLL(None) if on_card else None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.seconds, self.outcome, self.why = 0.0, "passed", ""
        self.report.unlink(missing_ok=True)
        os.environ["NULLCARD_REPORT"] = str(self.report)
        if self.library:
            self.library.nullcard_reset()
        result = yield
        del os.environ["NULLCARD_REPORT"]
        if self.library:
            self.library.nullcard_write(str(self.report).encode())
        counts = Counts.of_report(self.report.read_text("utf-8", "replace") if self.report.exists() else "")
        line = Line(item.nodeid, self.outcome, round(self.seconds, 1), counts, self.why)
        with open(self.into, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds += report.duration
        if report.passed or self.outcome == "failed":
            return
        self.outcome = report.outcome
        reason = (
            report.longrepr[2]
            if isinstance(report.longrepr, tuple)
            else getattr(report.longrepr, "reprcrash", report.longrepr)
        )
        words = str(getattr(reason, "message", reason)).strip().splitlines()
        self.why = words[0].removeprefix("Skipped: ")[:200] if words else ""


def pytest_configure(config: pytest.Config) -> None:
    if into := os.environ.get("LORA_GARAGE_CARD_RECORD"):
        config.pluginmanager.register(Recorder(Path(into)))
