"""The learning rate of each step: warmup, then the scheduler's decay. No torch."""

from __future__ import annotations

import math

from core.recipe import Train


def schedule_factor(done: int, total: int, warmup: int, kind: str) -> float:
    """Share of learning_rate for the step after `done` ones, 0 to 1. kind: linear, cosine, or any other for a constant
    rate; the decay is that of transformers' schedulers.

    The warmup rises from 1/(warmup + 1), not from zero as theirs, so that the first step already learns.
    """
    if done < warmup:
        return (done + 1) / (warmup + 1)
    progress = (done - warmup) / max(1, total - warmup)
    if kind == "linear":
        return max(0.0, 1 - progress)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def warmup_steps(train: Train, total: int) -> int:
    """Number of warmup steps, as in transformers: warmup_ratio of all steps, rounded up, unless warmup_steps is above
    0."""
    return train.warmup_steps or math.ceil(train.warmup_ratio * total)
