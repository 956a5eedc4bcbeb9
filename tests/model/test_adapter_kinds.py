"""Adapters of other kinds than a run's own, as PEFT writes them: ranks and scales by pattern, in what is merged and
what leaves as GGUF."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from core.data.tokenizer import Tokenizer
from core.engine import adapter, base_model
from core.errors import ExportError, ModelError
from core.export import export_worker, merge, pairs, stored, verification
from core.export.llamacpp import judgement, lora, lora_kinds
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
    found = pairs.lora_pairs(base, patterned)
    assert found and len({pair.scale for pair in found.values()}) == 5
    merge.merge(base, patterned, tmp_path / "ours", lambda fraction: None, lambda: None)
    whole = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), patterned).merge_and_unload()
    theirs = whole.to(base.dtype).state_dict()
    for name, tensor in load_file(tmp_path / "ours" / "model.safetensors").items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)


def test_scales_are_folded_into_b_for_llama_cpp_which_knows_one_for_all(
    tiny_model: Path, patterned: Path, tmp_path: Path
) -> None:
    base = stored.read_base(tiny_model)
    found = pairs.lora_pairs(base, patterned)
    assert found
    lora.fold(patterned, found, tmp_path / "folded")
    factors = load_file(tmp_path / "folded" / "adapter_model.safetensors")
    whole = PeftModel.from_pretrained(base_model.load(tiny_model, FP32, four_bit=False), patterned)
    layers = {name: module for name, module in whole.named_modules() if hasattr(module, "get_delta_weight")}
    assert len(layers) == len(factors) / 2 == 6
    for name, layer in layers.items():
        torch.testing.assert_close(
            factors[f"{name}.lora_B.weight"] @ factors[f"{name}.lora_A.weight"], layer.get_delta_weight("default")
        )


def test_an_adapter_of_half_the_strength_adds_half(tiny_model: Path, patterned: Path, tmp_path: Path) -> None:
    base = stored.read_base(tiny_model)
    half = adapters.at_strength(patterned, 0.5, tmp_path / "half")
    whole_pairs, half_pairs = pairs.lora_pairs(base, patterned), pairs.lora_pairs(base, half)
    assert whole_pairs and half_pairs
    assert {name: pair.scale for name, pair in half_pairs.items()} == {
        name: pair.scale / 2 for name, pair in whole_pairs.items()
    }


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "dora"),
        ({"modules_to_save": ["lm_head"]}, "modules"),
        ({"bias": "lora_only"}, "bias"),
        ({"lora_bias": True}, "bias"),
        ({"trainable_token_indices": [1, 2]}, "tokens"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "experts"),
        ({"alora_invocation_tokens": [1]}, "variant"),
    ],
)
def test_what_cannot_be_a_lora_in_gguf_is_refused_before_any_work(
    tiny_model: Path, patterned: Path, settings: dict, reason: str
) -> None:
    file = patterned / "adapter_config.json"
    lora_kinds.refuse(patterned, {})
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | settings), "utf-8")
    with pytest.raises(ExportError) as refused:
        lora_kinds.refuse(patterned, {})
    inner = refused.value.message.params["reason"]
    assert inner["key"] == f"gguf.lora_{reason}"
    assert not any("{" in refused.value.message.render(language) for language in ("en", "zh"))
    if reason in ("dora", "modules", "bias", "tokens"):
        with pytest.raises(ModelError, match="strength"):
            adapters.at_strength(patterned, 0.5, patterned.with_name("half"))


def test_matrices_that_llama_cpp_never_asks_an_adapter_for_are_named() -> None:
    def why(module: str, **base: object) -> str | None:
        found = lora_kinds.why_not({}, [f"base_model.model.model.{module}.lora_A.weight"], base)
        return found and found.key

    assert why("layers.0.self_attn.q_proj") is None and why("lm_head", tie_word_embeddings=False) is None
    assert why("per_layer_model_projection") == "gguf.lora_not_asked"
    assert (
        why("lm_head", tie_word_embeddings=True)
        == why("lm_head", text_config={"tie_word_embeddings": True})
        == "gguf.lora_tied_head"
    )
    assert (
        lora_kinds.why_not({}, ["base_model.model.model.embed_tokens.lora_embedding_A"], {}).key == "gguf.lora_variant"
    )


@pytest.mark.parametrize("is_lora", [False, True])
def test_layer_by_layer_expects_of_a_file_in_llama_cpp_what_whole_models_do(
    tiny_model: Path, patterned: Path, tmp_path: Path, is_lora: bool
) -> None:
    base, tokenizer, merged = stored.read_base(tiny_model), Tokenizer(patterned), tmp_path / "merged"
    merge.merge(base, patterned, merged, lambda fraction: None, lambda: None)
    said = []
    for by_layer in (False, True):
        probes, own = verification.prompts_of(ROWS, tokenizer, judgement.PROMPTS)
        assert own and len(probes) > 2
        kept = judgement.KeptProbabilities(tmp_path / f"{by_layer}.logs", 30)
        work = Work(Method(FP32, by_layer), tokenizer, probes[:2], own, lambda *_: None, lambda: None, kept)
        _, expected, compared = verification.expect(
            base, patterned, work, None if is_lora else merged, rounded=not is_lora
        )
        assert is_lora or (compared and not compared.off)
        said.append(
            (
                np.fromfile(tmp_path / f"{by_layer}.logs", np.float32),
                [each.text_loss_sum for each in expected],
                kept.rows,
            )
        )
    (whole, losses, rows), (layers, losses_too, rows_too) = said
    np.testing.assert_allclose(layers, whole, atol=1e-4)
    assert losses == pytest.approx(losses_too, abs=1e-3) and rows == rows_too and len(whole) > 0


def test_a_base_file_of_another_width_is_said_before_any_work(
    tiny_model: Path, patterned: Path, tmp_path: Path
) -> None:
    def see(width: int) -> None:
        file = tmp_path / "base.gguf"
        writer = gguf.GGUFWriter(file, "llama")
        for name, value in {
            "block_count": 2,
            "embedding_length": width,
            "head_count": 4,
            "feed_forward_length": 64,
        }.items():
            getattr(writer, f"add_{name}")(value)
        writer.add_tensor("token_embd.weight", np.zeros((99, width), np.float32))
        writer.add_tensor("blk.0.attn_q.weight", np.zeros((width, width), np.float32))
        writer.add_vocab_size(99)
        for write in (
            writer.write_header_to_file,
            writer.write_kv_data_to_file,
            writer.write_tensors_to_file,
            writer.close,
        ):
            write()
        export_worker.Exporter._check_lora(
            SimpleNamespace(request=SimpleNamespace(base_gguf=str(file))), patterned, tiny_model
        )

    see(32)
    with pytest.raises(ExportError, match="width 64, the base model 32"):
        see(64)


def test_a_saved_adapter_has_one_card_and_nobody_draws_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: peft drew one from a template at each save, for ours to replace: half the time of a small checkpoint."""
    drawn = []
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda self, folder: drawn.append(folder))
    adapter.save(adapted(tiny_base()), tmp_path / "adapter", tmp_path, "# ours", "")
    assert drawn == [] and (tmp_path / "adapter" / "README.md").read_text("utf-8") == "# ours"
