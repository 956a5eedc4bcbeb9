"""What would fit: the arithmetic asked the other way round, for a card that is here or one that somebody thinks of. No torch.

Verdicts as in ../shared/design.md, section 5: *fits* with the margin and not below the documented table's minimum for the card,
*tight* without one of the two, *does not fit*. Everything is computed from one shape and one `Setup`; nothing is canned. Free
memory is the caller's: a `Budget` of this PC, or `budget.planned` for a card that is not here. correction: what earlier runs
on this PC measured, over what was predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from core import presets
from core.budget import Budget, planned
from core.memory import Estimate, Setup, estimate
from core.shapes import ModelShape

Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]
Method = Literal["lora", "qlora", "full"]

COMMON_CARDS_GB = (6, 8, 10, 11, 12, 16, 20, 24, 32, 48, 80)
METHODS: tuple[Method, ...] = ("qlora", "lora", "full")
RANKS = (4, 8, 16, 32, 64, 128, 256)
LENGTH_STEP = 64  # tokens
LONGEST = 131_072  # tokens that are tried where the model does not say how many it reads


@dataclass(frozen=True)
class Fit:
    """A verdict with its numbers, in GiB: what is needed with and without margin, and what is free (None: not known).
    minimum_gb: of the documented table for this size and method, None where it has none."""

    verdict: Verdict
    needed_gib: float
    on_card_gib: float
    free_gib: float | None
    minimum_gb: float | None
    estimate: Estimate

    @property
    def left_gib(self) -> float | None:
        """Free beyond what is needed with the margin; negative: what is missing."""
        return None if self.free_gib is None else self.free_gib - self.needed_gib


def fits(shape: ModelShape, setup: Setup, budget: Budget, correction: float = 1.0) -> Fit:
    """Whether this training fits. Raises RecipeError for target modules that the model does not have."""
    found = estimate(shape, setup)
    bare, needed, free = found.on_card_gib * correction, found.needed_gib * correction, budget.free_gib
    table = presets.vram_table()
    minimum = table.minimum(table.row_of(shape.params), setup.method) if budget.kind == "card" else None
    verdict: Verdict = "fits"
    if free is None:
        verdict = "unknown"
    elif bare > free:
        verdict = "does_not_fit"
    elif needed > free or (minimum is not None and budget.sold_gb is not None and budget.sold_gb < minimum):
        verdict = "tight"
    return Fit(verdict, needed, bare, free, minimum, found)


def on_every_card(
    shape: ModelShape, setup: Setup, system: str, cards_gb: Iterable[float] = COMMON_CARDS_GB, correction: float = 1.0
) -> dict[float, Fit]:
    """What if: the same training on each card size as sold, less the desktop's reserve of `system` (platform.system())."""
    return {gb: fits(shape, setup.model_copy(update={"device": "card"}), planned(gb, system), correction) for gb in cards_gb}


def by_method(shape: ModelShape, setup: Setup, budget: Budget, correction: float = 1.0) -> dict[Method, Fit]:
    """The same training by each method."""
    return {method: fits(shape, setup.model_copy(update={"method": method}), budget, correction) for method in METHODS}


def badges(budget: Budget, setup: Setup, correction: float = 1.0) -> dict[str, dict[Method, Fit]]:
    """For each model of the catalogue, by its id, whether each method fits."""
    every = setup.model_copy(update={"target_modules": "all-linear"})
    return {known.id: by_method(known.shape, every, budget, correction) for known in presets.models()}


def longest(shape: ModelShape, setup: Setup, budget: Budget, correction: float = 1.0) -> int | None:
    """The largest max_length that fits with its margin, a multiple of 64, no more than the model reads; None: not even 64."""
    most = min(shape.max_position_embeddings or LONGEST, 10_000_000)
    steps = _last_that(lambda step: _holds(shape, setup, budget, correction, max_length=step * LENGTH_STEP), most // LENGTH_STEP)
    return steps * LENGTH_STEP if steps else None


def highest_rank(
    shape: ModelShape, setup: Setup, budget: Budget, ranks: Sequence[int] = RANKS, correction: float = 1.0
) -> int | None:
    """The largest of `ranks` that fits with its margin; None: not even the first, or the whole model is trained."""
    if setup.method == "full":
        return None
    count = _last_that(lambda number: _holds(shape, setup, budget, correction, r=ranks[number - 1]), len(ranks))
    return ranks[count - 1] if count else None


def largest_micro_batch(shape: ModelShape, setup: Setup, budget: Budget, most: int = 64, correction: float = 1.0) -> int | None:
    return _last_that(lambda rows: _holds(shape, setup, budget, correction, micro_batch=rows), most) or None


def other_method(shape: ModelShape, setup: Setup, budget: Budget, correction: float = 1.0) -> tuple[Method, Fit] | None:
    """The dearest method that fits with its margin where this one does not; None where none does, or this one fits."""
    if _holds(shape, setup, budget, correction):
        return None
    found = by_method(shape, setup, budget, correction)
    cheaper = ("lora", "qlora") if setup.method == "full" else ("qlora",)
    return next(((method, found[method]) for method in cheaper if found[method].verdict in ("fits", "tight")), None)


def largest_of_family(family: str, setup: Setup, budget: Budget, correction: float = 1.0) -> tuple[presets.KnownModel, Fit] | None:
    """The largest model of a family of the catalogue that fits with its margin, trained the same way; None where none does."""
    members = [known for known in presets.models() if known.family == family]
    for known in sorted(members, key=lambda known: known.shape.params, reverse=True):
        found = fits(known.shape, setup.model_copy(update={"target_modules": "all-linear"}), budget, correction)
        if found.left_gib is not None and found.left_gib >= 0:
            return known, found
    return None


def family_of(shape: ModelShape) -> str | None:
    """The family of the catalogue that a shape belongs to: its own entry's, else that of the nearest size of its model_type."""
    members = presets.models()
    same = [known for known in members if known.shape.model_type == shape.model_type]
    exact = [known for known in same if known.shape.counted_params == shape.counted_params]
    nearest = sorted(same, key=lambda known: abs(known.shape.params - shape.params))
    return exact[0].family if exact else nearest[0].family if nearest else None


def by_length(
    shape: ModelShape, setup: Setup, lengths: Iterable[int] | None = None, correction: float = 1.0
) -> list[tuple[int, float]]:
    """(max_length, GiB with the margin), for a chart; without lengths a ladder up to what the model reads."""
    chosen = lengths if lengths is not None else ladder(shape)
    return [(length, estimate(shape, setup.model_copy(update={"max_length": length})).needed_gib * correction) for length in chosen]


def ladder(shape: ModelShape, first: int = 256, most: int = 32_768) -> list[int]:
    """256, 512, 1024, ... and what lies half-way, up to what the model reads."""
    top = min(shape.max_position_embeddings or most, most)
    found = []
    length = first
    while length <= top:
        found += [length] if length + length // 2 > top else [length, length + length // 2]
        length *= 2
    return found or [top]


def _holds(shape: ModelShape, setup: Setup, budget: Budget, correction: float, **changes: int) -> bool:
    """Whether it fits with its margin by arithmetic alone."""
    needed = estimate(shape, setup.model_copy(update=changes)).needed_gib * correction
    return budget.free_gib is not None and needed <= budget.free_gib


def _last_that(holds: Callable[[int], bool], most: int) -> int:
    """The largest number of 1 to most for which holds, which grows harder; 0 where not even 1 does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
