"""What a person does, on the CUDA build of torch and the null card: train, pause, resume, chat, export."""

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
