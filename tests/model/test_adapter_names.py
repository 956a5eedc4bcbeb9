"""An adapter made on a family's class of text alone, on the class that config.json names: other names, the same
layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from core.chat.chat_worker import LoadedBase
from core.engine import adapter, base_model
from core.errors import ModelError
from core.export import layers, merge, pairs, stored
from core.models import loading
from core.recipe import Adapter
from tests.kit import families
from tests.kit.adapters import fill_b, logits
from tests.kit.trainer import FP32

IDS = torch.arange(5, 25)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path) -> Path:
    return families.make("qwen3_5", tmp_path_factory.mktemp("names") / "base", starter_folder)


@pytest.fixture(scope="module")
def by_text_class(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """An adapter as an earlier version and others train it, and its logits for IDS."""
    text = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert type(text).__name__ == "Qwen3_5ForCausalLM"
    tuned = fill_b(adapter.add(text, Adapter(r=4), str(base), None), std=0.1)
    folder = tmp_path_factory.mktemp("names") / "adapter"
    adapter.save(tuned, folder, base, "card", "")
    assert "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight" in load_file(
        folder / "adapter_model.safetensors"
    )
    return folder, logits(tuned, IDS)


def loaded(base: Path) -> Any:
    return base_model.load(base, FP32, four_bit=False)


def test_a_chat_reads_it_and_what_is_saved_then_is_plain_pefts_on_the_class_as_shipped(
    base: Path, by_text_class: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    """It was refused: "belongs to another base model"."""
    folder, expected = by_text_class
    tuned = adapter.attach(loaded(base), folder)
    torch.testing.assert_close(logits(tuned, IDS), expected)
    adapter.save(tuned, tmp_path / "again", base, "card", "")
    plain = PeftModel.from_pretrained(base_model.load(base, FP32, four_bit=False, keep_towers=True), tmp_path / "again")
    torch.testing.assert_close(logits(plain, IDS), expected)


def test_the_python_that_a_person_is_told_loads_all_of_a_model_that_also_sees(
    base: Path, by_text_class: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    """It was that of causal language models: without what it sees by, and plain peft left the adapter's weights out
    with a warning."""
    folder, expected = by_text_class
    adapter.save(adapter.attach(loaded(base), folder), tmp_path / "again", base, "card", "")
    for words in (loading.of_adapter(base, str(base), str(tmp_path / "again")), loading.of_model(base, str(base))):
        namespace: dict[str, Any] = {}
        exec(words, namespace)
        assert any("visual" in name for name, _ in namespace["model"].named_parameters())
        changed = "PeftModel" in words
        assert torch.allclose(logits(namespace["model"].float(), IDS), expected, rtol=1e-4, atol=1e-4) == changed


@pytest.mark.parametrize("way", [adapter.start_from, lambda tuned, folder: adapter.restore(tuned, weights_of(folder))])
def test_a_run_goes_on_from_it(base: Path, by_text_class: tuple[Path, torch.Tensor], way: Any) -> None:
    """To train further it was refused; a checkpoint was taken, and its weights fell away without a word."""
    folder, expected = by_text_class
    tuned = adapter.add(loaded(base), Adapter(r=4), "tiny", None)
    way(tuned, folder)
    torch.testing.assert_close(logits(tuned, IDS), expected)
    saved = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    assert len(saved) == len(weights_of(folder)) and all(".language_model." in name for name in saved)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_it_is_merged_tensor_by_tensor_and_proven_layer_by_layer(
    base: Path, by_text_class: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    folder, expected = by_text_class
    original = stored.read_base(base)
    matched = pairs.lora_pairs(original, folder)
    assert matched is not None and len(matched) == len(weights_of(folder)) // 2
    merge.merge(original, folder, tmp_path / "merged", lambda fraction: None, lambda: None)
    untuned = logits(loaded(base), IDS)
    assert (logits(loaded(tmp_path / "merged"), IDS) - expected).norm() < 0.15 * (expected - untuned).norm()
    model = stored.empty(base)
    layers.add_adapter(model, folder)
    names = {name for name, _ in model.named_parameters()}
    extra = layers.adapter_tensors(model, weights_of(folder))
    assert set(extra) == {name for name in names if ".lora_" in name}


def test_what_does_not_fit_leaves_the_base_as_it_was(
    base: Path, by_text_class: tuple[Path, torch.Tensor], tmp_path: Path
) -> None:
    """The base in memory wore half of what was refused, for every answer after it."""
    folder, _ = by_text_class
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    smaller = {name: w[:, :-8].contiguous() if "lora_A" in name else w for name, w in weights_of(folder).items()}
    save_file(smaller, tmp_path / "adapter_model.safetensors")
    model = loaded(base)
    before = logits(model, IDS)
    with pytest.raises(ModelError) as refused:
        adapter.attach(model, tmp_path)
    assert refused.value.message.key == "adapter.other_base"
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
    torch.testing.assert_close(logits(model, IDS), before, rtol=0, atol=0)
    again = LoadedBase(("tiny", None, False, False), FP32, None, model).with_adapter(folder)  # type: ignore[arg-type]  # asks for no tokenizer
    assert not torch.equal(logits(again, IDS), before)
