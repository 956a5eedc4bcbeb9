"""Bases that are stored in FP8 or MXFP4: unpacked to 16 bit as they load, and counted so. Made here as their makers
write them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from core import files
from core.engine import base_model
from core.memory.arithmetic import estimate, weights
from core.memory.setup import Setup
from core.models import headers, quantized
from core.models.shapes.shape import ModelShape
from core.models.weights import weight_files
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import families
from tests.kit.trainer import FP32
from tests.model.test_base_model import carried_out, decided, trained_in

BF16 = replace(FP32, dtype=torch.bfloat16)
BLOCK = 32
OF_4_BIT = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])  # E2M1; the highest of four bits is the sign
Tensors = dict[str, torch.Tensor]


def in_fp8(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """What files hold of a linear layer, a scale a block, and what it stands for."""
    rows, columns = (size // BLOCK for size in weight.shape)
    blocks = weight.float().reshape(rows, BLOCK, columns, BLOCK)
    scales = blocks.abs().amax((1, 3)) / 448
    packed = (blocks / scales[:, None, :, None]).to(torch.float8_e4m3fn)
    meant = (packed.float() * scales[:, None, :, None]).reshape(weight.shape)
    return {name: packed.reshape(weight.shape), f"{name}_scale_inv": scales}, meant


def in_mxfp4(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """Of the experts of a layer: two numbers a byte along what flows in, an exponent for 32; by chance, because none is
    rounded then."""
    experts, inputs, outputs = weight.shape
    chance = torch.Generator().manual_seed(len(name))
    codes = torch.randint(16, (experts, outputs, inputs // BLOCK, BLOCK), generator=chance)
    exponents = torch.randint(118, 122, codes.shape[:3], generator=chance)
    packed = (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
    numbers = OF_4_BIT[codes % 8] * torch.where(codes < 8, 1, -1) * torch.exp2(exponents[..., None].float() - 127)
    meant = numbers.reshape(experts, outputs, inputs).transpose(1, 2).contiguous()
    return {f"{name}_blocks": packed, f"{name}_scales": exponents.to(torch.uint8)}, meant


KINDS: dict[str, Any] = {
    "ministral3": (in_fp8, {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK], "activation_scheme": "dynamic",
                   "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"]}),
    "gpt_oss": (in_mxfp4, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn",
        "model.layers.*.mlp.router",
                "model.embed_tokens", "lm_head"]}),
}  # fmt: skip


@pytest.fixture(scope="module", params=[("ministral3", False), ("ministral3", True), ("gpt_oss", False)])
def stored(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, starter_folder: Path
) -> tuple[Path, Path]:
    """The same numbers quantised and in bfloat16."""
    name, is_within = request.param
    pack, settings = KINDS[name]
    plain = families.make(name, tmp_path_factory.mktemp("bases") / "plain", starter_folder)
    packed = Path(shutil.copytree(plain, plain.with_name("packed")))
    # Not mapped: Windows lets no file be replaced that is.
    tensors = {name: weight.clone() for name, weight in families.weights(plain).items()}
    there, meant = dict(tensors), {}
    for name, weight in tensors.items():
        is_packed = (
            ".layers." in name
            and "vision" not in name
            and name.endswith(("proj.weight", "experts.gate_up_proj", "experts.down_proj"))
        )
        if is_packed and (weight.ndim == 3) == (pack is in_mxfp4):
            entries, meant[name] = pack(name, weight)
            del there[name]
            there |= entries
    assert meant
    write(packed, there)
    write(plain, tensors | {name: weight.bfloat16() for name, weight in meant.items()})
    config = json.loads((packed / "config.json").read_text("utf-8"))
    within = config.get("text_config", config) if is_within else config
    within["quantization_config"] = settings
    (packed / "config.json").write_text(json.dumps(config), "utf-8")
    return packed, plain


def write(folder: Path, tensors: Tensors) -> None:
    for file in weight_files(folder):
        file.unlink()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("four_bit", [False, True])
def test_it_is_what_it_stands_for_in_16_bit_whatever_was_chosen_and_learns(
    stored: tuple[Path, Path], four_bit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    packed, plain = (base_model.load(folder, BF16, four_bit=four_bit and folder is stored[0]) for folder in stored)
    assert base_model.bits(packed) == 16
    assert "default to dequantizing" not in caplog.text  # so it says where it was not told to; with a card it would not
    state, expected = packed.state_dict(), plain.state_dict()
    assert (
        state.keys() == expected.keys()
        and [name for name in state if not torch.equal(state[name], expected[name])] == []
    )
    tuned = families.tuned(packed)
    tuned(input_ids=torch.arange(5, 21)[None], labels=torch.arange(5, 21)[None]).loss.backward()
    learns = [parameter.grad for name, parameter in tuned.named_parameters() if "lora_B" in name]
    assert learns and all(grad is not None and grad.abs().sum() > 0 for grad in learns)


def test_it_is_counted_in_16_bit_whatever_is_chosen(stored: tuple[Path, Path]) -> None:
    packed, plain = map(shape_of, stored)
    assert packed.is_unpacked and not plain.is_unpacked and packed.stored_bytes is None
    assert (packed.params, packed.in_files) == (plain.params, plain.in_files)
    lora, qlora = Setup(method="lora"), Setup(method="qlora")
    assert weights(packed, qlora) == weights(plain, lora) > weights(plain, qlora)
    assert (
        estimate(packed, qlora).on_card_gib == estimate(packed, lora).on_card_gib == estimate(plain, lora).on_card_gib
    )


@pytest.mark.parametrize("stored", [("ministral3", False)], indirect=True)
def test_a_run_on_it_is_in_16_bit_and_says_so(stored: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(stored[0], tmp_path / "library" / "own")
    run = trained_in(tmp_path, {"method": "qlora"})
    assert [message.key for message in decided(run) if message.key.startswith("model.")] == ["model.unpacked"]


def shape_of(folder: Path) -> ModelShape:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    shape = ModelShape.from_config(config)
    return shape.with_held(headers.count_weights(headers.of_folder(folder), config, shape))


def test_a_run_that_has_trained_goes_on_though_a_new_one_of_its_base_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some runs trained on a base before it was known that what is quantised so cannot be trained."""
    shutil.copytree(tiny_model, tmp_path / "library" / "own")
    run = trained_in(tmp_path, {})
    monkeypatch.setattr(quantized, "can_train", lambda method: False)
    new = Runs(Workspace.open(tmp_path)).create(run.recipe(), "command")
    assert carried_out(new) == State.FAILED and new.status().message.key == "model.quantised"
    shutil.rmtree(run.adapter)
    files.replace_json(run.path / "state.json", files.read_object(run.path / "state.json") | {"state": "queued"})
    assert run.saved_step() and carried_out(run) == State.COMPLETED and run.has_adapter()
