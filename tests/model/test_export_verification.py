"""Which proof an export gets on which PC. Memory and card are faked (psutil, tests/kit/cuda); the base is an 8B model's
shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

from core.engine import device
from core.engine.device import Compute
from core.errors import ExportError
from core.export import layers, stored, verification
from core.export.tensors import Reader
from core.messages import msg
from core.values import GIB
from tests.kit.cuda import FakeCuda

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "architectures": ["LlamaForCausalLM"],
}  # fmt: skip


def of(folder: Path, **shape: object) -> stored.Base:
    """What `read_base` finds, without a file of weights."""
    LlamaConfig(**LLAMA_8B | shape).save_pretrained(folder)
    model = stored.empty(folder)
    tensors = {name: stored.Stored(folder / "x", tuple(p.shape), "BF16") for name, p in model.named_parameters()}
    return stored.Base(folder, tensors)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[stored.Base, Path]:
    """8.0 billion parameters, and an adapter on the queries of each layer."""
    base, adapter = of(tmp_path_factory.mktemp("base")), tmp_path_factory.mktemp("adapter")
    lora = LoraConfig(r=1, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(stored.empty(base.folder), lora).to_empty(device="cpu").save_pretrained(adapter)
    return base, adapter


@pytest.fixture
def pc(monkeypatch: pytest.MonkeyPatch):
    """Call it with GiB of RAM that are free, GiB of the card that are, and whether its processor multiplies bf16."""

    def make(ram: float, card: float = 0, native: bool = False) -> None:
        on_cpu = Compute(torch.device("cpu"), torch.bfloat16 if native else torch.float32, msg("device.cpu_fp32"))
        on_card = Compute(torch.device("cuda:0"), torch.bfloat16, msg("device.cpu_fp32"))
        monkeypatch.setattr(device, "choose", lambda: on_card if card else on_cpu)
        monkeypatch.setattr(device, "on_cpu", lambda: on_cpu)
        monkeypatch.setattr(verification.psutil, "virtual_memory", lambda: SimpleNamespace(available=int(ram * GIB)))
        FakeCuda(total=card or 1, others=0).stand_in(monkeypatch)

    return make


@pytest.mark.parametrize(
    ("ram", "card", "expected"),
    [
        (10, 11, ("cuda", torch.float32, True)),  # 16 GB of RAM, 12 GB of card
        (10, 0, ("cpu", torch.float32, True)),
        (60, 23, ("cuda", torch.bfloat16, False)),
        (60, 11, ("cuda", torch.float32, True)),
        (100, 0, ("cpu", torch.float32, True)),  # it would fit, and take the better part of an hour
    ],
)
def test_an_8b_model_is_proven_whole_or_layer_by_layer(
    llama: tuple[stored.Base, Path], pc, ram: float, card: float, expected: tuple
) -> None:
    """Seen: 17.8 GiB asked for a merged model on a PC that had just trained it."""
    pc(ram, card)
    method = verification.choose(*llama)
    assert (method.compute.device.type, method.compute.dtype, method.by_layer) == expected
    assert 7.9e9 < llama[0].parameters < 8.1e9


def test_too_little_even_for_a_layer_is_said_with_both_numbers(llama: tuple[stored.Base, Path], pc) -> None:
    pc(4)
    with pytest.raises(ExportError) as error:
        verification.choose(*llama)
    need = layers.need_bytes(*llama) / GIB
    assert f"needs {need:.1f} GiB of free memory, but 4.0 GiB" in str(error.value) and 5 < need < 7


def test_a_base_in_float32_and_its_adapter_are_counted_as_large_as_they_are(
    llama: tuple[stored.Base, Path], tmp_path: Path
) -> None:
    base, adapter = llama
    wide = stored.Base(base.folder, {name: replace(t, dtype="F32") for name, t in base.tensors.items()})
    embedding = base.tensors["model.embed_tokens.weight"].shape
    assert layers.need_bytes(wide, adapter) - layers.need_bytes(base, adapter) == 2 * embedding[0] * embedding[1]
    grown = tmp_path / "adapter_model.safetensors"
    grown.write_bytes(bytes((adapter / grown.name).stat().st_size + 1000))
    assert layers.need_bytes(base, tmp_path) == layers.need_bytes(base, adapter) + 1000


@pytest.mark.parametrize(("native", "whole"), [(False, False), (True, True)])
def test_what_cannot_go_layer_by_layer_is_not_emulated_for_hours(
    llama: tuple[stored.Base, Path], pc, native: bool, whole: bool, tmp_path: Path
) -> None:
    """Its files name a tensor otherwise than its modules do, and 25 GiB hold the model in bf16 only."""
    base, adapter = llama
    strange = dict(base.tensors)
    strange["model.ln"] = strange.pop("model.norm.weight")
    assert layers.missing(stored.empty(base.folder), stored.Base(base.folder, strange)) == ["model.norm.weight"]
    pc(25, native=native)
    if not whole:
        with pytest.raises(ExportError):
            verification.choose(stored.Base(base.folder, strange), adapter)
        return
    method = verification.choose(stored.Base(base.folder, strange), adapter)
    assert (method.compute.dtype, method.by_layer) == (torch.bfloat16, False)


def test_a_small_model_is_asked_whole_where_it_fits(tmp_path: Path, pc) -> None:
    base = of(tmp_path / "small", hidden_size=256, num_hidden_layers=2, intermediate_size=512, vocab_size=1000)
    pc(8)
    assert not verification.choose(base, tmp_path).by_layer


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "gpt2", "phi3", "qwen3", "qwen3_moe"])
def test_a_family_computes_layer_by_layer_what_it_computes_whole(family: str, tmp_path: Path) -> None:
    """Or it is known beforehand that its files name their tensors otherwise: experts are one tensor each there."""
    small = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300,
        "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "n_embd": 32, "n_layer": 2, "n_head": 4,
        "num_experts": 4,
    }  # fmt: skip
    torch.manual_seed(0)
    in_memory = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small), dtype=torch.float32).eval()
    in_memory.save_pretrained(tmp_path)
    base, model, cpu = stored.read_base(tmp_path), stored.empty(tmp_path), torch.device("cpu")
    assert bool(layers.missing(model, base)) == (family == "qwen3_moe")
    if family == "qwen3_moe":
        return
    rows = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]
    with Reader(base) as files, torch.inference_mode():
        by_layer = layers.logits(layers.read_by_layer(model, files.tensor, list(base.tensors), cpu, {}), rows, cpu)
        for row, logits in zip(rows, by_layer, strict=True):
            expected = in_memory(input_ids=torch.tensor([row]), use_cache=False).logits[0]
            assert expected.std() > 0.05 and (logits - expected).abs().max() < 1e-5
