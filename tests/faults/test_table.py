"""The page of injected faults."""

from __future__ import annotations

from pathlib import Path

from tests.faults.table import FaultTable


def test_a_run_of_some_tests_brings_its_own_rows_up_to_date_and_keeps_the_others(tmp_path: Path):
    page, kept = tmp_path / "faults.md", tmp_path / "faults.tsv"
    first, second = FaultTable(), FaultTable()
    first.add("killed", "worker", 10, "nothing; at most 1 of 2 steps back")
    first.add("disk full", "worker", 3)
    first.write(page, full=True, kept=kept)
    second.add("disk full", "worker")
    second.add("disk full", "worker", 4)
    second.write(page, full=False, kept=kept)
    assert [line.split("\t")[:5] for line in kept.read_text("utf-8").splitlines()] == [
        ["injected", "into", "times", "lost", "form"],
        ["disk full", "worker", "5", "nothing", "short"],
        ["killed", "worker", "10", "nothing; at most 1 of 2 steps back", "full"],
    ]
    assert "| worker | 2 | 15 | nothing; at most 1 of 2 steps back | " in page.read_text("utf-8")
