"""Which rows are trained, which are kept apart, and in what order. Everything follows from the seed. No torch."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.recipe import Recipe

SMALLEST_SPLIT = 20  # rows; below it all are trained


def split(rows: int, eval_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers for training and for measuring, both in file order. Fewer than 20 rows are all trained."""
    held = round(rows * eval_fraction) if rows >= SMALLEST_SPLIT else 0
    if eval_fraction > 0 and rows >= SMALLEST_SPLIT:
        held = max(2, held)
    chosen = set(random.Random(seed).sample(range(rows), held))
    return [i for i in range(rows) if i not in chosen], sorted(chosen)


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


def packed(rows: Sequence[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """rows (positions in lengths) as micro-batches of at most capacity tokens."""
    return [[rows[i] for i in chosen] for chosen in best_fit([lengths[row] for row in rows], capacity)]


def grouped(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of positions in `lengths`, of similar length (little padding), in random order; each position once."""
    chance = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    chance.shuffle(order)
    pool = batch_size * 16
    batches = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda i: lengths[i], reverse=True)
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    chance.shuffle(batches)
    return batches


@dataclass(frozen=True)
class Schedule:
    """How many optimizer steps a run takes, and which micro-batches make each of them."""

    lengths: tuple[int, ...]
    batch_size: int
    accumulation: int
    num_train_epochs: float
    max_steps: int
    seed: int
    capacity: int | None = None  # tokens of a micro-batch that is packed; None: micro-batches are padded

    @classmethod
    def of(cls, recipe: Recipe, lengths: tuple[int, ...], packed: bool) -> Schedule:
        """lengths: tokens of the rows that are trained."""
        train, size = recipe.train, recipe.train.per_device_train_batch_size
        capacity = size * recipe.data.max_length if packed else None
        epochs, accumulation = train.num_train_epochs, train.gradient_accumulation_steps
        return cls(lengths, size, accumulation, epochs, train.max_steps, train.seed, capacity)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(math.ceil(len(self.lengths) / self.batch_size) / self.accumulation)

    @property
    def total_steps(self) -> int:
        if self.max_steps > 0:
            return self.max_steps
        return max(1, math.ceil(self.steps_per_epoch * self.num_train_epochs))

    def steps(self, done: int = 0) -> Iterator[list[list[int]]]:
        """The micro-batches (lists of row positions) of each step after `done`, until total_steps."""
        for step in range(done, self.total_steps):
            epoch, within = divmod(step, self.steps_per_epoch)
            if step == done or within == 0:
                batches = self._epoch(epoch)
            yield batches[within]

    def _epoch(self, epoch: int) -> list[list[list[int]]]:
        """The micro-batches of every step of an epoch; each row once."""
        if self.capacity is None:
            batches = grouped(self.lengths, self.batch_size, self.seed, epoch)
            return [batches[i : i + self.accumulation] for i in range(0, len(batches), self.accumulation)]
        order = shuffled(len(self.lengths), self.seed, epoch)
        size = self.batch_size * self.accumulation
        return [packed(order[i : i + size], self.lengths, self.capacity) for i in range(0, len(order), size)]


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Positions in `lengths` as bins of at most `capacity` tokens, each put where it leaves the least room.

    Deterministic: equal lengths in order of position, equally full bins in order of their making. An example longer than
    capacity gets a bin of its own.
    """
    bins: list[list[int]] = []
    room: list[int] = []
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
