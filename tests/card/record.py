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
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from core.presets import PROJECT

PAGE = PROJECT / "docs/null-card-record.md"
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

    @property
    def sentence(self) -> str:
        """The test's name in words."""
        name, _, parameters = self.test.rpartition("::")[2].removesuffix("]").partition("[")
        return name.removeprefix("test_").replace("_", " ") + (f" ({parameters})" if parameters else "")


OUTCOMES = ("passed", "failed", "skipped")
HEAD = (
    "| tests | passed | failed | skipped | minutes | launches | waits | peak MiB |\n|---|---|---|---|---|---|---|---|"
)


def row(name: str, lines: Sequence[Line]) -> str:
    """One row of the table: the outcomes of `lines`, their time, what they launched and waited for, the largest
    peak."""
    numbers = [sum(line.outcome == outcome for line in lines) for outcome in OUTCOMES]
    numbers += [round(sum(line.seconds for line in lines) / 60)]
    numbers += [sum(line.counts.launches for line in lines), sum(line.counts.waits for line in lines)]
    peak = max((line.counts.peak_bytes for line in lines), default=0)
    return f"| {name} | " + " | ".join(f"{number:,}" for number in [*numbers, round(peak / 2**20)]) + " |"


def page(heading: str, files: Sequence[str], lines: Sequence[Line]) -> str:
    """The record in Markdown: what ran, a row for each file, and the reason of each test that did not pass."""
    tables = [row(f"`{file}`", [line for line in lines if line.test.startswith(file)]) for file in files]
    others = [f"* {line.outcome}: {line.sentence}: {line.why}" for line in lines if line.outcome != "passed"]
    parts = [
        "# What ran on the null card",
        "**No real GPU has run LoRA Garage.** The CUDA build of PyTorch ran on [a GPU on host memory](null-card.md), "
        "which "
        "[cannot show](null-card.md#what-it-cannot-show) speed or a kernel's correctness. Written by `python launch.py "
        "test --card --record`.",
        f"{heading}:",
        "\n".join([HEAD, *tables, row("all", lines)]),
        "Launches are kernels, waits the times that the host waited for the card. The peak is the most memory that one "
        "process held, with an invented context of 300 MiB; killed processes report nothing.",
        "\n".join(others),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


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
