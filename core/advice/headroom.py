"""Limits of a plan on this PC, and its verdicts on other GPUs: each variant is calculated, not guessed. No torch.

Everything is core.memory.arithmetic's arithmetic with its margin against free memory; verdicts on GPUs are those of
core.advice.recommend, which respects the documented table. Costs some milliseconds a GPU.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

from core.advice import recommend
from core.advice.case import Advice, Grounds, Method, Verdict, all_holes, value_of, with_settings
from core.advice.decisions import LENGTH_STEP
from core.data.facts import DataFacts
from core.memory import arithmetic, budget
from core.memory.budget import Budget
from core.memory.setup import Setup
from core.models.known import KnownModel, known_models
from core.models.shapes.shape import ModelShape

CARDS_GB = (6, 8, 10, 11, 12, 16, 20, 24, 32, 48, 80)  # as sold
RANKS_TRIED = (4, 8, 16, 32, 64, 128, 256)
FARTHEST = 131_072  # tokens; a hobbyist's data needs no more, whatever the model's limit
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
KEPT = (
    "method", "r", "target_modules", "max_length", "per_device_train_batch_size", "gradient_checkpointing",
    "use_dora", "lora_dropout", "load_in_8bit", "target_parameters",
)  # fmt: skip


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


@dataclass(frozen=True)
class OnCard:
    """A plan on a GPU sold with gb GB: its verdict, its need with and without the margin, its longest max_length there,
    and the advice for that GPU."""

    gb: int
    verdict: Verdict
    needed_gib: float
    bare_gib: float
    free_gib: float
    max_length: int | None
    advised: Advice


@dataclass(frozen=True)
class LengthCurve:
    """GiB needed with the margin at each length, for one method."""

    method: Method
    lengths: tuple[int, ...]
    needed_gib: tuple[float, ...]


def limits(shape: ModelShape, setup: Setup, free_gib: float, model: KnownModel | None = None) -> Headroom:
    """Return the limits of a plan. model: the known model of this shape; without it no family is searched."""
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
    """Return the largest known model of the same family, itself included, that fits with this setup."""
    family = [other for other in known_models() if other.family == model.family]
    if setup.trains_experts:  # others of the family may have no experts
        family = [other for other in family if other.shape.num_experts]
    fitting = [other for other in family if _needed(other.shape, setup) <= free_gib]
    return max(fitting, key=lambda other: other.shape.params, default=None)


def by_length(shape: ModelShape, setup: Setup, method: Method) -> LengthCurve:
    """Return the memory of one method at lengths up to the model's limit, this plan's own among them."""
    most = min(FARTHEST, shape.max_position_embeddings or FARTHEST)
    lengths = sorted({length for length in (*LENGTHS, setup.max_length) if length <= most})
    return LengthCurve(
        method, tuple(lengths), tuple(_needed(shape, setup, method=method, max_length=length) for length in lengths)
    )


def on_cards(plan: Advice, shape: ModelShape, system: str, data: DataFacts | None = None) -> Sequence[OnCard]:
    """Return plan on each common GPU. system: as platform.system() names it, for the memory of its desktop."""
    return [_on_card(plan, shape, budget.planned(gb, system), data) for gb in CARDS_GB]


def _on_card(plan: Advice, shape: ModelShape, there: Budget, data: DataFacts | None) -> OnCard:
    """Return the plan's verdict on another GPU, and the plan advised there."""
    free, grounds = all_holes(plan.recipe.goal), Grounds(there, shape, data)
    same = recommend.recommend(with_settings(free, **{name: value_of(plan.recipe, name) for name in KEPT}), grounds)
    assert same.estimate is not None and there.free_gib is not None and there.sold_gb is not None
    return OnCard(
        gb=int(there.sold_gb),
        verdict=same.verdict,
        needed_gib=same.estimate.needed_gib,
        bare_gib=same.estimate.on_card_gib,
        free_gib=there.free_gib,
        max_length=longest(shape, same.setup, there.free_gib),
        advised=recommend.recommend(free, grounds),
    )


def _needed(shape: ModelShape, setup: Setup, **changes: object) -> float:
    return arithmetic.estimate(shape, setup.model_copy(update=changes)).needed_gib
