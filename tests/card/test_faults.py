"""What goes wrong with a card: memory refused, pinning refused, an old driver, a card that disappears. Nothing is
lost by it.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from core.presets import PROJECT
from core.runs.folder import RunFolder
from core.runs.states import State
from tests.card.card import NullCard
from tests.card.place import LIMIT_S, Place, largest_difference, losses

OFFLOADED: dict[str, Any] = {"train": {"gradient_checkpointing": True, "offload_layers": 2}}
SAVING: dict[str, Any] = {"train": {"save_steps": 2, "max_steps": 8}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, starter_folder: Path) -> Place:
    return Place.make(tmp_path_factory.mktemp("faults"), tiny_model.parent, starter_folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def undisturbed(place: Place, report: Path) -> RunFolder:
    return place.train("undisturbed", {"NULLCARD_REPORT": str(report / "undisturbed")}, **SAVING)


def counted(report: Path, name: str) -> int:
    """How often all processes together called a function of the card, or met what the card names so."""
    return sum(int(number) for number in re.findall(rf"^call (\d+) {name}$", report.read_text(), re.M))


def test_where_nothing_can_be_pinned_layers_are_still_offloaded(place: Place) -> None:
    at_once = place.train("pinned", **OFFLOADED)
    refused = place.train("refused", settings={"NULLCARD_REFUSE_PINS": "8192"}, **OFFLOADED)
    assert largest_difference(at_once, refused) == 0
    assert "offload.unpinned" in json.dumps(refused.events())


def test_no_refused_allocation_of_a_step_costs_what_was_learned(tmp_path: Path) -> None:
    """Every tenth tensor of a step in turn (tests/card/refusals.py): the step is computed with less memory, and
    gives the same adapter. Before the first step, where nothing is learned yet, a run may end with its sentence;
    begun again it gives the same adapter."""
    card = NullCard()
    settings = {"NULLCARD_REFUSE_TIMES": "1", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [card.python, PROJECT / "tests/card/refusals.py", tmp_path], cwd=PROJECT, env=card.environment(settings),
        capture_output=True, encoding="utf-8", timeout=3 * LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    steps, *refusals = map(json.loads, done.stdout.splitlines())
    print(f"{len(refusals)} allocations refused in turn, of {steps['last']}")
    in_step = [each for each in refusals if each["nth"] > steps["first"]]
    assert len(in_step) >= (steps["last"] - steps["first"]) // 10
    for each in refusals:
        assert each["refused"] == 1, each
        assert each["far"] < 1e-5, each
    for each in in_step:
        assert each["error"] is None and (each["retreats"] or each["not_measured"]), each
    for each in refusals:
        assert each["error"] in (None, "This run ran out of memory."), each


def test_a_refused_allocation_costs_no_run(place: Place, undisturbed: RunFolder, report: Path) -> None:
    """Whole runs with torch's own cache, whose second attempt is refused too. Either the run completes with what it
    gave up in its events, or it ends with one sentence and completes once it is begun again."""
    seed = int(time.time())
    there = counted(report / "undisturbed", "allocation")
    points = sorted(random.Random(seed).sample(range(1, there + 1), min(3, there)))
    print(f"seed {seed}: allocations {points} of {there}")
    for nth in points:
        name = f"refused-{nth}"
        met = report / name
        done = place.command(
            "train",
            place.recipe(name, **SAVING),
            "--json",
            settings={"NULLCARD_REFUSE_NTH": str(nth), "NULLCARD_REPORT": str(met)},
        )
        run = place.run(name)
        assert counted(met, "refused allocation") == 2, (nth, done.stderr, run.log_tail())
        status = run.status()
        if status.state != State.COMPLETED:
            assert status.state == State.FAILED and status.message is not None, (nth, run.log_tail())
            assert status.message.render("en") == "This run ran out of memory.", nth
            done = place.command("resume", run.id)
            assert done.returncode == 0, (nth, done.stderr)
        assert losses(run)[0] == pytest.approx(losses(undisturbed)[0], rel=1e-2), nth
        gave_up = [event for event in run.events() if event.get("what") == "retreat"]
        assert gave_up or largest_difference(run, undisturbed) == 0, nth


def test_a_driver_that_is_too_old_is_named(place: Place) -> None:
    done = place.command("doctor", "--json", settings={"NULLCARD_DRIVER": "12040"})
    (torch,) = (each for each in json.loads(done.stdout)["findings"] if each["name"] == "torch")
    assert not torch["ok"] and torch["message"]["key"] == "doctor.torch_blind"


def test_a_card_that_disappears_costs_no_saved_step(place: Place, undisturbed: RunFolder) -> None:
    """The run ends with a sentence; it is refused while the card is gone, and goes on to the same adapter once it
    is there."""
    gone = place.root / "gone"
    settings = {"NULLCARD_GONE": str(gone)}
    process = place.started("train", place.recipe("gone", **SAVING), settings=settings)
    run = place.at_step("gone", 5)
    gone.touch()
    process.communicate(timeout=LIMIT_S)
    status = run.status()
    assert place.state(run) == State.FAILED and status.message is not None, run.log_tail()
    assert status.message.key == "run.card_failed", status
    saved = run.saved_step()
    assert saved >= 4
    refused = place.command("resume", run.id, settings=settings)
    message = run.status().message
    assert refused.returncode == 1 and run.saved_step() == saved
    assert message is not None and "no longer responds" in message.render("en")
    gone.unlink()
    done = place.command("resume", run.id, settings=settings)
    assert done.returncode == 0, done.stderr
    assert largest_difference(run, undisturbed) == 0
