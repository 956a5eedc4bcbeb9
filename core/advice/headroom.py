"""How far a plan could be extended on this PC, and how it would do on other GPUs: each variant is calculated, not
guessed. No torch.

Everything is core.memory.arithmetic's arithmetic with its margin against free memory; verdicts on cards are
core.advice.recommend's, so that the documented table has its say. Costs some milliseconds a card.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
FARTHEST = 131_072  # tokens; no data set of a hobbyist asks for more, whatever a model can read
LENGTHS = (256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
KEPT = (
    "method", "r", "target_modules", "max_length", "per_device_train_batch_size", "gradient_checkpointing",
    "use_dora", "lora_dropout", "load_in_8bit", "target_parameters",
)  # fmt: skip


@dataclass(frozen=True)
class Headroom:
    """The most of one setting that still fits with the margin while all others stay. None: not even the least does.

    max_length: a multiple of 64 tokens, or what the model can read. model: the largest known one of the same family.
    """

    max_length: int | None
    r: int | None
    method: Method | None
    model: KnownModel | None


@dataclass(frozen=True)
class OnCard:
    """A plan on a card of gb GB as sold, with its need with and without the margin: the plan as it is, how long its
    rows could be, and what would be advised there."""

    gb: int
    verdict: Verdict
    needed_gib: float
    bare_gib: float
    free_gib: float
    max_length: int | None
    advised: Advice


@dataclass(frozen=True)
class LengthCurve:
    """GiB needed with the margin, at each of lengths, for one method."""

    method: Method
    lengths: tuple[int, ...]
    needed_gib: tuple[float, ...]


def limits(shape: ModelShape, setup: Setup, free_gib: float, model: KnownModel | None = None) -> Headroom:
    """model: the known model that shape is of; without it no family is looked through."""
    other: Method = "lora" if setup.method == "qlora" else "qlora"
    return Headroom(
        max_length=longest(shape, setup, free_gib),
        r=largest_rank(shape, setup, free_gib),
        method=other if _needed(shape, setup, method=other) <= free_gib else None,
        model=largest_of_family(model, setup, free_gib) if model else None,
    )


def longest(shape: ModelShape, setup: Setup, free_gib: float) -> int | None:
    """The largest max_length, by 64 tokens; what the model reads where that is less. None where 64 tokens do not
    fit."""
    most = min(FARTHEST, shape.max_position_embeddings or FARTHEST)
    lengths = range(LENGTH_STEP, most + 1, LENGTH_STEP)
    # a longer one needs more
    fitting = bisect(lengths, free_gib, key=lambda length: _needed(shape, setup, max_length=length))
    return lengths[fitting - 1] if fitting else None


def largest_rank(shape: ModelShape, setup: Setup, free_gib: float) -> int | None:
    fitting = [r for r in RANKS_TRIED if _needed(shape, setup, r=r) <= free_gib]
    return max(fitting, default=None)


def largest_of_family(model: KnownModel, setup: Setup, free_gib: float) -> KnownModel | None:
    """The largest known model of the same family that fits as setup has it, itself included."""
    family = [other for other in known_models() if other.family == model.family]
    if setup.trains_experts:  # of which others of the family may have none
        family = [other for other in family if other.shape.num_experts]
    fitting = [other for other in family if _needed(other.shape, setup) <= free_gib]
    return max(fitting, key=lambda other: other.shape.params, default=None)


def by_length(shape: ModelShape, setup: Setup, method: Method) -> LengthCurve:
    """What one method needs at lengths up to what the model reads, this plan's own among them."""
    most = min(FARTHEST, shape.max_position_embeddings or FARTHEST)
    lengths = sorted({length for length in (*LENGTHS, setup.max_length) if length <= most})
    return LengthCurve(
        method, tuple(lengths), tuple(_needed(shape, setup, method=method, max_length=length) for length in lengths)
    )


def on_cards(plan: Advice, shape: ModelShape, system: str, data: DataFacts | None = None) -> Sequence[OnCard]:
    """plan on each common card. system: of platform.system(), for what its desktop takes."""
    return [_on_card(plan, shape, budget.planned(gb, system), data) for gb in CARDS_GB]


def _on_card(plan: Advice, shape: ModelShape, there: Budget, data: DataFacts | None) -> OnCard:
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


def _needed(shape: ModelShape, setup: Setup, **changes: Any) -> float:
    return arithmetic.estimate(shape, setup.model_copy(update=changes)).needed_gib
