"""Adapters of other kinds than a run's own, as PEFT writes them: ranks and scales by pattern, in what is merged and
what leaves as GGUF."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from core.data.tokenizer import Tokenizer
from core.engine import adapter, base_model
from core.errors import ModelError
from core.export import export_worker, merge, pairs, stored, verification
from core.export.llamacpp import judgement
from core.export.verification import Method, Work
from core.models import adapters
from tests.kit.adapters import adapted, fill_b
from tests.kit.trainer import FP32, tiny_base

ROWS = [
    {"messages": [{"role": "user", "content": f"What is {what}?"}, {"role": "assistant", "content": "Arr!"}]}
    for what in ("rain", "tea")
]
PATTERNED = {
    "r": 8, "lora_alpha": 16, "use_rslora": True, "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 4},
    "alpha_pattern": {r"model\.layers\.0\..*_proj": 5, "q_proj": 3}, "target_modules": ["q_proj", "v_proj",
        "down_proj"],
}  # fmt: skip


@pytest.fixture
def patterned(tiny_model: Path, tmp_path: Path) -> Path:
    """An adapter folder of which each matrix has a rank and a scale of its own."""
    return saved(tiny_model, tmp_path / "adapter", PATTERNED)


def saved(model: Path, folder: Path, settings: dict) -> Path:
    tuned = get_peft_model(base_model.load(model, FP32, four_bit=False), LoraConfig(task_type="CAUSAL_LM", **settings))
    adapter.save(fill_b(tuned, std=0.1), folder, model, "card", (model / "chat_template.jinja").read_text("utf-8"))
    return folder


def test_ranks_and_scales_by_pattern_are_merged_tensor_by_tensor_as_peft_does(
    tiny_model: Path, patterned: Path, tmp_path: Path
) -> None:
    """They went through peft, which needs the whole model in memory, and no tensor of them was compared."""
    base = stored.read_base(tiny_model)
    matched = pairs.lora_pairs(base, patterned)
    assert matched and len({pair.scale for pair in matched.values()}) == 5
    merge.merge(base, patterned, tmp_path / "ours", lambda fraction: None, lambda: None)
    merged = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), patterned).merge_and_unload()
    theirs = merged.to(base.dtype).state_dict()
    for name, tensor in load_file(tmp_path / "ours" / "model.safetensors").items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)


def test_an_adapter_of_half_the_strength_adds_half(tiny_model: Path, patterned: Path, tmp_path: Path) -> None:
    base = stored.read_base(tiny_model)
    half = adapters.at_strength(patterned, 0.5, tmp_path / "half")
    whole_pairs, half_pairs = pairs.lora_pairs(base, patterned), pairs.lora_pairs(base, half)
    assert whole_pairs and half_pairs
    assert {name: pair.scale for name, pair in half_pairs.items()} == {
        name: pair.scale / 2 for name, pair in whole_pairs.items()
    }


@pytest.mark.parametrize(
    "settings",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "lora_only"}, {"lora_bias": True}],
)
def test_what_alpha_does_not_scale_is_exported_at_full_strength_alone(
    patterned: Path, settings: dict[str, object]
) -> None:
    file = patterned / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | settings), "utf-8")
    with pytest.raises(ModelError, match="strength"):
        adapters.at_strength(patterned, 0.5, patterned.with_name("half"))


def test_a_head_that_is_the_embedding_too_is_recognized(tmp_path: Path) -> None:
    trained = tmp_path / "adapter"
    trained.mkdir()
    save_file({"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 8)}, trained / "adapter_model.safetensors")
    assert export_worker.trains_tied_head(trained, {"tie_word_embeddings": True})
    assert export_worker.trains_tied_head(trained, {"text_config": {"tie_word_embeddings": True}})
    assert not export_worker.trains_tied_head(trained, {"tie_word_embeddings": False})


def test_layer_by_layer_expects_of_a_file_in_llama_cpp_what_whole_models_do(
    tiny_model: Path, patterned: Path, tmp_path: Path
) -> None:
    base, tokenizer, merged = stored.read_base(tiny_model), Tokenizer(patterned), tmp_path / "merged"
    merge.merge(base, patterned, merged, lambda fraction: None, lambda: None)
    results = []
    for by_layer in (False, True):
        probes, own = verification.prompts_of(ROWS, tokenizer, judgement.PROMPTS)
        assert own and len(probes) > 2
        kept = judgement.KeptProbabilities(tmp_path / f"{by_layer}.logs", 30)
        work = Work(Method(FP32, by_layer), tokenizer, probes[:2], own, lambda *_: None, lambda: None, kept)
        _, expected, compared = verification.expect(base, patterned, work, merged, rounded=True)
        assert compared and not compared.off
        results.append(
            (
                np.fromfile(tmp_path / f"{by_layer}.logs", np.float32),
                [each.text_loss_sum for each in expected],
                kept.rows,
            )
        )
    (whole, losses, rows), (layers, losses_too, rows_too) = results
    np.testing.assert_allclose(layers, whole, atol=1e-4)
    assert losses == pytest.approx(losses_too, abs=1e-3) and rows == rows_too and len(whole) > 0


def test_a_saved_adapter_has_one_card_and_nobody_draws_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: peft drew one from a template at each save, for ours to replace: half the time of a small checkpoint."""
    drawn = []
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda self, folder: drawn.append(folder))
    adapter.save(adapted(tiny_base()), tmp_path / "adapter", tmp_path, "# ours", "")
    assert drawn == [] and (tmp_path / "adapter" / "README.md").read_text("utf-8") == "# ours"
