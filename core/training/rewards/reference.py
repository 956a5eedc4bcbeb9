"""Log-probabilities of drawn answers, now and under the reference: the adapter before the first step. Workers only
(torch)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from core.data.labels import Encoded
from core.engine.loss import token_losses
from core.engine.step import Step
from core.engine.variants.policy import Policy, WeighedAnswer


def with_reference(rows: Sequence[WeighedAnswer], step: Step) -> list[WeighedAnswer]:
    """Return rows with their log-probabilities under the reference, the adapter before the first step."""
    with as_before_training(step):
        before = log_probabilities(step, rows)
    return [replace(row, before=tuple(logps)) for row, logps in zip(rows, before, strict=True)]


@torch.no_grad()
def log_probabilities(step: Step, rows: Sequence[Encoded]) -> list[list[float]]:
    """Return the log-probabilities of the trained tokens of rows at the policy's temperature, with the adapter as it
    is, in the micro-batches of a step. Leaves the model in eval mode."""
    assert isinstance(step.criterion, Policy)
    head, values = step.criterion.head(step.head), dict[int, list[float]]()
    step.tuned.eval()
    for chosen in step.retreat.planned_parts([len(row.input_ids) for row in rows]):
        part = [rows[i] for i in chosen]
        step.computing = part
        batch = step.batch(part)
        losses = token_losses(step.tuned, batch, head)
        values |= zip(chosen, ((-each).tolist() for each in losses.split(batch.examples)), strict=True)
    step.computing = ()
    return [values[i] for i in range(len(rows))]


@contextmanager
def as_before_training(step: Step) -> Iterator[None]:
    """Context manager: inside, the adapter is the one before the first step; afterwards the present one."""
    now = [parameter.detach().clone() for parameter in step.parameters]
    try:
        step.copy_adapter(step.untrained)
        yield
    finally:
        step.copy_adapter(now)


def mean_divergence(now: Sequence[Sequence[float]], before: Sequence[Sequence[float]]) -> float:
    """Return an estimate (k3) of the mean KL divergence, in nats an answer token, of the present model from the
    reference; 0.0 for no tokens.

    now, before: log-probabilities of the same answer tokens, a list for each answer, under the present model and under
    the adapter before the first step.
    """
    aways = [then - logp for row, old in zip(now, before, strict=True) for logp, then in zip(row, old, strict=True)]
    return sum(math.exp(min(away, 80.0)) - away - 1 for away in aways) / max(1, len(aways))
