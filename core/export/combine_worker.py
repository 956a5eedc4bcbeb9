"""The process that combines adapters: `python -m core.export.combine_worker request.json`, {how: Combination, target}.

PEFT needs a model to hold the adapters. This one has a layer of the right shape for each layer that an adapter changes,
without weights: the combination does not depend on them, so the base is neither loaded nor needed.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core import files
from core.models.adapters import layer_of
from core.models.weights import backend
from core.runs.run_json import Combination

COMBINED = "combined"


def combine(how: Combination, target: Path) -> None:
    """Write the combined adapter's weights and config to the folder target. Raises RuntimeError if layers are missing
    from it."""
    folders = [Path(one.folder) for one in how.adapters]
    weights = [load_file(folder / "adapter_model.safetensors", backend=backend()) for folder in folders]
    configs = [files.read_object(folder / "adapter_config.json") for folder in folders]
    model, names = _layers(weights), [f"part{number}" for number in range(len(folders))]
    tuned: PeftModel | None = None
    for name, config, tensors in zip(names, configs, weights, strict=True):
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        # rsLoRA's scale (arXiv 2312.03732) as plain alpha: PEFT passes use_rslora on, which would scale the result.
        alpha *= math.sqrt(rank) if config.get("use_rslora") else 1
        modules = sorted({layer_of(key) for key in tensors})
        plain = LoraConfig(r=rank, lora_alpha=alpha, target_modules=modules)
        if tuned is None:
            tuned = PeftModel(model, plain, name)
        else:
            tuned.add_adapter(name, plain)
        set_peft_model_state_dict(tuned, tensors, name)
    assert tuned is not None
    torch.manual_seed(how.seed)
    tuned.add_weighted_adapter(
        names, [one.weight for one in how.adapters], COMBINED, how.combination_type, svd_rank=how.svd_rank,
        svd_full_matrices=False, density=how.density, majority_sign_method=how.majority_sign_method,
    )  # fmt: skip
    made = {key: tensor.contiguous() for key, tensor in get_peft_model_state_dict(tuned, adapter_name=COMBINED).items()}
    save_file(made, target / "adapter_model.safetensors", metadata={"format": "pt"})
    rank = tuned.peft_config[COMBINED].r
    # The scales are in the factors now, so alpha / r has to be 1.
    values = {"r": rank, "lora_alpha": rank, "use_rslora": False, "init_lora_weights": True}
    layers = sorted({layer_of(key) for key in made})
    if lost := {layer_of(key) for tensors in weights for key in tensors} - set(layers):
        # Adapters called 0 and 1 once lost the layers of these numbers.
        raise RuntimeError(f"{len(lost)} layers are missing, such as {min(lost)}")
    files.replace_json(target / "adapter_config.json", configs[0] | values | {"target_modules": layers})


def _layers(adapters: list[dict[str, Tensor]]) -> nn.Module:
    """Return a model of empty layers, one for each that an adapter changes."""
    model = nn.Module()
    for key, a in sorted({key: a for adapter in adapters for key, a in adapter.items() if ".lora_A." in key}.items()):
        b = next(one for adapter in adapters if (one := adapter.get(key.replace(".lora_A.", ".lora_B."))) is not None)
        *path, last = layer_of(key).split(".")
        parent = model
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        layer = nn.Linear(a.shape[1], b.shape[0], bias=False, device="meta")
        # An expanded zero has the shape without the memory.
        layer.weight = nn.Parameter(torch.zeros(1, 1).expand(b.shape[0], a.shape[1]), requires_grad=False)
        parent.add_module(last, layer)
    return model


if __name__ == "__main__":
    request = files.read_object(Path(sys.argv[1]))
    combine(Combination.model_validate(request["how"]), Path(request["target"]))
