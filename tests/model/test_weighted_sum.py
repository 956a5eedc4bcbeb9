"""Two adapters as one: tensor by tensor what PEFT's add_weighted_adapter makes of them, and refused where that is not
all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from core.errors import ModelError
from core.export import weighted_sum
from core.export.weighted_sum import WeightedAdapter
from tests.kit.adapters import logits

IDS = torch.arange(3, 11)[None]


@pytest.fixture
def tuned(tmp_path: Path) -> PeftModel:
    """Two of other ranks and alphas (the second rsLoRA), saved; the second on fewer layers."""
    torch.manual_seed(3)
    base = LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
    )
    first = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    second = LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, first, "first")
    model.add_adapter("second", second)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(tmp_path)
    return model


def test_the_sum_is_pefts_own_tensor_by_tensor_and_in_its_answers(tuned: PeftModel, tmp_path: Path) -> None:
    rank = weighted_sum.write(
        (WeightedAdapter(tmp_path / "first", 0.7), WeightedAdapter(tmp_path / "second", 0.5)), tmp_path / "sum"
    )
    assert rank == 7
    ours = load_file(tmp_path / "sum" / "adapter_model.safetensors")
    tuned.add_weighted_adapter(["first", "second"], [0.7, 0.5], "theirs", combination_type="cat")
    tuned.set_adapter("theirs")
    theirs = {name.replace(".theirs", ""): weight for name, weight in tuned.named_parameters() if ".theirs." in name}
    for name, weight in theirs.items():
        if "q_proj" in name:
            # both have it; of a layer of one alone PEFT keeps its own rank, here zeros stand beside it
            torch.testing.assert_close(ours[name], weight, rtol=1e-6, atol=0)
    expected = logits(tuned, IDS)
    alone = PeftModel.from_pretrained(tuned.unload(), tmp_path / "sum")
    torch.testing.assert_close(logits(alone, IDS), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="already exists"):
        weighted_sum.write(
            (WeightedAdapter(tmp_path / "first", 1), WeightedAdapter(tmp_path / "second", 1)), tmp_path / "sum"
        )


def test_the_nearest_of_a_rank_is_pefts_svd(tuned: PeftModel, tmp_path: Path) -> None:
    """Its factors may differ in their signs; what they come to may not."""
    parts = WeightedAdapter(tmp_path / "first", 0.7), WeightedAdapter(tmp_path / "second", -0.5)
    assert weighted_sum.write(parts, tmp_path / "sum", rank=2) == 2
    ours = load_file(tmp_path / "sum" / "adapter_model.safetensors")
    tuned.add_weighted_adapter(["first", "second"], [0.7, -0.5], "theirs", combination_type="svd", svd_rank=2)
    theirs = {name.replace(".theirs", ""): weight for name, weight in tuned.named_parameters() if ".theirs." in name}
    names = [name for name in theirs if name.endswith("lora_A.weight")]
    assert len(names) == 4 and {tuple(ours[name].shape) for name in names} == {(2, 16)}
    for name in names:
        other = name.replace("lora_A", "lora_B")
        torch.testing.assert_close(ours[other] @ ours[name], theirs[other] @ theirs[name], rtol=1e-4, atol=1e-5)
    for rank in (0, 7, 99):
        with pytest.raises(ModelError, match="at most rank 6"):
            weighted_sum.write(parts, tmp_path / "other", rank)


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
def test_what_cannot_be_summed_is_refused_with_its_reason_and_leaves_nothing(
    tuned: PeftModel, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    shutil.copytree(tmp_path / "first", tmp_path / "bad")
    config = tmp_path / "bad" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(ModelError, match=sentence):
        weighted_sum.write(
            (WeightedAdapter(tmp_path / "first", 1.0), WeightedAdapter(tmp_path / "bad", 1.0)), tmp_path / "sum"
        )
    assert sorted(path.name for path in tmp_path.iterdir() if "sum" in path.name) == []
