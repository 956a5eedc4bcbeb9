"""The variants people ask for: each is what its name says, and leaves the base the base. On a tiny model; with --full
on the starter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from core import files
from core.advice import plan
from core.chat.duel import Duel
from core.chat.questions import target_of
from core.data.tokenizer import Tokenizer
from core.data.validation_split import split
from core.engine import adapter, base_model, device
from core.engine.batches import collate
from core.engine.loss import summed_loss
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.process import Launcher
from core.runs.reporter import Reporter
from core.runs.states import State
from core.training import worker
from core.training.trainer import Trainer
from core.workspace.folder import Workspace
from tests.kit.trainer import FP32, assert_same, run_paused, trainer_of

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class Silent:
    """Stands where the reporter stands."""

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None


# ---- by the real worker --------------------------------------------------------------------------

RATE = 5e-3
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "rslora, lora+, prompts too": {
        "data": {"train_on": "everything"}, "adapter": {"use_rslora": True},
        "train": {"loraplus_lr_ratio": 16.0, "warmup_steps": 1, "lr_scheduler_type": "linear"},
    },
    "dora": {"adapter": {"use_dora": True}, "train": {"lr_scheduler_type": "constant"}},
    "pissa": {
        "adapter": {"init_lora_weights": "pissa_niter_16"}, "train": {"warmup_ratio": 0.3,
            "lr_scheduler_type": "cosine"},
    },
    "plain": {},
    "qlora": {"adapter": {"method": "qlora"}},
    "neftune": {"train": {"neftune_noise_alpha": 5.0}},
    "int8": {"adapter": {"load_in_8bit": True}},
}  # fmt: skip


class Ran:
    """Three short steps of the worker, in this process, for each of RUNS that a test asks for."""

    def __init__(self, space: Workspace, model: str):
        self.space, self.model = space, model
        self._done: dict[str, RunFolder] = {}

    def __call__(self, name: str) -> RunFolder:
        if name not in self._done:
            self._done[name] = self._run(RUNS[name])
        return self._done[name]

    def _run(self, sections: dict[str, dict[str, Any]]) -> RunFolder:
        train = {"max_steps": 3, "per_device_train_batch_size": 1, "learning_rate": RATE, "sample_seconds": 0}
        value = {
            "model": {"id": self.model},
            "data": {"source": "sample:pirate_answers", "eval_fraction": 0.04} | sections.get("data", {}),
            "adapter": {"r": 4, "target_modules": "q_proj,v_proj,down_proj"} | sections.get("adapter", {}),
            "train": train | {"eval_steps": 3, "save_steps": 3} | sections.get("train", {}),
        }
        run = Runs(self.space).create(plan.resolve(Recipe.parse(value), "pirates", has_card=False), "command")
        with run.lock().acquire(timeout=10), Reporter(run, Launcher(run, self.space)) as reporter:
            worker.carry_out(run, self.space, reporter)
        assert run.status().state == State.COMPLETED, f"{run.status()}\n{run.log_tail()}"
        return run


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, starter_folder: Path, full: bool) -> Ran:
    root, model = tmp_path_factory.mktemp("variants"), starter_folder if full else tiny_model
    (root / "settings.yaml").write_text(json.dumps({"library_folders": [str(model.parent)]}), "utf-8")
    return Ran(Workspace.open(root), f"library:{model.name}")


def lines(run: RunFolder, name: str, kind: str = "train") -> list[float]:
    return [line[name] for line in run.all_metrics() if line["kind"] == kind]


def decisions(run: RunFolder) -> set[str]:
    return {event["message"]["key"] for event in run.events() if event["kind"] == "decision"}


@pytest.mark.parametrize("name", RUNS)
def test_every_variant_learns(name: str, ran: Ran, full: bool) -> None:
    measured = lines(ran(name), "eval_loss", "eval")
    assert measured[-1] < measured[0] - (0.02 if full else 1e-4)  # 5e-4 to 8e-3 in three steps of the tiny one
    assert ("fused_lora.left" in decisions(ran(name))) == (name == "dora"), "PEFT's own product, which is said"


def test_rates_rise_fall_and_stay_as_their_names_say(ran: Ran) -> None:
    rates = {name: lines(ran(name), "learning_rate") for name in RUNS}
    assert rates["rslora, lora+, prompts too"] == pytest.approx([0.5 * RATE, RATE, 0.5 * RATE]), (
        "a warm-up in steps, linear"
    )
    assert rates["pissa"] == pytest.approx([0.5 * RATE, RATE, 0.5 * RATE]), "a warm-up as a share, cosine"
    assert rates["dora"] == pytest.approx([RATE] * 3), "constant"


def test_rslora_is_in_the_file_lora_plus_in_the_optimizer_and_prompts_in_what_is_learned(ran: Ran) -> None:
    run = ran("rslora, lora+, prompts too")
    assert files.read_json(run.adapter / CONFIG)["use_rslora"] is True
    groups = torch.load(run.checkpoints()[-1] / "trainer.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.5 * RATE, 16 * 0.5 * RATE])
    measured = run.facts().memory
    assert measured.learned == measured.tokens - measured.rows, "every token but the first of each row"


def test_dora_has_its_magnitudes_and_is_answered_in_turn(ran: Ran) -> None:
    run = ran("dora")
    names = load_file(run.adapter / WEIGHTS)
    assert sum(name.endswith("lora_magnitude_vector") for name in names) == len(names) // 3
    folder = Path(run.facts().model_folder)
    tuned = adapter.attach(base_model.load(folder, device.choose(), four_bit=False), run.adapter)
    assert not Duel(tuned, Tokenizer(folder)).mixed


def test_neftune_changes_what_is_trained_and_not_what_is_measured(ran: Ran) -> None:
    noisy, plain = ran("neftune"), ran("plain")
    assert lines(noisy, "eval_loss", "eval")[0] == pytest.approx(lines(plain, "eval_loss", "eval")[0], rel=1e-6)
    difference = abs(lines(noisy, "loss")[0] / lines(plain, "loss")[0] - 1)
    assert 2e-3 < difference < 0.1


def test_int8_is_opened_as_it_was_trained(ran: Ran) -> None:
    run = ran("int8")
    folder = Path(run.facts().model_folder)
    assert target_of(run).eight_bit and not target_of(run, four_bit=False).eight_bit
    base = base_model.load(folder, FP32, four_bit=False, eight_bit=True)
    assert base.model.layers[0].mlp.down_proj.weight.dtype == torch.int8
    assert Duel(adapter.attach(base, run.adapter), Tokenizer(folder)).mixed


def test_a_pissa_run_leaves_a_plain_lora_for_the_untouched_base(ran: Ran) -> None:
    run = ran("pissa")
    config = files.read_json(run.adapter / CONFIG)
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)
    assert (run.checkpoints()[-1] / "adapter" / WEIGHTS).read_bytes() == (run.adapter / WEIGHTS).read_bytes()
    # What the run measured last on its own base, measured again by plain peft on the base as it is.
    folder, compute = Path(run.facts().model_folder), device.choose(run.facts().dtype)
    tuned = PeftModel.from_pretrained(base_model.load(folder, compute, four_bit=False), run.adapter).eval()
    silent = Silent()
    silent.run = run
    tokenizer, examples = Tokenizer(folder), worker.read_examples(run.recipe(), ran.space, silent)
    kept = [tokenizer.encode_example(examples[i], 512) for i in split(len(examples), 0.04, 42)[1]]
    batch = collate(kept, tokenizer.pad_token_id, compute.device)
    with torch.no_grad():
        measured = float(summed_loss(tuned, batch)) / batch.targets.numel()
    assert measured == pytest.approx(lines(run, "eval_loss", "eval")[-1], rel=0.02)


# ---- paused --------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {
    "pissa": {"lora": {"init_lora_weights": "pissa"}},
    "pissa, quickly, with rslora": {"lora": {"init_lora_weights": "pissa_niter_16", "use_rslora": True}},
    "dora": {"lora": {"use_dora": True}},
    "lora+ in 8 bit": {"loraplus_lr_ratio": 8.0, "optim": "adamw_8bit"},
    "neftune": {"neftune_noise_alpha": 5.0},
    "neftune, padded": {"neftune_noise_alpha": 5.0, "data": {"packing": False}},
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_paused_is_the_run_that_never_was(name: str, tmp_path: Path) -> None:
    uninterrupted = trainer_of(tmp_path / "whole", **CASES[name])
    uninterrupted.run()
    attempts: list[Trainer] = []

    def make(at: int | None) -> Trainer:
        attempts.append(trainer_of(tmp_path / "paused", at, **CASES[name]))
        return attempts[-1]

    assert_same(run_paused(make, [uninterrupted.reporter.checks // 2]), uninterrupted)
    assert 0 < attempts[0].position.step < uninterrupted.position.step
