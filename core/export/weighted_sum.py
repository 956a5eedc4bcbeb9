"""Combines two weighted adapters of one base into one: PEFT's `add_weighted_adapter` on files, no torch. "cat" is
exact, with the sum of both ranks; "svd" is the nearest of a smaller rank.

B A of the sum is w1 s1 B1 A1 + w2 s2 B2 A2: the weighted rows of both A below each other, the columns of both B beside
each other. A layer that only one adapter has gets zeros for the other.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from core import files
from core.errors import ModelError
from core.files import JsonObject
from core.models.adapters import LEAVES_BASE_ALONE, NOT_SCALABLE, TOKENIZER_FILES, check_complete, describe
from core.models.weights import backend

# Settings with which an adapter is more than B A on the base's own weights.
_REFUSED = (*NOT_SCALABLE, "rank_pattern", "alpha_pattern", "target_parameters", "layer_replication", "fan_in_fan_out")
_ENDS = ("lora_A.weight", "lora_B.weight")


@dataclass(frozen=True)
class WeightedAdapter:
    """An adapter's folder and its weight in the sum."""

    folder: Path
    weight: float


def write(parts: tuple[WeightedAdapter, WeightedAdapter], target: Path, rank: int | None = None) -> int:
    """Write the sum to the new folder target, with tokenizer and template of the first part, completely or not at all,
    and return its rank.

    rank: of the result; None: the sum of both ranks. Raises ModelError for another base or template, unlike shapes, an
    existing target or a wrong rank; OSError.
    """
    configs = [_config(part.folder) for part in parts]
    first, second = configs
    for name in ("base_model_name_or_path", "revision"):
        if first.get(name) != second.get(name):
            raise ModelError("summed.other_base", first=str(first.get(name)), second=str(second.get(name)))
    templates = [_text(part.folder / "chat_template.jinja") for part in parts]
    if templates[0] != templates[1]:
        raise ModelError("summed.other_template", first=parts[0].folder.name, second=parts[1].folder.name)
    if target.exists():
        raise ModelError("summed.is_there", folder=str(target))
    ranks = [int(config["r"]) for config in configs]
    scales = [
        # As PEFT scales: alpha / r, with rsLoRA (arXiv 2312.03732) alpha / sqrt(r).
        float(one["lora_alpha"]) / (math.sqrt(one["r"]) if one.get("use_rslora") else one["r"])
        for one in configs
    ]
    weights = _joined([_tensors(part.folder) for part in parts], ranks, [part.weight * scale for part,
        scale in zip(parts, scales, strict=True)])  # fmt: skip
    full_rank = sum(ranks)
    if rank is not None and not 1 <= rank < full_rank:
        raise ModelError("summed.rank", found=rank, high=full_rank - 1)
    if rank is not None:
        weights = _nearest(weights, rank)
    modules = sorted({name for config in configs for name in config["target_modules"]})
    rank = rank or full_rank
    # The scales are in A now, so alpha / r has to be 1.
    config = first | {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "init_lora_weights": True,
        "target_modules": modules,
    }
    with files.folder_aside(target) as aside:
        aside.mkdir(parents=True)
        for name in TOKENIZER_FILES:
            if (parts[0].folder / name).exists():
                shutil.copyfile(parts[0].folder / name, aside / name)
        save_file(weights, aside / "adapter_model.safetensors", metadata={"format": "pt"})
        files.replace_json(aside / "adapter_config.json", config)
    return rank


def _config(folder: Path) -> JsonObject:
    """Read an adapter's config. Raises ModelError for a damaged adapter, or one with anything but plain LoRA factors on
    named modules."""
    describe(folder)
    check_complete(folder)
    config = files.read_object(folder / "adapter_config.json")
    refused = [name for name in _REFUSED if config.get(name)]
    refused += ["bias"] if config.get("bias", "none") != "none" else []
    refused += ["init_lora_weights"] if config.get("init_lora_weights", True) not in LEAVES_BASE_ALONE else []
    refused += ["target_modules"] if not isinstance(config.get("target_modules"), list) else []
    if refused:
        raise ModelError("summed.cannot", folder=folder.name, found=refused)
    return config


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """Read an adapter's factors by name. Raises ModelError if the file is damaged or holds anything else."""
    try:
        tensors = load_file(folder / "adapter_model.safetensors", backend=backend())
    except (SafetensorError, TypeError, KeyError, ValueError) as error:  # also dtypes that numpy lacks
        raise ModelError("summed.numbers", folder=folder.name, reason=f"{type(error).__name__} {error}"[:100]) from None
    if other := [name for name in tensors if not name.endswith(_ENDS)]:
        raise ModelError("summed.cannot", folder=folder.name, found=other[:3])
    return tensors


def _joined(parts: list[dict[str, np.ndarray]], ranks: list[int], scales: list[float]) -> dict[str, np.ndarray]:
    """Return the factors of the sum: A of all parts times their scale stacked by rows, B by columns; zeros for a layer
    that a part lacks. Raises ModelError for layers of different shapes."""
    joined: dict[str, np.ndarray] = {}
    for name in sorted({name for part in parts for name in part}):
        axis = 0 if name.endswith(_ENDS[0]) else 1
        example = next(part[name] for part in parts if name in part)
        weighted = []
        for part, rank, scale in zip(parts, ranks, scales, strict=True):
            shape = (rank, example.shape[1]) if axis == 0 else (example.shape[0], rank)
            tensor = part.get(name, np.zeros(shape, example.dtype))
            if tensor.shape != shape:
                raise ModelError("summed.shape", layer=name, first=str(shape), second=str(tensor.shape))
            # In A alone, so that each scale counts once in B A.
            weighted.append(tensor * tensor.dtype.type(scale) if axis == 0 else tensor)
        joined[name] = np.ascontiguousarray(np.concatenate(weighted, axis))
    return joined


def _nearest(weights: dict[str, np.ndarray], rank: int) -> dict[str, np.ndarray]:
    """Return factors whose product is the nearest product of the given rank, by its singular values (Eckart and Young
    1936).

    B A itself, as large as the layer, is never formed: its singular values are those of the small triangles of B's and
    A's QR.
    """
    reduced: dict[str, np.ndarray] = {}
    for name in (name for name in weights if name.endswith(_ENDS[0])):
        other = name.removesuffix(_ENDS[0]) + _ENDS[1]
        # In fp32: numpy decomposes no 16-bit numbers.
        q_b, r_b = np.linalg.qr(weights[other].astype(np.float32))
        q_a, r_a = np.linalg.qr(weights[name].astype(np.float32).T)
        # B A = Q_b (R_b R_a^T) Q_a^T, and Q_b and Q_a change no singular value.
        u, values, v = np.linalg.svd(r_b @ r_a.T)
        kept = min(rank, len(values))
        b, a = np.zeros((len(q_b), rank), np.float32), np.zeros((rank, len(q_a)), np.float32)
        b[:, :kept], a[:kept] = q_b @ (u[:, :kept] * values[:kept]), v[:kept] @ q_a.T
        reduced[name], reduced[other] = a.astype(weights[name].dtype), b.astype(weights[other].dtype)
    return reduced


def _text(path: Path) -> str | None:
    """Return the text of a file; None if it is missing or no UTF-8."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return None
