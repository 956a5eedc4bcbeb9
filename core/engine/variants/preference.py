"""Preference training: a pair of answers, and a loss that prefers the better one. Imports torch: workers only.

A pair is two examples (chosen, rejected), isolated from each other and packed like all others; of each the log-probabilities of its
learned tokens are summed, out of the same chunks of the head as any loss here. Names and formulas are TRL 1.16's, and a test holds loss,
gradients and numbers against its trainers: dpo (arXiv 2305.18290; sigmoid_norm by the mean of a token, robust: 2403.00409), simpo
(2405.14734; CPOTrainer), orpo (2403.07691; its SFT term is over the answer as in the paper's equation 6, where TRL 1.16 counts the
prompt too). What DPO holds the adapter against is what it was before the first step, base or parent's adapter: core/training/reference
computes it once, so a step holds nothing of it and costs one forward less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from core.engine.batches import Batch
from core.recipe import USUAL_BETA, Train

# What is told of pairs, each a mean over them, by TRL's names.
TOLD = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")


@dataclass(frozen=True)
class Preference:
    """Fields as in recipe.Train, beta filled in."""

    objective: str
    beta: float
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    simpo_gamma: float = 0.5
    sft_weight: float = 0.0

    @classmethod
    def of(cls, train: Train) -> Preference | None:
        """None where rows are not compared."""
        if not train.compares:
            return None
        beta = train.beta or USUAL_BETA[train.objective]
        sft_weight = 1.0 if train.objective == "orpo" else train.sft_weight
        return cls(train.objective, beta, train.loss_type, train.label_smoothing, train.simpo_gamma, sft_weight)

    @property
    def needs_reference(self) -> bool:
        return self.objective == "dpo"

    def sft_share(self, batches: Sequence[Batch]) -> float:
        """By what the loss of a chosen token is multiplied in a sum over the pairs of batches, so that their mean has sft_weight times the
        mean over chosen tokens."""
        counts = [count for batch in batches for count in batch.examples]
        return self.sft_weight * (len(counts) / 2) / max(1, sum(counts[0::2]))

    def summed(self, losses: torch.Tensor, batch: Batch, sft_share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """losses (K,): of the learned tokens of batch. Returns the loss summed over pairs, and (6,) the sums of what TOLD names."""
        logps, lengths = log_probabilities(losses, batch), torch.tensor(batch.examples, device=losses.device).clamp(min=1)
        if self.objective != "dpo":
            logps = logps / lengths
        ratios = logps - batch.reference if self.objective == "dpo" else logps
        scored = ratios / lengths if self.loss_type == "sigmoid_norm" else ratios
        pairs = self._losses(scored[0::2], scored[1::2])
        total = pairs.sum()
        if sft_share:
            total = total + sft_share * torch.stack([part.sum() for part in losses.split(batch.examples)[0::2]]).sum()
        chosen, rejected = (self.beta * ratios.detach()).view(-1, 2).T
        logps_then = logps.detach().view(-1, 2).T
        told = [chosen, rejected, (chosen > rejected).float(), chosen - rejected, *logps_then]
        return total, torch.stack([each.sum() for each in told])

    def _losses(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        if self.objective == "orpo":
            odds = (chosen - rejected) - (_log_of_rest(chosen) - _log_of_rest(rejected))
            return -self.beta * functional.logsigmoid(odds)
        ahead = self.beta * (chosen - rejected) - (self.simpo_gamma if self.objective == "simpo" else 0.0)
        right, wrong, share = -functional.logsigmoid(ahead), -functional.logsigmoid(-ahead), self.label_smoothing
        if self.loss_type == "robust":
            return ((1 - share) * right - share * wrong) / (1 - 2 * share)
        return (1 - share) * right + share * wrong if share else right


def log_probabilities(losses: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(N,) of each example's learned tokens together. losses: (K,)."""
    return -torch.stack([part.sum() for part in losses.split(batch.examples)])


def _log_of_rest(logps: torch.Tensor) -> torch.Tensor:
    """log(1 - e^x) of x <= 0, without loss of digits at either end (Maechler 2012); 0 itself, of a token that is certain, is kept off."""
    logps = logps.clamp(max=-torch.finfo(torch.float32).tiny)
    near = logps > -0.6931472
    return torch.where(near, torch.log(-torch.expm1(logps)), torch.log1p(-torch.exp(torch.where(near, -1.0, logps))))
