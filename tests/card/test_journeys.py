"""What a person does, on the CUDA build of torch and the null card: train, pause, resume, chat, export."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.runs import sample_answers
from core.runs.folder import RunFolder
from core.runs.states import State
from tests.card.place import NO_SETTINGS, Place, card_of, largest_difference, losses
from tests.kit import tiny

TURING = card_of("RTX 2070", "7.5", 8)
# Of each generation of cards one, and of each size: its capability, GiB, the dtype of its runs, and whether 8B fits by
# QLoRA (7.6 GiB with the margin).
CARDS = {
    "RTX 2060": ("7.5", 6, "float16", "does_not_fit"),
    "RTX 3060": ("8.6", 12, "bfloat16", "fits"),
    "RTX 4060": ("8.9", 8, "bfloat16", "fits"),
    "RTX 5090 Laptop": ("12.0", 24, "bfloat16", "fits"),
}
WAYS: dict[str, dict[str, Any]] = {
    "lora": {},
    "qlora": {"adapter": {"method": "qlora"}, "train": {"optim": "paged_adamw_8bit"}},
    "int8": {"adapter": {"load_in_8bit": True}, "train": {"optim": "adamw_8bit"}},
    "checkpointing": {"train": {"gradient_checkpointing": True}},
    "offloaded layers": {"train": {"gradient_checkpointing": True, "offload_layers": 2}},
    "dpo": {"train": {"objective": "dpo"}, "data": {"source": "pairs.jsonl"}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, starter_folder: Path) -> Place:
    library = tmp_path_factory.mktemp("bases")
    shutil.copytree(tiny_model, library / "tiny")
    tiny.make(library / "wide", starter_folder, width=64)
    place = Place.make(tmp_path_factory.mktemp("journeys"), library, starter_folder)
    pairs = [
        {"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}, matey.", "rejected": "No idea."}
        for i in range(20)
    ]
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
    values = losses(run)
    assert all(map(math.isfinite, values)) and values[-1] < values[0], values
    assert run.facts().device_name == "Null RTX 3060"


@pytest.fixture(scope="module")
def learned(place: Place) -> RunFolder:
    """A real model at a quarter of a plan's steps and five times its rate, measured on rows that it does not train
    on."""
    train = {"max_steps": 12, "learning_rate": 5e-3, "per_device_train_batch_size": 2, "eval_steps": 6}
    return place.train("learned", model={"id": "starter"}, data={"eval_fraction": 0.1}, train=train)


def test_the_starter_learns_on_the_card(learned: RunFolder) -> None:
    values = losses(learned)
    assert values[0] > 2.5 and sum(values[-3:]) / 3 < 2.0, values
    assert (learned.facts().device, learned.facts().dtype) == ("cuda:0", "bfloat16")


def test_rows_that_are_kept_apart_are_evaluated_on_the_card(learned: RunFolder) -> None:
    values = [line["eval_loss"] for line in learned.metrics().records if line["kind"] == "eval"]
    assert len(values) >= 2 and all(map(math.isfinite, values)) and values[-1] < values[0], values


def test_the_tuned_starter_speaks_as_it_was_taught_beside_its_base(place: Place, learned: RunFolder) -> None:
    base, tuned = place.answers(learned, "What is a horse?", 16)
    assert "matey" in tuned.lower() and "matey" not in base.lower(), (base, tuned)


def test_a_run_leaves_sample_answers_from_before_and_after(place: Place) -> None:
    run = place.train("filmed", train={"sample_seconds": 10})
    before, *_, after = sample_answers.read(run)
    assert (before.step, after.step) == (0, 6)
    assert {before.answers[0].why, after.answers[0].why} <= {"stop", "length"}, (before, after)
    assert before.answers[0].text != after.answers[0].text


@pytest.mark.parametrize("name", CARDS)
def test_the_doctor_and_the_plan_go_by_the_card(name: str, place: Place) -> None:
    capability, gib, dtype, verdict = CARDS[name]
    settings = card_of(name, capability, gib)
    report = {
        each["name"]: each
        for each in json.loads(place.command("doctor", "--json", settings=settings).stdout)["findings"]
    }
    params = report["gpu"]["message"]["params"]
    assert (params["name"], params["total"], params["capability"]) == (f"Null {name}", gib, capability)
    assert report["flash_attention"]["message"]["key"] == (
        "doctor.flash_card" if dtype == "float16" else "doctor.flash"
    )
    plan = json.loads(place.command("plan", "--model", "qwen3-8b", "--json", settings=settings).stdout)
    assert (plan["method"], plan["verdict"], plan["budget"]["name"]) == ("qlora", verdict, f"Null {name}")
    assert round(plan["budget"]["free_gib"]) == gib


@pytest.mark.parametrize("name", CARDS)
def test_each_generation_of_cards_trains_and_chats(name: str, place: Place) -> None:
    capability, gib, dtype, _ = CARDS[name]
    settings = card_of(name, capability, gib)
    run = place.train(name.replace(" ", "-"), settings=settings)
    assert (run.facts().device_name, run.facts().dtype) == (f"Null {name}", dtype)
    base, tuned = place.answers(run, "What is a horse?", 8, settings)
    assert base and tuned and base != tuned


@pytest.mark.parametrize("way", ["lora", "qlora", "dpo"])
def test_in_float32_the_adapter_is_the_processors(way: str, place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a model 64 wide: bitsandbytes' library for processors (0.50.2) reads wrong scales of a 4-bit matrix whose rows
    are no multiple of its blocks of 64."""
    optim = {"train": WAYS[way].get("train", {}) | {"optim": "adamw_torch"}}
    on_card, on_processor = place.trained_in_float32(way, **WAYS[way] | optim | {"model": {"id": "library:wide"}})
    assert (on_card.facts().device, on_processor.facts().device) == ("cuda:0", "cpu")
    difference = largest_difference(on_card, on_processor)
    with capsys.disabled():
        print(f" largest difference {difference:.1e} ", end="")
    assert 0 < difference < 1e-4


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


@pytest.mark.parametrize("kind", ["adapter", "merged", "gguf", "ollama"])
def test_an_export_is_verified(kind: str, place: Place, trained: RunFolder) -> None:
    written_and_verified(kind, place, trained)


def test_an_export_is_verified_on_a_card_without_bfloat16(place: Place, undisturbed: RunFolder) -> None:
    """It once ended in an OverflowError, from a token id that no model has."""
    written_and_verified("merged", place, undisturbed, TURING)


def written_and_verified(kind: str, place: Place, run: RunFolder, settings: Mapping[str, str] = NO_SETTINGS) -> None:
    done = place.command("export", run.id, "--to", kind, "--json", settings=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(Path(json.loads(done.stdout)["folder"]).iterdir())
