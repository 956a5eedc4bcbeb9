"""Ways to fit, for a run that just ran out of memory: calculated with its actual rows, where a plan assumes typical
ones. No torch."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from core.advice import remedies
from core.advice.case import Case
from core.advice.decisions import with_settings
from core.data.facts import DataFacts
from core.data.labels import Encoded
from core.data.sets.pieces import learned_of, lengths_of
from core.errors import DoesNotFitError
from core.memory.arithmetic import estimate
from core.memory.budget import Budget
from core.memory.documented import vram_table
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe
from core.system.processes import top_by_ram
from core.values import GIB


@dataclass(frozen=True)
class Stopped:
    """A run that ran out of memory.

    setup: of its longest batch, as it was last tried; at_once: most examples in a micro-batch then. needed_gib: of this
    run; if not is_exact only a lower bound, the limit that it exceeded.
    """

    shape: ModelShape
    recipe: Recipe
    setup: Setup
    at_once: int
    rows: Sequence[Encoded]
    budget: Budget
    needed_gib: float
    is_exact: bool

    def ways(self) -> list[Message]:
        """Return sentences on what would make the run fit, with the arithmetic corrected by the memory that it
        needed."""
        setup = self.setup.model_copy(update={"base_bytes": 2})  # as in Case; the factor covers the rest
        factor = self.needed_gib / estimate(self.shape, setup).on_card_gib
        if not self.is_exact:
            factor = max(1.0, factor)
        lengths = self._lengths()
        case = Case(
            self.shape,
            self.budget,
            self._data(),
            None,
            vram_table(),
            self.recipe.data.eval_fraction,
            remedies.measured_corrections(factor),
        )
        train = self.recipe.train
        size = max(1, min(self.at_once, train.per_device_train_batch_size))
        now = with_settings(
            self.recipe,
            max_length=max(lengths),
            per_device_train_batch_size=size,
            gradient_checkpointing=setup.gradient_checkpointing,
            gradient_accumulation_steps=train.gradient_accumulation_steps * train.per_device_train_batch_size // size,
        )
        return [way.text for way in remedies.ways(case, now, lengths)]

    def _lengths(self) -> list[int]:
        """Return the lengths that max_length limits: for a pair its longer answer, as the arithmetic assumes two of
        that length."""
        if self.recipe.train.compares:
            return [max(len(example.input_ids) for example in row.examples) for row in self.rows]
        return [int(length) for length in lengths_of(self.rows)]

    def _data(self) -> DataFacts:
        """Return the facts of the run's tokenized rows; lengths as they are trained."""
        lengths = sorted(self._lengths())
        return DataFacts(
            rows=len(lengths),
            tokens=int(sum(lengths_of(self.rows))),
            learned_tokens=int(sum(learned_of(self.rows))),
            median_length=int(statistics.median(lengths)),
            p99_length=lengths[min(len(lengths) - 1, int(0.99 * len(lengths)))],
            longest=lengths[-1],
        )


def advice(run: Stopped | None, on_card: bool) -> Message:
    """Return a message on what to try: the ways that fit, and on a CPU the programs that hold most RAM. run: None if
    its memory cannot be computed."""
    ways = run.ways() if run else []
    held = [msg("probe.holder", name=name, gib=size / GIB) for name, size in top_by_ram(3)]
    if on_card or not held:
        return msg("probe.advice", ways=ways) if ways else msg("probe.advice_nothing")
    return msg("probe.advice_held", ways=ways, held=held) if ways else msg("probe.advice_nothing_held", held=held)


def refusal(needed: float | None, limit: float | None, advice: Message, *, rows: int, tokens: int) -> DoesNotFitError:
    """Return the error with which a run ends that does not fit into memory. Its text has `advice` on what to try.

    needed: GiB of the longest batch (of so many rows and tokens), None if it is only known to exceed the limit. limit:
    GiB available; None if it is unknown at how much the allocator gave up, and then the text has no GiB.
    """
    if limit is None:
        return DoesNotFitError("probe.does_not_fit_at_all", advice, rows=rows, tokens=tokens)
    key = "probe.does_not_fit" if needed is not None else "probe.does_not_fit_more"
    return DoesNotFitError(
        key, advice, needed=limit if needed is None else needed, limit=limit, rows=rows, tokens=tokens
    )
