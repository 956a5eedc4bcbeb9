"""The known models against what there is: for each one and each method, whether it fits and what it needs. No torch.

Each verdict is of the least that choosing the model would take: one row of 512 tokens at a time with gradient checkpointing, the rest as
core.advice.recommend decides it without data. Full fine-tuning, which this app does not do, is there to compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.advice import recommend
from core.advice.case import Grounds, Method, Verdict, all_holes, with_settings
from core.advice.decisions import LENGTH_WITHOUT_DATA
from core.memory import arithmetic
from core.memory.arithmetic import Setup
from core.memory.budget import Budget
from core.memory.documented import TableMethod, vram_table
from core.models.known import KnownModel, known_models
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe

METHODS: tuple[TableMethod, ...] = ("lora", "qlora", "full")


@dataclass(frozen=True)
class Fit:
    """needed_gib: with its margin."""

    verdict: Verdict
    needed_gib: float


@dataclass(frozen=True)
class CatalogueEntry:
    model: KnownModel
    fits: dict[TableMethod, Fit]

    @property
    def trains(self) -> bool:
        """Whether this app can train it here, by either method, at least tightly."""
        return any(self.fits[method].verdict in ("fits", "tight") for method in ("lora", "qlora"))


def entries(budget: Budget) -> Sequence[CatalogueEntry]:
    """All known models, the smallest first."""
    return _entries(rounded(budget))


def rounded(budget: Budget) -> Budget:
    """budget as verdicts are remembered for it: free memory trembles all the time, RAM by more than a card's. Of RAM half a GiB, so that
    a list is not counted anew, and does not change its mind, at each look; never more than there is."""
    if budget.free_gib is None:
        return budget
    free = math.floor(budget.free_gib * 2) / 2 if budget.kind == "cpu" and budget.free_gib >= 1 else round(budget.free_gib, 1)
    return budget.model_copy(update={"free_gib": free})


@lru_cache(maxsize=32)
def _entries(budget: Budget) -> Sequence[CatalogueEntry]:
    found = [
        CatalogueEntry(model, {method: fit(model.shape, budget, method) for method in METHODS})
        for model in sorted(known_models(), key=lambda model: model.shape.params)
    ]
    return tuple(found)


@lru_cache(maxsize=8192)  # two methods of all models on two dozen cards
def fit(shape: ModelShape, budget: Budget, method: TableMethod) -> Fit:
    """Remembered, also for models of one shape."""
    if method == "full":
        return _full(shape, budget)
    _, verdict, needs = recommend.weigh(_asked(method), Grounds(budget, shape))
    assert needs is not None  # the shape is known
    return Fit(verdict, needs.needed_gib)


@lru_cache(maxsize=4)
def _asked(method: Method) -> Recipe:
    return with_settings(all_holes(), method=method, micro_batch=1, gradient_checkpointing=True)


def _full(shape: ModelShape, budget: Budget) -> Fit:
    optim = "adamw_torch" if budget.kind == "cpu" else "adamw_8bit"
    needs = arithmetic.estimate(shape, Setup(method="full", max_length=LENGTH_WITHOUT_DATA, optim=optim, device=budget.kind))
    table = vram_table()
    row, sold = table.row_of(shape.params), budget.sold_gb
    minimum = table.minimum(row, "full")
    free = budget.free_gib
    if free is None:
        return Fit("unknown", needs.needed_gib)
    if needs.on_card_gib > free or (row is not None and minimum is None):
        return Fit("does_not_fit", needs.needed_gib)
    below = minimum is not None and sold is not None and sold < minimum
    return Fit("tight" if needs.needed_gib > free or below else "fits", needs.needed_gib)
