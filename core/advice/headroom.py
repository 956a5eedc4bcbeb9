"""Limits of a plan on this PC: each variant is calculated, not guessed, by core.memory.arithmetic with its margin
against free memory. No torch."""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

from core.advice.case import Method
from core.advice.decisions import LENGTH_STEP
from core.memory import arithmetic
from core.memory.setup import Setup
from core.models.known import KnownModel, known_models
from core.models.shapes.shape import ModelShape

RANKS_TRIED = (4, 8, 16, 32, 64, 128, 256)
FARTHEST = 131_072  # tokens; a hobbyist's data needs no more, whatever the model's limit


@dataclass(frozen=True)
class Headroom:
    """The largest value of each setting that fits with the margin while all others stay. None: not even the smallest
    fits.

    max_length: a multiple of 64 tokens, or the model's limit. model: the largest known one of the same family.
    """

    max_length: int | None
    r: int | None
    method: Method | None
    model: KnownModel | None


def limits(shape: ModelShape, setup: Setup, free_gib: float, model: KnownModel | None = None) -> Headroom:
    """Return how far a plan could go in free_gib: max_length, rank, the other method, a larger model of its family,
    each with the rest unchanged; None for what does not fit. model: the known model of this shape; without it no family
    is searched."""
    other: Method = "lora" if setup.method == "qlora" else "qlora"
    return Headroom(
        max_length=longest(shape, setup, free_gib),
        r=largest_rank(shape, setup, free_gib),
        method=other if _needed(shape, setup, method=other) <= free_gib else None,
        model=largest_of_family(model, setup, free_gib) if model else None,
    )


def longest(shape: ModelShape, setup: Setup, free_gib: float) -> int | None:
    """Return the largest max_length that fits, by 64 tokens, up to the model's limit. None if 64 tokens do not fit."""
    most = min(FARTHEST, shape.max_position_embeddings or FARTHEST)
    lengths = range(LENGTH_STEP, most + 1, LENGTH_STEP)
    # a longer one needs more
    fitting = bisect(lengths, free_gib, key=lambda length: _needed(shape, setup, max_length=length))
    return lengths[fitting - 1] if fitting else None


def largest_rank(shape: ModelShape, setup: Setup, free_gib: float) -> int | None:
    fitting = [r for r in RANKS_TRIED if _needed(shape, setup, r=r) <= free_gib]
    return max(fitting, default=None)


def largest_of_family(model: KnownModel, setup: Setup, free_gib: float) -> KnownModel | None:
    """Return the largest known model of the same family, itself included, that fits with this setup; only models with
    experts if the setup trains experts."""
    family = [other for other in known_models() if other.family == model.family]
    if setup.trains_experts:  # others of the family may have no experts
        family = [other for other in family if other.shape.num_experts]
    fitting = [other for other in family if _needed(other.shape, setup) <= free_gib]
    return max(fitting, key=lambda other: other.shape.params, default=None)


def _needed(shape: ModelShape, setup: Setup, **changes: object) -> float:
    return arithmetic.estimate(shape, setup.model_copy(update=changes)).needed_gib
