"""Two cards of different size and age: the one that is meant is the one that computes, in NVML, in CUDA and in the
plan.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.presets import PROJECT
from core.runs.states import State
from core.values import GIB
from tests.card.card import NullCard
from tests.card.place import LIMIT_S, Place

# NVML numbers them so, by bus; CUDA begins with the fastest, which is the second.
TWO = {"NULLCARD_NAME": "Null RTX 2070;Null RTX 3060", "NULLCARD_CAPABILITY": "7.5;8.6", "NULLCARD_MIB": "8192;12288"}
OLD, NEW = (f"GPU-4e554c4c-0000-0000-0000-00000000000{number}" for number in (1, 2))
HOLD = "import torch; held = torch.empty(9 << 30, dtype=torch.uint8, device='cuda'); print('held', flush=True); input()"
MEMORY = {OLD: 8 * GIB, NEW: 12 * GIB}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, starter_folder: Path) -> Place:
    return Place.make(tmp_path_factory.mktemp("cards"), tiny_model.parent, starter_folder)


@pytest.fixture
def busy() -> Iterator[None]:
    """Another program takes 9 GiB of the newer card, which it finds by its uuid."""
    card = NullCard()
    environment = card.environment(TWO | {"CUDA_VISIBLE_DEVICES": NEW, "NULLCARD_NUMBERS": "0"})
    other = subprocess.Popen(
        [card.python, "-c", HOLD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert other.stdout and other.stdout.readline() == "held\n"
    yield
    other.communicate("\n", timeout=LIMIT_S)


def reported(*arguments: str, **environment: str) -> dict[str, Any]:
    card = NullCard()
    done = subprocess.run(
        [card.python, PROJECT / "tests/card/cards_seen.py", *arguments], cwd=PROJECT,
        env=card.environment(TWO | {"NULLCARD_NUMBERS": "0"} | environment), capture_output=True, encoding="utf-8",
        timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(("wanted", "name", "number"), [(OLD, "Null RTX 2070", 0), (NEW, "Null RTX 3060", 1)])
def test_the_card_that_is_meant_computes_whatever_cuda_calls_it(wanted: str, name: str, number: int) -> None:
    report = reported(wanted)
    assert [card[0] for card in report["nvml"]] == ["Null RTX 2070", "Null RTX 3060"]
    assert report["default"] == "Null RTX 3060"  # CUDA's own first
    assert (report["cuda"]["name"], report["cuda"]["uuid"], report["cuda"]["count"]) == (name, wanted, 1)
    assert report["cuda"]["total"] == MEMORY[wanted] and report["on"] == [number]


def test_the_card_with_most_free_memory_is_the_best() -> None:
    assert reported()["best"] == NEW


def test_a_card_that_another_program_fills_is_not_the_best(busy: None) -> None:
    report = reported()
    assert report["best"] == OLD and report["cuda"]["name"] == "Null RTX 2070" and report["on"] == [0]
    assert report["nvml"][1][2] < 3 * GIB  # what is free on the other


@pytest.mark.parametrize(("visible", "card"), [("0", OLD), ("1", NEW), (OLD, OLD)])
def test_a_persons_numbers_count_as_nvidia_smi_does(visible: str, card: str) -> None:
    report = reported(CUDA_VISIBLE_DEVICES=visible)
    assert report["best"] == card and report["cuda"]["uuid"] == card


def test_a_run_is_planned_for_and_trains_on_the_card_with_most_memory(place: Place) -> None:
    run = place.train("newer", settings=TWO)
    facts = run.facts()
    assert (facts.device_uuid, facts.device_name, facts.dtype) == (NEW, "Null RTX 3060", "bfloat16")
    assert (facts.advice["budget"]["card_uuid"], facts.advice["budget"]["sold_gb"]) == (NEW, 12)
    assert facts.dtype_reason is not None and "Null RTX 3060" in facts.dtype_reason.render("en")  # as CUDA named it


def test_a_run_beside_a_busy_card_takes_the_other_and_its_dtype(place: Place, busy: None) -> None:
    facts = place.train("older", settings=TWO).facts()
    assert (facts.device_uuid, facts.device_name, facts.dtype) == (OLD, "Null RTX 2070", "float16")
    assert (facts.advice["budget"]["card_uuid"], facts.advice["budget"]["sold_gb"]) == (OLD, 8)


def test_a_run_whose_card_disappears_is_offered_the_other(place: Place) -> None:
    """It trains on the card that was chosen by nvidia-smi's number; the file names the card that falls off the bus."""
    gone = place.root / "gone"
    settings = TWO | {"NULLCARD_GONE": str(gone)}
    train = {"train": {"save_steps": 2, "max_steps": 8}}
    process = place.started("train", place.recipe("chosen", **train), "--cards", "0", settings=settings)
    run = place.at_step("chosen", 5)
    aside = place.root / "aside"
    aside.write_text("0")
    aside.rename(gone)  # never there without its number
    process.communicate(timeout=LIMIT_S)
    assert place.state(run) == State.FAILED and run.saved_step() >= 4, run.log_tail()
    refused = place.command("resume", run.id, settings=settings)
    message = run.status().message
    assert refused.returncode == 1 and message is not None and "Null RTX 2070" in message.render("en")
    assert run.facts().offered_device == NEW
    gone.unlink()
    done = place.command("resume", run.id, settings=settings)
    assert done.returncode == 0, done.stderr
    assert run.facts().device_uuid == OLD
