"""How long each test took, kept as a file of each run, slowest first: `<test cache>/durations/<when>.tsv`, the newest
KEPT.

    python -m tests.kit.durations [FILE]    writes tests/durations.tsv from that run, by default the newest of the whole
                                            suite

tests/durations.tsv holds each test that takes SHOWN_S or more, its parameters together. A run names the tests that took
SLOWER times
as long as it says, which fails nothing: what else the machine did is not known.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

KEPT = 20
SHARES = Path(__file__).parents[1] / "durations.tsv"
SHOWN_S, SLOWER, NOTABLE_S = 0.2, 3.0, 5.0  # a test is named for its time from NOTABLE_S on
WHOLE = 3000  # tests of a run, parameters counted, that can only be the whole suite


def cache() -> Path:
    """LORA_GARAGE_TEST_CACHE, by default tests/.cache."""
    return Path(os.environ.get("LORA_GARAGE_TEST_CACHE") or Path(__file__).parents[1] / ".cache")


def read(file: Path) -> dict[str, float]:
    """Test as pytest names it, its parameters together -> seconds."""
    seconds: dict[str, float] = defaultdict(float)
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            took, test = line.split("\t")
            seconds[test.partition("[")[0]] += float(took)
    return dict(seconds)


def kept() -> dict[str, float]:
    """tests/durations.tsv; empty where it is not there yet."""
    return read(SHARES) if SHARES.exists() else {}


def keep(file: Path) -> None:
    slowest = sorted(((took, test) for test, took in read(file).items() if took >= SHOWN_S), reverse=True)
    head = file.read_text("utf-8").partition("\n")[0]
    SHARES.write_text(
        "\n".join([head, *(f"{took:.1f}\t{test}" for took, test in slowest)]) + "\n", "utf-8", newline="\n"
    )


class Durations:
    """A plugin of the process that prints; xdist hands it the reports of its workers."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._began = time.time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        shares, took = kept(), defaultdict(float)
        for test, seconds in self._seconds.items():
            took[test.partition("[")[0]] += seconds
        slow = [
            (test, seconds)
            for test, seconds in took.items()
            if seconds > max(NOTABLE_S, SLOWER * shares.get(test, SHOWN_S))
        ]
        if slow:
            terminalreporter.section(f"tests that took {SLOWER:g} times as long as tests/durations.tsv says")
            for test, seconds in sorted(slow, key=lambda pair: -pair[1]):
                terminalreporter.write_line(f"{seconds:.1f} s instead of {shares.get(test, SHOWN_S):.1f}: {test}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._seconds:
            return
        slowest = sorted(self._seconds.items(), key=lambda pair: -pair[1])
        head = (
            f"# {time.strftime('%Y-%m-%d %H:%M')}, {time.time() - self._began:.0f} s in all, "
            f"{sum(self._seconds.values()):.0f} s of tests"
        )
        lines = [head, *(f"{seconds:.2f}\t{test}" for test, seconds in slowest)]
        folder = cache() / "durations"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / time.strftime("%Y-%m-%d_%H%M%S.tsv")).write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
        for old in sorted(folder.glob("*.tsv"))[:-KEPT]:
            old.unlink(missing_ok=True)


if __name__ == "__main__":
    runs = [Path(sys.argv[1])] if len(sys.argv) > 1 else sorted((cache() / "durations").glob("*.tsv"))
    whole = [run for run in runs if len(run.read_text("utf-8").splitlines()) > WHOLE]
    if not whole:
        sys.exit("no run of the whole suite is kept: python launch.py test")
    keep(whole[-1])
