"""Adapters as folders on disk, in PEFT's format: their contents, and whether they are complete. No torch."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from core import files
from core.errors import ModelError
from core.models.headers import LONGEST_HEADER

if TYPE_CHECKING:
    from peft import PeftConfig


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


PREFIX = "base_model.model."  # prefix of every name in an adapter's file
# Prefixes of the text layers: in classes for text alone, in classes that also see, and in those before transformers
# 4.52.
_PLACES = ("model.", "model.language_model.", "model.text_model.", "language_model.model.")
T = TypeVar("T")


@dataclass(frozen=True)
class AdapterFacts:
    """The values of adapter_config.json, read as data."""

    base: str
    r: int
    lora_alpha: float
    use_dora: bool


def describe(folder: Path) -> AdapterFacts:
    """Return the facts in an adapter's config: base, rank, alpha, DoRA. Raises ModelError for a folder that
    is not a LoRA adapter in safetensors. No torch."""
    facts = facts_in(folder)
    if not (folder / "adapter_model.safetensors").exists():
        raise ModelError("adapter.no_weights", folder=folder.name)
    return facts


def facts_in(folder: Path) -> AdapterFacts:
    """Return the facts in an adapter's config, with or without its weights. Raises ModelError as `describe`."""
    config = files.read_object(folder / "adapter_config.json")
    if not config:
        raise ModelError("adapter.no_config", folder=folder.name)
    if config.get("peft_type") != "LORA":
        raise ModelError("adapter.not_lora", folder=folder.name, found=config.get("peft_type"))
    try:
        return AdapterFacts(
            base=str(config.get("base_model_name_or_path") or ""),
            r=int(config["r"]),
            lora_alpha=float(config["lora_alpha"]),
            use_dora=bool(config.get("use_dora")),
        )
    except (KeyError, TypeError, ValueError):
        raise ModelError("adapter.no_config", folder=folder.name) from None


def matching_layer(names: Collection[str], name: str) -> str:
    """Return the name of a text layer among `names`, the layer names of the model in use, for `name`, the layer's name
    in another class of the same family; `name` itself if it is among them or none matches.

    Such classes differ in the beginning of the names only. Qwen3.5, say, is trained elsewhere, and once was by this
    app, by its class for text alone, but is published under other names.
    """
    rests = [name.removeprefix(place) for place in _PLACES if name.startswith(place)] if name not in names else []
    return next((f"{place}{rest}" for rest in rests for place in _PLACES if f"{place}{rest}" in names), name)


_WRAPPED = re.compile(r"(\.base_layer)+$")  # for two parameters in one module peft wraps the wrapper of the first


def layer_of(key: str) -> str:
    """Return the layer that a weight in an adapter's file belongs to."""
    return _WRAPPED.sub("", key.removeprefix(PREFIX).partition(".lora_")[0])


def renamed(weights: Mapping[str, T], layers: Collection[str]) -> dict[str, T]:
    """Return an adapter's weights by their names on a model with these layers."""
    return {
        key.replace(layer := layer_of(key), matching_layer(layers, layer), 1): weight for key, weight in weights.items()
    }


def rename_layers(config: PeftConfig, layers: Collection[str]) -> None:
    """Rename the layers (target modules, parameters, rank and alpha patterns) in PEFT's config of an adapter to those
    of the model, in place."""
    if not isinstance(config.target_modules, str | None):
        config.target_modules = {matching_layer(layers, name) for name in config.target_modules}
    if config.target_parameters:  # full names in adapters of other programs; ours are suffixes
        parts = (name.rpartition(".") for name in config.target_parameters)
        config.target_parameters = sorted(f"{matching_layer(layers, module)}{dot}{own}" for module, dot, own in parts)
    for pattern in ("rank_pattern", "alpha_pattern"):
        setattr(
            config, pattern, {matching_layer(layers, name): value for name, value in getattr(config, pattern).items()}
        )


# Values of init_lora_weights with which training leaves the base's weights as they are.
LEAVES_BASE_ALONE = (True, False, "gaussian", "eva", "orthogonal")
# Parts of an adapter beyond B A, which alpha does not scale.
NOT_SCALABLE = ("use_dora", "modules_to_save", "lora_bias", "trainable_token_indices")


def changes_base(config: Mapping[str, object]) -> str:
    """Return the setting, as "bias=all" or "init_lora_weights=pissa", by which an adapter was trained on changed
    weights of its base, so that it does not fit the base as published; "" if there is none."""
    init, bias = config.get("init_lora_weights", True), config.get("bias", "none")
    kept = "" if init in LEAVES_BASE_ALONE else f"init_lora_weights={init}"
    return (kept if bias == "none" else f"bias={bias}")[:80]


def at_strength(folder: Path, strength: float, target: Path) -> Path:
    """Write to target, a new folder, the adapter with its effect multiplied by strength through lora_alpha; return
    target.

    Raises ModelError for an adapter with parts that lora_alpha does not scale.
    """
    config = files.read_object(folder / "adapter_config.json")
    settings = [name for name in NOT_SCALABLE if config.get(name)]
    if settings or config.get("bias", "none") != "none":
        raise ModelError("adapter.one_strength", folder=folder.name, found=settings or ["bias"])
    shutil.copytree(folder, target)
    config["lora_alpha"] *= strength
    if patterns := config.get("alpha_pattern"):
        config["alpha_pattern"] = {name: alpha * strength for name, alpha in patterns.items()}
    files.replace_json(target / "adapter_config.json", config)
    return target


def check_complete(folder: Path) -> None:
    """Raise ModelError for an adapter whose weights are truncated or not safetensors. No torch."""
    if damage := _damage(folder / "adapter_model.safetensors"):
        raise ModelError("faults.adapter_damaged", folder=folder.name, reason=damage)


def _damage(file: Path) -> str:
    """Return the damage of a safetensors file in words, by its header and size alone; "" for none."""
    try:
        with open(file, "rb") as opened:
            size, head = file.stat().st_size, int.from_bytes(opened.read(8), "little")
            tensors = json.loads(opened.read(head)) if head <= min(size - 8, LONGEST_HEADER) else None
        if not isinstance(tensors, dict):
            return f"{size} bytes without a readable head"
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        expected = 8 + head + max(ends, default=0)
        return "" if size == expected else f"{size} bytes, {expected} expected"
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        return type(error).__name__
