"""A base as it is loaded: repositories that are quantised already, and types that its numbers do not fit into."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.integrations.accelerate import expand_device_map

from core.advice import plan
from core.engine import base_model, device
from core.engine.device import Compute
from core.engine.families import parts
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.process import Launcher
from core.runs.reporter import Reporter
from core.runs.states import State
from core.training import worker
from core.workspace.folder import Workspace
from tests.kit import families
from tests.kit.trainer import FP32, tiny_base

IDS = torch.arange(5, 21)[None]


@pytest.fixture(scope="module")
def in_4_bit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model, and the same saved in 4 bit that computes in bfloat16, as unsloth's repositories are."""
    plain, quantized = (tmp_path_factory.mktemp(name) for name in ("plain", "in-4-bit"))
    tiny_base().save_pretrained(plain)
    AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=base_model.nf4(torch.bfloat16), device_map={"": "cpu"}
    ).save_pretrained(quantized)
    return plain, quantized


def test_a_repository_in_4_bit_computes_in_our_type(in_4_bit: tuple[Path, Path]) -> None:
    """Seen in the code: its own bfloat16 won, many times slower on an RTX 20; and on a processor the trap of its
    weights stayed open."""
    plain, quantized = in_4_bit
    ours, theirs = base_model.load(plain, FP32, four_bit=True), base_model.load(quantized, FP32, four_bit=False)
    layer = theirs.model.layers[0].mlp.down_proj
    assert (layer.compute_dtype, layer.weight.quant_state.dtype) == (torch.float32, torch.float32)
    assert not layer.support_avx512bf16_for_cpu
    torch.testing.assert_close(theirs(IDS).logits, ours(IDS).logits, rtol=1e-5, atol=1e-6)


# ---- float16 ends at 65,504 ----------------------------------------------------------------------

FP16 = replace(FP32, dtype=torch.float16)


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loud")
    made_loud(tiny_base()).save_pretrained(folder)
    return folder


@torch.no_grad()
def made_loud(model: Any) -> Any:
    """Its second MLP gives about 1e5, as Gemma 3's do."""
    activations = []
    mlp = model.model.layers[1].mlp
    hook = mlp.register_forward_hook(lambda module, args, output: activations.append(output))
    model(IDS)
    mlp.down_proj.weight *= 1e5 / activations[0].abs().max()
    hook.remove()
    return model


@pytest.mark.parametrize("four_bit", [False, True])
def test_a_base_too_loud_for_float16_computes_in_another_type_and_says_so(loud: Path, four_bit: bool) -> None:
    """Seen in the code: no comparison holds with NaN, three steps gave no number, and the learning rate was blamed."""
    assert not base_model.load(loud, FP16, four_bit)(IDS).logits.isfinite().all()
    base, compute = base_model.load_finite(loud, FP16, four_bit)
    assert (compute.dtype, compute.reason.key) == (torch.float32, "device.overflow_fp32")
    assert base(IDS).logits.isfinite().all() and base.lm_head.weight.dtype == torch.float32
    if four_bit:
        assert base.model.layers[0].mlp.down_proj.compute_dtype == torch.float32


def test_a_base_that_fits_into_float16_is_loaded_once_and_stays(
    in_4_bit: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = base_model.load
    monkeypatch.setattr(base_model, "load", lambda *how: loaded.append(how[1].dtype) or load(*how))
    base, compute = base_model.load_finite(in_4_bit[0], FP16, False)
    assert compute is FP16 and loaded == [torch.float16] and base.dtype == torch.float16


def trained(workspace: Path, base: PreTrainedModel, tiny_model: Path, adapter: dict[str, object]) -> RunFolder:
    """A run of two steps on base, which lies in the library of a new workspace, by the worker's own body in this
    process."""
    folder = workspace / "library" / "own"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").unlink()
    base.save_pretrained(folder)
    return trained_in(workspace, adapter)


def trained_in(workspace: Path, adapter: dict[str, object]) -> RunFolder:
    (workspace / "settings.yaml").write_text(json.dumps({"library_folders": [str(workspace / "library")]}), "utf-8")
    space = Workspace.open(workspace)
    value = {
        "model": {"id": "library:own"}, "data": {"source": "sample:pirate_answers"}, "adapter": {"r": 4} | adapter,
        "train": {"max_steps": 2, "sample_seconds": 0},
    }  # fmt: skip
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "data", has_card=False), "command")
    assert carried_out(run) == State.COMPLETED, f"{run.status()}\n{run.log_tail()}"
    return run


def carried_out(run: RunFolder) -> State:
    space = Workspace.open(run.path.parents[1])
    with run.lock().acquire(timeout=10), Reporter(run, Launcher(run, space)) as reporter:
        worker.carry_out(run, space, reporter)
    return run.status().state


def decided(run: RunFolder) -> list[Message]:
    return [Message.model_validate(event["message"]) for event in run.events() if event["kind"] == "decision"]


def test_a_run_on_an_old_card_trains_a_loud_base_and_says_in_what(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "choose", lambda before=None: FP16)
    run = trained(tmp_path, made_loud(AutoModelForCausalLM.from_pretrained(tiny_model)), tiny_model, {})
    assert run.facts().dtype == "float32" and run.facts().dtype_reason in decided(run)
    assert run.facts().dtype_reason.key == "device.overflow_fp32"
    assert all(math.isfinite(line["loss"]) for line in run.all_metrics() if line["kind"] == "train")


