"""Adapters as one: what PEFT's add_weighted_adapter makes of them on their model, kept as a run, and refused where that
is not all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from core.engine import base_model
from core.errors import ModelError
from core.export import combination, combine_worker
from core.runs.run_json import Combination, WeightedAdapter
from tests.kit import tiny
from tests.kit.adapters import logits
from tests.kit.trainer import FP32
from tests.process.test_further import open_space

IDS = torch.arange(3, 11)[None]


def saved(model: Path, to: Path, rank: int = 4) -> PeftModel:
    """Two adapters of other alphas (the second rsLoRA, of this rank), saved; the second on fewer layers."""
    torch.manual_seed(3)
    base = base_model.load(model, FP32, four_bit=False)
    plain = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    scaled = LoraConfig(r=rank, lora_alpha=5, use_rslora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
    tuned = get_peft_model(base, plain, "first")
    tuned.add_adapter("second", scaled)
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    tuned.save_pretrained(to)
    return tuned


def how(folder: Path, *names: str, weights: tuple[float, ...] = (0.7, -0.5), **settings: Any) -> Combination:
    parts = zip(names or ("first", "second"), weights, strict=False)
    adapters = [WeightedAdapter(folder=str(folder / name), name=name, weight=weight) for name, weight in parts]
    return Combination(adapters=adapters, **settings)


@pytest.mark.parametrize("method", combination.METHODS)
def test_it_answers_as_pefts_own(tiny_model: Path, tmp_path: Path, method: str) -> None:
    different = method == "cat" or method.endswith("svd")
    tuned = saved(tiny_model, tmp_path, rank=3 if different else 4)
    (tmp_path / "ours").mkdir()
    combine_worker.combine(how(tmp_path, combination_type=method, seed=5), tmp_path / "ours")
    torch.manual_seed(5)
    tuned.add_weighted_adapter(["first", "second"], [0.7, -0.5], "theirs", method, density=0.5)
    tuned.set_adapter("theirs")
    expected = logits(tuned, IDS)
    assert (expected - logits(tuned.unload(), IDS)).abs().max() > 1e-3
    ours = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), tmp_path / "ours")
    assert ours.peft_config["default"].r == (7 if method == "cat" else 4)
    torch.testing.assert_close(logits(ours, IDS), expected, rtol=1e-4, atol=1e-4)


def test_the_layers_0_and_1_are_kept(tmp_path: Path) -> None:
    """PEFT once left them out: two adapters named by number were taken for these layers. With no others it does not."""
    saved(tiny.of_layers(3, tmp_path / "base"), tmp_path)
    (tmp_path / "ours").mkdir()
    combine_worker.combine(how(tmp_path), tmp_path / "ours")
    made, first = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "first"))
    assert made.keys() == first.keys() and len(made) == 3 * 2 * 2


def test_three_become_a_finished_run_that_names_them(tiny_model: Path, tmp_path: Path) -> None:
    space = open_space(tmp_path / "space", tiny_model)
    saved(tiny_model, tmp_path)
    shutil.copytree(tmp_path / "second", tmp_path / "third")
    three = how(tmp_path, "first", "second", "third", weights=(1.0, 0.5, 0.25), combination_type="dare_linear")
    run = combination.as_run(space, three, "library:tiny")
    assert run.facts().combined == three and run.status().state.value == "completed"
    said = "first@1.0 + second@0.5 + third@0.25 (dare_linear, density 0.5, seed 0)"
    assert run.facts().brought_from == said and run.name == "first + second + third"
    assert load_file(run.adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"bias": "all"}, "bias"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"base_model_name_or_path": "other/model"}, "other/model"),
        ({"r": 5}, "shape"),
    ],
)
def test_what_cannot_be_combined_is_refused_with_its_reason_and_leaves_nothing(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    saved(tiny_model, tmp_path)
    config = tmp_path / "second" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(ModelError, match=sentence):
        combination.write(how(tmp_path), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_settings_that_combine_nothing_are_refused_in_a_sentence(tiny_model: Path, tmp_path: Path) -> None:
    saved(tiny_model, tmp_path, rank=3)
    for refused, sentence in (
        (how(tmp_path, "first"), "at least two"),
        (how(tmp_path, "first", "first"), "named twice"),
        (how(tmp_path, weights=(0.0, 1.0)), "weight of “first” is 0"),
        (how(tmp_path, weights=(float("nan"), 1.0)), "is nan"),
        (how(tmp_path, density=0.0), "density is 0"),
        (how(tmp_path, combination_type="mean"), "no combination type"),
        (how(tmp_path, combination_type="ties"), "ties_svd works"),
        (how(tmp_path, combination_type="svd", svd_rank=7), "1 to 6"),
        (how(tmp_path, svd_rank=2), "cat is exact"),
        (how(tmp_path, "first", "gone"), "gone"),
    ):
        with pytest.raises(ModelError, match=sentence):
            combination.check(refused)
