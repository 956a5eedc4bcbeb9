"""Asynchronous work on the null card: the product's copies and kernels are ordered, and each check fails where a
fault is planted.

Three instruments, each of which sees what the others cannot: copies that happen late, kernels that run late (the
numbers differ where a buffer was used too early or overwritten too early), and the check of every access
(NULLCARD_RACES), which needs no luck.
"""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from core.presets import PROJECT
from core.runs.folder import RunFolder
from tests.card.card import NullCard
from tests.card.place import LIMIT_S, Place, largest_difference

CHECKED = {"NULLCARD_RACES": "1"}
LATE_COPIES, LATE_KERNELS = {"NULLCARD_DEFER": "copies"}, {"NULLCARD_DEFER": "kernels"}
RIGHT = ("right", "recorded", "put aside", "streamed", "went on")
# Of tests/card/planted_races.py: what the check says of each.
PLANTED = {
    "no wait": "reads memory that a copy to the card",
    "event elsewhere": "reads memory that a copy to the card",
    "overwritten": "writes memory that aten::add on the default stream reads",
    "refilled": "aten::fill_ on the host writes memory that a copy to the card",
    "read early": "aten::add on the host reads memory that a copy to the host",
    "freed in flight": "cudaFreeHost on the host writes memory that a copy to the card",
    "not recorded": "writes memory that aten::mul on the default stream reads",
    "streamed, no wait": "on the default stream reads memory that a copy to the card",
    "streamed, event elsewhere": "on the default stream reads memory that a copy to the card",
    "streamed, overwritten": "writes memory that aten::mm on the default stream reads",
    "streamed, staging filled early": "aten::copy_ on the host writes memory that a copy to the card",
}
WAYS: dict[str, dict[str, Any]] = {
    "offloaded layers": {"train": {"gradient_checkpointing": True, "offload_layers": 2}},
    "qlora": {"adapter": {"method": "qlora"}, "train": {"gradient_checkpointing": True, "optim": "adamw_8bit"}},
}


@lru_cache
def outcomes(*settings: tuple[str, str]) -> dict[str, dict[str, Any]]:
    card = NullCard()
    done = subprocess.run(
        [card.python, PROJECT / "tests/card/planted_races.py"], cwd=PROJECT,
        env=card.environment(dict(settings) | {"OMP_NUM_THREADS": "1"}), capture_output=True, encoding="utf-8",
        timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {line["case"]: line for line in map(json.loads, done.stdout.splitlines())}


def of(settings: dict[str, str]) -> dict[str, dict[str, Any]]:
    return outcomes(*settings.items())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, starter_folder: Path) -> Place:
    return Place.make(tmp_path_factory.mktemp("races"), tiny_model.parent, starter_folder)


@pytest.mark.parametrize("settings", [CHECKED, LATE_COPIES, LATE_KERNELS], ids=["checked", "copies", "kernels"])
@pytest.mark.parametrize("case", RIGHT)
def test_ordered_work_gives_the_same_numbers_and_is_no_race(case: str, settings: dict[str, str]) -> None:
    assert of(settings)[case] == {"case": case, "race": None, "same": True}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_race_is_named(case: str) -> None:
    assert PLANTED[case] in (of(CHECKED)[case]["race"] or "")


@pytest.mark.parametrize(
    "case", ["no wait", "event elsewhere", "refilled", "read early", "streamed, no wait", "streamed, event elsewhere"]
)
def test_a_copy_that_happens_late_shows_who_did_not_wait_for_it(case: str) -> None:
    assert not of(LATE_COPIES)[case]["same"]


def test_pinned_memory_that_a_late_copy_needs_cannot_be_freed() -> None:
    assert "cudaFreeHost of pinned memory that a copy still needs" in of(LATE_COPIES)["freed in flight"]["race"]


@pytest.mark.parametrize("case", ["overwritten", "streamed, overwritten"])
def test_a_kernel_that_runs_late_shows_who_overwrote_what_it_reads(case: str) -> None:
    assert not of(LATE_KERNELS)[case]["same"]


@pytest.fixture(scope="module")
def at_once(place: Place) -> dict[str, RunFolder]:
    return {way: place.train(way.replace(" ", "-"), **sections) for way, sections in WAYS.items()}


@pytest.mark.parametrize("late", [LATE_COPIES, LATE_KERNELS], ids=["copies", "kernels"])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_whose_work_happens_late_has_no_race_and_the_same_adapter(
    way: str, late: dict[str, str], place: Place, at_once: dict[str, RunFolder]
) -> None:
    name = f"late-{late['NULLCARD_DEFER']}-{way.replace(' ', '-')}"
    run = place.train(name, settings=CHECKED | late, **WAYS[way])
    assert largest_difference(run, at_once[way]) == 0