@pytest.mark.parametrize(
    ("stored", "adapter", "said"),
    [
        ({"load_in_8bit": True}, {"method": "qlora"}, {"bits": 8, "asked": 4}),
        ({"load_in_8bit": True}, {"method": "lora", "load_in_8bit": True}, None),
        ({"load_in_4bit": True}, {"method": "lora"}, {"bits": 4, "asked": 16}),
        ({"load_in_4bit": True}, {"method": "qlora"}, None),
    ],
)
def test_a_base_that_is_stored_otherwise_than_chosen_says_so(
    tmp_path: Path, tiny_model: Path, stored: dict[str, bool], adapter: dict[str, object], said: dict[str, int] | None
) -> None:
    packed = AutoModelForCausalLM.from_pretrained(
        tiny_model, quantization_config=BitsAndBytesConfig(**stored), device_map={"": "cpu"}
    )
    run = trained(tmp_path, packed, tiny_model, adapter)
    params = [message.params for message in decided(run) if message.key == "model.own_bits"]
    assert params == ([{"model": "library:own"} | said] if said else [])


@pytest.mark.parametrize(("emulates", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_card_takes_bfloat16_where_torch_emulates_it(
    emulates: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: emulates)
    chosen = device.beyond_float16(device.Compute(torch.device("cuda:0"), torch.float16, msg("device.cpu_fp32")))
    assert chosen.dtype == expected and str(chosen.device) == "cuda:0"


# ---- an embedding in every layer -----------------------------------------------------------------


def test_on_a_card_all_but_the_embedding_of_every_layer_goes_there(tmp_path: Path, starter_folder: Path) -> None:
    """As transformers reads such a map, whose names are beginnings: embed_tokens is how embed_tokens_per_layer begins.
    No card was here; the device without data stands for one."""
    folder = families.make("gemma4_e", tmp_path / "base", starter_folder)
    config = AutoConfig.from_pretrained(folder)
    kind = parts.auto_class(config)
    card = Compute(torch.device("cuda:0"), torch.bfloat16, msg("device.cpu_fp32"))
    places = parts.places(kind, config, card.device)
    with_towers = base_model.load(folder, FP32, four_bit=False, keep_towers=True)
    put = expand_device_map(
        places, [name for name, _ in (*with_towers.named_parameters(), *with_towers.named_buffers())]
    )
    left = {name for name, device in put.items() if device == "cpu"}
    embedding = parts.per_layer_embeddings(with_towers)
    assert left == {f"{embedding}.weight", f"{embedding}.embed_scale"} and set(put.values()) == {card.device, "cpu"}
    assert parts.places(kind, config, FP32.device) == {"": FP32.device}
    split = kind.from_pretrained(folder, dtype=torch.float32, device_map=dict.fromkeys(places, "meta"))
    there = {name for name, parameter in split.named_parameters() if parameter.device.type != "meta"}
    assert there == {f"{embedding}.weight"} and not any(hasattr(module, "_hf_hook") for module in split.modules())
    assert torch.equal(split.get_parameter(f"{embedding}.weight"), with_towers.get_parameter(f"{embedding}.weight"))
    packed = kind.from_pretrained(
        folder, quantization_config=base_model.nf4(torch.float32), device_map=dict.fromkeys(places, "cpu")
    )
    assert packed.get_parameter(f"{embedding}.weight").is_floating_point() and any(
        isinstance(m, Linear4bit) for m in packed.modules()
    )


def test_looked_up_in_ram_it_gives_the_same_rows_and_they_come_to_where_the_text_is(
    tmp_path: Path, starter_folder: Path
) -> None:
    folder = families.make("gemma4_e", tmp_path / "base", starter_folder)
    base = families.tuned(base_model.load(folder, FP32, four_bit=False))
    ids = torch.tensor([families.rows()[0].input_ids])
    expected = base(input_ids=ids, labels=ids).loss
    expected.backward()
    then = {name: p.grad.clone() for name, p in base.named_parameters() if p.grad is not None}
    base.zero_grad()
    parts.look_up_in_ram(base.get_base_model())
    loss = base(input_ids=ids, labels=ids).loss
    loss.backward()
    assert torch.equal(loss, expected) and then
    assert all(torch.equal(p.grad, then[name]) for name, p in base.named_parameters() if p.grad is not None)


@dataclass(frozen=True)
class Anywhere:
    """A tensor of which is known where it is, and which way it came."""

    device: str
    came: tuple[str, ...] = ()

    def to(self, device: str) -> Anywhere:
        return Anywhere(device, (*self.came, device))


def test_ids_go_to_ram_and_rows_to_the_card() -> None:
    embedding = SimpleNamespace(weight=SimpleNamespace(device="ram"), forward=lambda ids: ids)
    model = SimpleNamespace(
        named_modules=lambda: [("model.embed_tokens_per_layer", embedding)], get_submodule=lambda name: embedding
    )
    parts.look_up_in_ram(model)
    assert embedding.forward(Anywhere("card")).came == ("ram", "card")
