"""What a person does, on the CUDA build of torch and the null card: train, pause, resume, chat, export, run out of memory."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.runs.folder import RunFolder
from core.runs.states import State
from tests.card.place import Place, largest_difference, losses

TURING = {"NULLCARD_CAPABILITY": "7.5", "NULLCARD_NAME": "Null RTX 2070", "NULLCARD_MIB": "8192"}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {},
    "qlora": {"adapter": {"method": "qlora"}, "train": {"optim": "paged_adamw_8bit"}},
    "int8": {"adapter": {"load_in_8bit": True}, "train": {"optim": "adamw_8bit"}},
    "checkpointing": {"train": {"gradient_checkpointing": True}},
    "offloaded layers": {"train": {"gradient_checkpointing": True, "offload_layers": 2}},
    "dpo": {"train": {"objective": "dpo"}, "data": {"source": "pairs.jsonl"}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Place:
    place = Place.make(tmp_path_factory.mktemp("journeys"), tiny_model.parent)
    pairs = [{"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}, matey.", "rejected": "No idea."} for i in range(20)]
    (place.root / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    return place


STEPS = {"max_steps": 40, "save_steps": 10}


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> RunFolder:
    """A run in float16, with its scaler, on a card of 2018."""
    return place.train("undisturbed", settings=TURING, train=STEPS)


@pytest.fixture(scope="module")
def trained(place: Place) -> RunFolder:
    return place.train("trained")


@pytest.mark.parametrize("way", WAYS)
def test_a_run_completes_on_the_card_and_its_loss_falls(way: str, place: Place) -> None:
    run = place.train(way.replace(" ", "-"), **WAYS[way])
    seen = losses(run)
    assert all(map(math.isfinite, seen)) and seen[-1] < seen[0], seen
    assert run.facts().device_name == "Null RTX 3060"


def test_a_paused_run_goes_on_to_the_same_adapter(place: Place, undisturbed: RunFolder) -> None:
    process = place.started("train", place.recipe("paused", train=STEPS), settings=TURING)
    run = place.at_step("paused", 2)
    assert place.command("pause", run.id).returncode == 0
    process.communicate(timeout=300)
    assert place.state(run) == State.PAUSED, run.log_tail()
    done = place.command("resume", run.id, settings=TURING)
    assert done.returncode == 0, done.stderr
    assert largest_difference(run, undisturbed) == 0


def test_a_killed_worker_goes_on_to_the_same_adapter(place: Place, undisturbed: RunFolder) -> None:
    process = place.started("train", place.recipe("killed", train=STEPS), settings=TURING)
    run = place.at_step("killed", 11)
    psutil.Process(run.status().pid).kill()
    process.communicate(timeout=300)
    assert place.state(run) == State.INTERRUPTED
    done = place.command("resume", run.id, settings=TURING)
    assert done.returncode == 0, done.stderr
    assert largest_difference(run, undisturbed) == 0


def test_both_models_answer(place: Place, undisturbed: RunFolder) -> None:
    done = place.command(
        "chat", undisturbed.id, "--prompt", "What is a horse?", "--base", "--max-new-tokens", "8", "--json", settings=TURING
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers["base"] and answers["tuned"] and answers["base"] != answers["tuned"]


@pytest.mark.parametrize("kind", ["adapter", "merged", "gguf", "ollama"])
def test_an_export_is_verified(kind: str, place: Place, trained: RunFolder) -> None:
    done = place.command("export", trained.id, "--to", kind, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(Path(json.loads(done.stdout)["folder"]).iterdir())


def test_copies_that_arrive_late_change_nothing(place: Place) -> None:
    """Copies from pinned memory happen only when something waits for them: a buffer that is filled too early would be seen."""
    sections = WAYS["offloaded layers"]
    at_once = place.train("at-once", **sections)
    late = place.train("late", settings={"NULLCARD_DEFER": "1"}, **sections)
    assert largest_difference(at_once, late) == 0


def test_where_nothing_can_be_pinned_layers_are_still_offloaded(place: Place) -> None:
    at_once = place.train("pinned", **WAYS["offloaded layers"])
    refused = place.train("refused", settings={"NULLCARD_REFUSE_PINS": "8192"}, **WAYS["offloaded layers"])
    assert largest_difference(at_once, refused) == 0
    assert "offload.unpinned" in json.dumps(refused.events())


@pytest.mark.parametrize("nth", [60, 150, 300])
def test_a_refused_allocation_costs_no_run(nth: int, place: Place) -> None:
    """Either the run completes with less, or it ends with one sentence; what was saved before stays."""
    name = f"refused-{nth}"
    done = place.command("train", place.recipe(name), "--json", settings={"NULLCARD_REFUSE_NTH": str(nth)})
    run = place.run(name)
    status = run.status()
    if status.state != State.COMPLETED:
        assert done.returncode and status.message and "Traceback" not in str(status.message), run.log_tail()


def test_a_driver_that_is_too_old_is_named(place: Place) -> None:
    done = place.command("doctor", "--json", settings={"NULLCARD_DRIVER": "12040"})
    (torch,) = (each for each in json.loads(done.stdout)["findings"] if each["name"] == "torch")
    assert not torch["ok"] and torch["found"]["key"] == "doctor.torch_blind"


def test_a_card_that_disappears_ends_the_run_with_a_sentence(place: Place) -> None:
    gone = place.root / "gone"
    process = place.started(
        "train", place.recipe("gone", train={"save_steps": 2, "max_steps": 400}), settings={"NULLCARD_GONE": str(gone)}
    )
    run = place.at_step("gone", 4)
    gone.touch()
    process.communicate(timeout=300)
    status = run.status()
    assert place.state(run) in (State.FAILED, State.INTERRUPTED) and status.message, run.log_tail()
    assert run.saved_step() >= 2
