"""Maps the factors in an adapter's file to the tensors of the base's files, each with its scale: W + scale * B @ A.
Workers only (torch)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft.utils.other import get_pattern_key

from core import files
from core.export.stored import Base
from core.models.adapters import PREFIX, layer_of, matching_layer
from core.models.weights import open_tensors

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Experts:
    """Layout of the factors of all experts of a layer, which peft stores in two matrices.

    A (count * r, in) has the experts' rows below each other; B (out, r * count) has their columns interleaved. turned:
    the parameter is (count, in, out), not (count, out, in). one: the expert that a stored tensor belongs to, starting
    at its row first_row; None: all experts.
    """

    count: int
    turned: bool = False
    one: int | None = None
    first_row: int = 0


@dataclass(frozen=True)
class Pair:
    """Names of A and B for one tensor of the base in an adapter's file, the scale of B @ A, and DoRA's magnitudes
    (rows,) if it has them."""

    a: str
    b: str
    scale: float
    magnitude: str | None = None
    experts: Experts | None = None

    def product(self, a: torch.Tensor, b: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Return B @ A for the tensor's rows from start to stop; for a tensor with all experts, (experts, ., .) for the
        experts from start to stop."""
        if (experts := self.experts) is None:
            return b[start:stop] @ a
        rank = a.shape[0] // experts.count
        # PEFT's layout: the experts are A's outermost dimension, but B's innermost.
        a_by_expert, b_by_expert = a.reshape(experts.count, rank, -1), b.reshape(b.shape[0], rank, experts.count)
        if experts.one is not None:
            rows = slice(experts.first_row + start, experts.first_row + stop)
            return b_by_expert[rows, :, experts.one] @ a_by_expert[experts.one]
        return torch.einsum(
            "ore,eri->eio" if experts.turned else "ore,eri->eoi", b_by_expert[:, :, start:stop], a_by_expert[start:stop]
        )


def lora_pairs(base: Base, adapter: Path) -> dict[str, Pair] | None:
    """Map the name of each base tensor that the adapter changes to its pair; None if the adapter is more than W + scale
    * B @ A, or DoRA's form of it, on stored tensors.
    """
    config = files.read_object(adapter / "adapter_config.json")
    # Settings by which peft does more than add B @ A to stored weights; peft itself then merges.
    only_factors = not any(
        config.get(name)
        for name in ("modules_to_save", "fan_in_fan_out", "lora_bias", "trainable_token_indices", "layer_replication",
                     "megatron_config",
                     "alora_invocation_tokens", "use_bdlora", "arrow_config")
    )  # fmt: skip
    if not only_factors or config.get("bias", "none") != "none":
        return None
    with open_tensors(adapter / "adapter_model.safetensors") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - it is no mapping
    pairs: dict[str, Pair] = {}
    for key in (k for k, s in shapes.items() if k.endswith(".lora_A.weight") and len(s) == 2):
        if parameter := _parameter(base, key, config.get("target_parameters") or ()):
            if config.get("rank_pattern") or config.get("alpha_pattern"):
                return None
            matched = _pairs_of_experts(base, parameter, key, shapes, scale_of(config, key))
        else:
            matched = _pair_of_matrix(base, key, shapes, bool(config.get("use_dora")), scale_of(config, key))
        if not matched:
            return None  # not tensors of the files
        pairs |= matched
    used = {key for pair in pairs.values() for key in (pair.a, pair.b, pair.magnitude) if key}
    # A tensor of the file that no pair uses would change the model in a way that is not merged.
    return pairs if used == shapes.keys() else None


def scale_of(config: Mapping[str, Any], key: str) -> float:
    """Return the scale of one factor: alpha / rank, or alpha / sqrt(rank) for rsLoRA, with PEFT's rank and alpha
    patterns (regular expressions)."""
    module = key.removeprefix(PREFIX).partition(".lora_")[0]
    rank, alpha = (
        (patterns := config.get(f"{name}_pattern") or {}).get(get_pattern_key(patterns, module), config[usual])
        for name, usual in (("rank", "r"), ("alpha", "lora_alpha"))
    )
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _pair_of_matrix(base: Base, key: str, shapes: Shapes, has_magnitudes: bool, scale: float) -> dict[str, Pair]:
    """Map the name of one linear layer's stored weight to its pair; {} if the shapes, or DoRA's magnitudes, do not fit
    or it is not stored as one."""
    module = key.removesuffix(".lora_A.weight")
    other, parameter = f"{module}.lora_B.weight", f"{module.removeprefix(PREFIX)}.weight"
    # transformers renames some as it reads them: what the adapter calls by the model's name has another in the files.
    if (name := parameter) not in base.tensors:
        name = base.stored_names.get(matching_layer(base.stored_names, parameter), "")
    stored = base.tensors.get(name)
    if other not in shapes or stored is None or stored.shape != (shapes[other][0], shapes[key][1]):
        return {}
    magnitude = f"{module}.lora_magnitude_vector" if has_magnitudes else None
    if magnitude and shapes.get(magnitude) != stored.shape[:1]:
        return {}
    return {name: Pair(key, other, scale, magnitude)}


# ---- experts: all of a layer in one parameter ----------------------------------------------------
def _parameter(base: Base, key: str, targets: Sequence[str]) -> str | None:
    """Return the model's name of the parameter that a factor belongs to; None for an ordinary module.

    Of several parameters in one module peft wraps the first, then the wrapper: the last one's factors have the shortest
    names.
    """
    if not targets:
        return None
    modules = dict(base.model.named_modules())
    if (module := matching_layer(modules, layer_of(key))) not in modules:
        return None
    own = (f"{module}.{name}" for name, _ in modules[module].named_parameters(recurse=False))
    names = [name for name in own if any(f".{name}".endswith(f".{target}") for target in targets)]
    depth = key.partition(".lora_")[0].count(".base_layer")  # of wrappers
    return names[-1 - depth] if depth < len(names) else None


def _pairs_of_experts(base: Base, parameter: str, key: str, shapes: Shapes, scale: float) -> dict[str, Pair]:
    """Map the tensors of a layer's experts, stored as one or one by one, to their pairs; {} if the shapes do not fit or
    the parts do not cover all."""
    other, shape = key.replace(".lora_A.", ".lora_B."), base.model.get_parameter(parameter).shape
    if len(shape) != 3:
        return {}
    module, (count, *sides) = base.model.get_submodule(parameter.rpartition(".")[0]), shape
    turned = bool(getattr(module, "is_transposed", False))
    # (in, out) if turned, else (out, in)
    wide, rows = sides if turned else reversed(sides)
    if (
        other not in shapes
        or shapes[key][1] != wide
        or shapes[other] != (rows, shapes[key][0])
        or shapes[key][0] % count
    ):
        return {}
    pair = Pair(key, other, scale, experts=Experts(count, turned))
    if name := base.stored_names.get(parameter):
        return {name: pair} if base.tensors[name].shape == (count, *sides) else {}
    parts = {
        name: replace(pair, experts=Experts(count, turned, part.expert, part.first_row))
        for name, part in base.expert_parts.get(parameter, {}).items()
        if base.tensors[name].shape[1:] == (wide,)
    }
    # All rows of all experts: those of a tensor that was not found would stay the base's.
    total = sum(base.tensors[name].shape[0] for name in parts)
    return parts if total == count * rows and not turned else {}
