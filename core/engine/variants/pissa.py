"""PiSSA: the adapter starts with the weights' principal singular components, which the base lacks during training.
Saved as plain LoRA.

When training begins, W = W_res + s B0 A0; later it is W_res + s B A. So the change is s [B, -B0] [A; A0]: a plain LoRA
of twice the rank on the original W. peft's own conversion (save_pretrained with
path_initial_model_for_weight_conversion) writes the same values; here it is done on the files, because peft's loads a
second adapter into the model at every save and draws random numbers for it. Both halves are stored bit for bit, so a
run can resume from them. In 16 bits W_res is rounded: the converted model differs from the trained one by that
rounding. Imports torch: workers only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from safetensors.torch import load_file, save_file

from core.errors import ModelError
from core.models.weights import backend

Weights = dict[str, torch.Tensor]  # of an adapter, by peft's names in a file


@dataclass
class Pissa:
    """The initial PiSSA adapter of a model, in `tuned.pissa`. start: A0 and B0, on the CPU; None while W is
    unchanged."""

    start: Weights | None = None


def note_start(tuned: PeftModel, r: int) -> None:
    """Store a copy of the initial adapter in RAM as tuned.pissa.start. Call it after peft has subtracted B0 A0 from the
    weights. Raises ModelError if a layer has a rank below r."""
    own = get_peft_model_state_dict(tuned, save_embedding_layers=False)
    start = {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in own.items()}
    # A matrix with fewer rows or columns than r has fewer components, and peft makes its factors that much smaller.
    least = min(min(weight.shape) for weight in start.values())
    if least < r:
        raise ModelError("adapter.pissa_rank", r=r, least=least)
    tuned.pissa = Pissa(start)


def resume(tuned: PeftModel, saved: Weights) -> None:
    """Set the adapter to the state in which saved (plain LoRA) was written; the first call also subtracts the initial
    adapter from the base."""
    now, start = halves(saved)
    if tuned.pissa.start is None:
        _subtract_start(tuned, start)
        tuned.pissa.start = start
    set_peft_model_state_dict(tuned, now)


def halves(saved: Weights) -> tuple[Weights, Weights]:
    """Split a converted adapter, of twice the rank, into (A and B as trained, A0 and B0 of its start)."""
    now, start = {}, {}
    for name, weight in saved.items():
        if name.endswith(".lora_A.weight"):
            now[name], start[name] = weight.chunk(2, dim=0)
        else:
            now[name], negative = weight.chunk(2, dim=1)
            start[name] = -negative  # stored as -B0
    return {name: w.contiguous() for name, w in now.items()}, {name: w.contiguous() for name, w in start.items()}


@torch.no_grad()
def _subtract_start(tuned: PeftModel, start: Weights) -> None:
    """Turn each W into W_res = W - s B0 A0 in place, by the same operations as peft's pissa_init, so that its bits are
    the same."""
    for name, layer in tuned.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = layer.get_base_layer().weight
        (adapter,) = layer.lora_A
        a, b = (start[f"{name}.lora_{kind}.weight"].to(weight.device) for kind in "AB")
        full = weight.to(torch.float32)
        full = full.T if layer.fan_in_fan_out else full
        rest = (full - layer.scaling[adapter] * b @ a).to(weight.dtype)
        weight.data = rest.T if layer.fan_in_fan_out else rest


def convert(folder: Path, start: Weights) -> None:
    """Convert the adapter that peft saved in folder to plain LoRA on the original base, of twice the rank: A and A0 end
    to end, B and -B0; lora_alpha changes so that the scale stays the same."""
    file, config_file = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    plain = {}
    for name, weight in load_file(file, backend=backend()).items():
        is_a = name.endswith(".lora_A.weight")
        plain[name] = torch.cat([weight, start[name]], 0) if is_a else torch.cat([weight, -start[name]], 1)
    save_file(plain, file, metadata={"format": "pt"})
    config = json.loads(config_file.read_text("utf-8"))
    config |= {
        "init_lora_weights": True,
        "r": 2 * config["r"],
        # the same scale as before
        "lora_alpha": config["lora_alpha"] * (math.sqrt(2) if config.get("use_rslora") else 2),
    }
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8", newline="\n")
