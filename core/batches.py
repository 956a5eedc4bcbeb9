"""Which rows are trained together and in what order, and a batch as tensors. Everything follows from the seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from core.tokenizer import Encoded


def split(rows: int, eval_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers for training and for measuring, both in file order. Fewer than 20 rows are all trained."""
    held = round(rows * eval_fraction) if rows >= 20 else 0
    if eval_fraction > 0 and rows >= 20:
        held = max(2, held)
    chosen = set(random.Random(seed).sample(range(rows), held))
    return [i for i in range(rows) if i not in chosen], sorted(chosen)


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
                batches = grouped(self.lengths, self.batch_size, self.seed, epoch)
            yield batches[within * self.accumulation : (within + 1) * self.accumulation]


@dataclass(frozen=True)
class Batch:
    """input_ids, attention_mask: (B, T) int64. Learned tokens are addressed in the flattened (B*T,) grid:
    index: (K,) positions whose hidden state predicts, targets: (K,) the ids they should predict.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    index: torch.Tensor
    targets: torch.Tensor

    @property
    def tokens(self) -> int:
        return int(self.attention_mask.sum())


def collate(rows: Sequence[Encoded], pad_token_id: int, device: torch.device) -> Batch:
    """Right-padded rows. Padding is told by the mask alone, because pad is often the end token itself."""
    width = max(len(row.input_ids) for row in rows)
    input_ids = torch.full((len(rows), width), pad_token_id, dtype=torch.int64)
    mask = torch.zeros((len(rows), width), dtype=torch.int64)
    index, targets = [], []
    for b, row in enumerate(rows):
        ids = row.input_ids
        input_ids[b, : len(ids)] = torch.tensor(ids)
        mask[b, : len(ids)] = 1
        for t in range(1, len(ids)):
            if row.learned[t]:
                index.append(b * width + t - 1)
                targets.append(ids[t])
    return Batch(input_ids.to(device), mask.to(device), torch.tensor(index, device=device), torch.tensor(targets, device=device))
