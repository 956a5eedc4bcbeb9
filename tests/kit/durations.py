"""How long each test took, kept as a file of each run, slowest first: `<test cache>/durations/<when>.tsv`, the newest KEPT."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

import pytest

KEPT = 20


def cache() -> Path:
    """LORA_GARAGE_TEST_CACHE, by default tests/.cache."""
    return Path(os.environ.get("LORA_GARAGE_TEST_CACHE") or Path(__file__).parents[1] / ".cache")


class Durations:
    """A plugin of the process that prints; xdist hands it the reports of its workers."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._began = time.time()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._seconds:
            return
        slowest = sorted(self._seconds.items(), key=lambda pair: -pair[1])
        head = f"# {time.strftime('%Y-%m-%d %H:%M')}, {time.time() - self._began:.0f} s in all, {sum(self._seconds.values()):.0f} s of tests"
        lines = [head, *(f"{seconds:.2f}\t{test}" for test, seconds in slowest)]
        folder = cache() / "durations"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / time.strftime("%Y-%m-%d_%H%M%S.tsv")).write_text("\n".join(lines) + "\n", "utf-8", newline="\n")
        for old in sorted(folder.glob("*.tsv"))[:-KEPT]:
            old.unlink(missing_ok=True)
