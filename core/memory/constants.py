"""The constants of the memory estimate; presets/memory.yaml has their values and sources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from core.presets import load
from core.values import Strict


class LossBytes(Strict):
    """Bytes per logit, per hidden value of a token, and per hidden value of a trained token."""

    vocabulary: float
    hidden: float
    learned: float = 0


class Stack(Strict):
    """The memory use of a trainer: presets/memory.yaml, which explains each number."""

    counted: bool = False
    by_transformers: bool = False
    inputs: Literal["once", "each"]
    kept: dict[str, dict[str, float]]
    kept_4bit: dict[str, float] = {}
    moving: dict[str, float]
    loss: dict[str, LossBytes]
    final_norm: float = 0
    slack: dict[str, float]
    context_gib: float


class NormAfterMlp(Strict):
    families: tuple[str, ...]
    moving: dict[str, float]


class KeptWhole(Strict):
    families: tuple[str, ...]
    widths: dict[str, float]


class BusConstants(Strict):
    gb_per_s: float
    process_gib: float


class CpuConstants(Strict):
    context_gib: float
    slack: float
    keeps_norms: Mapping[str, int]
    keeps_gates: tuple[str, ...]


class MemoryConstants(Strict):
    """Contents of presets/memory.yaml: the numbers of core.memory.arithmetic and what they describe."""

    version: int
    stack: str
    four_bit_bytes: dict[str, float]
    optimizer_bytes: dict[str, float]
    optimizer_states_as_wide_as_parameters: tuple[str, ...]
    workspace_gib: float
    trainer: Stack
    kept_besides: dict[str, dict[str, float]]
    moving_besides: dict[str, dict[str, float]]
    per_layer_inputs: dict[str, float]
    kept_with_per_layer_inputs: dict[str, float]
    scan: dict[str, float]
    norm_after_mlp: NormAfterMlp
    eager: dict[str, float]
    eager_families: dict[str, dict[str, float]]
    kept_whole: KeptWhole
    heads_first: tuple[str, ...]
    not_packed: tuple[str, ...]
    drops_attention: tuple[str, ...]
    besides_lora: dict[str, dict[str, dict[str, float]]]
    bus: BusConstants
    cpu: CpuConstants
    margin: dict[str, float]


@lru_cache(maxsize=1)
def memory_constants() -> MemoryConstants:
    """Return the constants of the memory estimate, read once from presets/memory.yaml."""
    return MemoryConstants.model_validate(load("memory"))
