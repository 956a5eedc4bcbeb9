"""The order of the training rows and their batches, which follow from the seed alone. No torch."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from core.recipe import Recipe

Order: TypeAlias = "array[int]"


def shuffled(count: int, seed: int, epoch: int) -> Order:
    """Return the numbers below count in an order that follows from seed and epoch, the same in every process."""
    # Random hashes a text by SHA-512, so both numbers make one seed, the same in every process.
    return shuffle(range(count), random.Random(f"{seed}/{epoch}"))


def shuffle(values: Iterable[int], chance: random.Random) -> Order:
    """Return the values in random order, as an array of 32-bit integers.

    chance: the random generator; in the same state it gives the order in which it would shuffle a list of the values.
    """
    order = array("i", values)
    chance.shuffle(order)
    return order


def packed(rows: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Distribute rows (positions in lengths) over micro-batches of at most capacity tokens, as `best_fit` does; a row
    longer than capacity is alone in one. Return the rows of each micro-batch."""
    return [[rows[i] for i in chosen] for chosen in best_fit([int(lengths[row]) for row in rows], capacity)]


@dataclass(frozen=True)
class Grouped(Sequence[list[int]]):
    """A sequence of batches, each a list of positions; one of them may be shorter.

    positions: those of all batches, one batch after the other. order: for each place in the sequence the number of its
    batch in `positions`.
    """

    positions: Order
    order: Order
    batch_size: int

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> list[int]:  # type: ignore[override]  # no caller takes a slice
        start = self.order[range(len(self))[index]] * self.batch_size
        return self.positions[start : start + self.batch_size].tolist()


def grouped(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> Grouped:
    """Return batches of positions in `lengths`, of similar length (little padding), in random order; each position
    once. The order follows from seed and epoch."""
    chance = random.Random(f"{seed}/{epoch}")
    order = shuffle(range(len(lengths)), chance)
    # Sorted within pools of 16 batches alone: sorted as a whole, every epoch would have the same batches.
    pool = batch_size * 16
    for start in range(0, len(order), pool):
        order[start : start + pool] = array(
            "i", sorted(order[start : start + pool], key=lambda i: lengths[i], reverse=True)
        )
    return Grouped(order, shuffle(range(-(-len(order) // batch_size)), chance), batch_size)


@dataclass(frozen=True)
class Schedule:
    """The optimizer steps of a run and the micro-batches of each."""

    lengths: Sequence[int]
    batch_size: int
    accumulation: int
    num_train_epochs: float
    max_steps: int
    seed: int
    capacity: int | None = None  # tokens of a packed micro-batch; None: micro-batches are padded

    @classmethod
    def from_recipe(cls, recipe: Recipe, lengths: Sequence[int], packed: bool) -> Schedule:
        """Return the schedule of a run. lengths: tokens of the training rows."""
        train, size = recipe.train, recipe.train.per_device_train_batch_size
        capacity = size * recipe.row_length if packed else None
        epochs, accumulation = train.num_train_epochs, train.gradient_accumulation_steps
        return cls(lengths, size, accumulation, epochs, train.max_steps, train.seed, capacity)

    @property
    def steps_per_epoch(self) -> int:
        """Return the optimizer steps of one pass over the rows: the batches of batch_size rows, divided by
        accumulation, rounded up both times."""
        return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.accumulation)

    @property
    def total_steps(self) -> int:
        """The optimizer steps of the run: max_steps, or as many as the epochs take, at least one."""
        if self.max_steps > 0:
            return self.max_steps
        return max(1, math.ceil(self.steps_per_epoch * self.num_train_epochs))

    def steps(self, done: int = 0) -> Iterator[list[list[int]]]:
        """Yield the micro-batches (lists of row positions) of each step after `done`, until total_steps."""
        for step in range(done, self.total_steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            # Also where a resumed run begins in the middle of an epoch.
            if step == done or within == 0:
                micro_batches = self._epoch(epoch)
            yield micro_batches(within)

    def _epoch(self, epoch: int) -> Callable[[int], list[list[int]]]:
        """Return a function from a step of this epoch to its micro-batches: groups of similar length, or (with a
        capacity) packed ones. Each row occurs once."""
        if self.capacity is None:
            batches = grouped(self.lengths, self.batch_size, self.seed, epoch)
            within = self.accumulation
            return lambda step: [batches[i] for i in range(step * within, min((step + 1) * within, len(batches)))]
        capacity, order = self.capacity, shuffled(len(self.lengths), self.seed, epoch)
        # A step has so many rows with packing too, so that its learning rate means the same.
        size = self.batch_size * self.accumulation
        return lambda step: packed(order[step * size : (step + 1) * size], self.lengths, capacity)


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack positions in `lengths` into bins of at most `capacity` tokens, longest first, each where it leaves the least
    room; return the bins. Deterministic: equal lengths in order of position, equally full bins in order of creation. An
    example longer than capacity gets a bin of its own."""
    bins: list[list[int]] = []
    room: list[int] = []
    # Best-fit decreasing (for language models: arXiv 2404.10830).
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b, left in enumerate(room) if left >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda b: (room[b], b))
        else:
            best = len(bins)
            bins.append([])
            room.append(capacity)
        bins[best].append(i)
        room[best] -= lengths[i]
    return bins
