"""Adapters of other kinds than a run's own, as PEFT writes them: ranks and scales by pattern, in what is merged and what leaves as GGUF."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from core.engine import adapter, base_model
from core.export import merge, pairs, stored
from tests.kit.trainer import FP32

PATTERNED = {
    "r": 8, "lora_alpha": 16, "use_rslora": True, "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 4},
    "alpha_pattern": {r"model\.layers\.0\..*_proj": 5, "q_proj": 3}, "target_modules": ["q_proj", "v_proj", "down_proj"],
}  # fmt: skip


@pytest.fixture
def patterned(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter folder of which each matrix has a rank and a scale of its own."""
    return saved(tiny_model, tmp_path / "adapter", PATTERNED)


def saved(model: Path, folder: Path, settings: dict) -> Path:
    tuned = get_peft_model(base_model.load(model, FP32, four_bit=False), LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    adapter.save(tuned, folder, model, "card", (model / "chat_template.jinja").read_text("utf-8"))
    return folder


def test_ranks_and_scales_by_pattern_are_merged_tensor_by_tensor_as_peft_does(
    tiny_model: Path, patterned: Path, tmp_path: Path
) -> None:
    """They went through peft, which needs the whole model in memory, and no tensor of them was compared."""
    base = stored.read_base(tiny_model)
    found = pairs.lora_pairs(base, patterned)
    assert found and len({pair.scale for pair in found.values()}) == 5
    merge.merge(base, patterned, tmp_path / "ours", lambda fraction: None, lambda: None)
    whole = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), patterned).merge_and_unload()
    theirs = whole.to(base.dtype).state_dict()
    for name, tensor in load_file(tmp_path / "ours" / "model.safetensors").items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)
