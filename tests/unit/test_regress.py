"""The ratios that are held from one measurement to the next: what counts as slower."""

from __future__ import annotations

import json

import pytest

from benchmarks import regress


@pytest.mark.parametrize(("ratio", "slower"), [(0.90, []), (0.86, []), (0.85, ["step"]), (1.2, [])])
def test_more_than_five_per_cent_below_is_slower(ratio: float, slower: list[str]) -> None:
    assert regress.fallen({"step": ratio, "new": 0.01}, {"step": {"ratio": 0.9}, "other": {"ratio": 9.0}}) == slower


def test_what_was_accepted_names_its_machine_and_is_still_measured() -> None:
    accepted = json.loads(regress.ACCEPTED.read_text("utf-8"))
    assert accepted.keys() == regress.MEASURED.keys()
    assert all(0 < one["ratio"] < 1.5 and "torch" in one["machine"] and one["commit"] for one in accepted.values())
