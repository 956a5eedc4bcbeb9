"""Preference training: pairs of answers, with a loss that prefers the better one. Imports torch: workers only.

A pair is two examples (chosen, rejected), isolated from each other and packed like any others; the log-probabilities of
each one's trained tokens are summed, from the same chunks of the head as other losses. Names and formulas are TRL
1.16's, and a test holds loss, gradients and numbers against its trainers: dpo (arXiv 2305.18290; sigmoid_norm by the
mean of a token, robust: 2403.00409), simpo (2405.14734; CPOTrainer), orpo (2403.07691; its SFT term is over the answer
as in the paper's equation 6, where TRL 1.16 counts the prompt too), kto (2402.01306, of rated rows: a second example
beside each is another row's answer). The reference of DPO and KTO is the model before the first step (base, or parent
run's adapter): core/training/preference/reference computes it once, so a step needs no memory for it and one forward
less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from core.engine.batches import Batch
from core.engine.loss import Head
from core.recipe import USUAL_BETA, Train

# Metrics of pairs, averaged over them, by TRL's names.
PAIR_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/accuracies",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
)
# The sums that they are averaged from; for kto also the KL term and the number of rows of each kind
SUMS = (*PAIR_METRICS, "kl", "good", "bad")


@dataclass(frozen=True)
class Preference:
    """A preference loss. Fields as in recipe.Train, beta filled in."""

    objective: str
    beta: float
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    simpo_gamma: float = 0.5
    sft_weight: float = 0.0
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    @classmethod
    def from_train(cls, train: Train) -> Preference | None:
        """Return the recipe's preference loss (dpo, orpo, simpo or kto), with the objective's usual beta if none is
        set, and sft_weight 1 for orpo; None for any other objective."""
        if not train.compares:
            return None
        beta = train.beta or USUAL_BETA[train.objective]
        sft_weight = 1.0 if train.objective == "orpo" else train.sft_weight
        weights = train.desirable_weight, train.undesirable_weight
        return cls(
            train.objective, beta, train.loss_type, train.label_smoothing, train.simpo_gamma, sft_weight, *weights
        )

    @property
    def needs_reference(self) -> bool:
        """True if the loss compares with log-probabilities from before the training."""
        return self.objective in ("dpo", "kto")

    def divisor(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """Return the number of pairs (with kto of rows) in all batches of a step, over which its loss is averaged, and
        `sft_share` of them."""
        return sum(map(self.count, batches)), self.sft_share(batches)

    def count(self, batch: Batch) -> int:
        """Return the number of pairs in a batch; with kto the number of rated rows, each of which takes two
        examples."""
        return len(batch.examples) // 2

    def head(self, head: Head) -> Head:
        """Return the head unchanged."""
        return head

    def sft_share(self, batches: Sequence[Batch]) -> float:
        """Return the factor for the loss of a chosen token in the sum over the pairs of batches, so that their mean
        contains sft_weight times the mean over chosen tokens."""
        counts = [count for batch in batches for count in batch.examples]
        return self.sft_weight * (len(counts) / 2) / max(1, sum(counts[0::2]))

    def loss_and_sums(self, losses: torch.Tensor, batch: Batch, sft_share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss summed over pairs (or, with kto, rated rows), and the sums that SUMS names, without gradient.
        sft_share: weight of the chosen answers' own cross-entropy. losses (K,): of the trained tokens of batch."""
        # (N,): chosen answers at even places, rejected ones at odd places.
        logps = log_probabilities(losses, batch)
        if not self.needs_reference:
            # SimPO and ORPO are defined on the mean of an answer's tokens.
            logps = logps / batch.answers
        ratios = logps - batch.reference if self.needs_reference else logps
        if self.objective == "kto":
            return self._rated(ratios, logps.detach(), batch.is_bad)
        scored = ratios / batch.answers if self.loss_type == "sigmoid_norm" else ratios
        pairs = self._losses(scored[0::2], scored[1::2])
        total = pairs.sum()
        if sft_share:
            # Cross-entropy of the chosen answers keeps their probability from falling while the margin grows.
            total = total + sft_share * torch.stack([part.sum() for part in losses.split(batch.examples)[0::2]]).sum()
        chosen, rejected = (self.beta * ratios.detach()).view(-1, 2).T
        logps_then = logps.detach().view(-1, 2).T
        values = [chosen, rejected, (chosen > rejected).float(), chosen - rejected, *logps_then]
        return total, torch.stack([*(each.sum() for each in values), *torch.zeros(3, device=losses.device)])

    def _rated(
        self, ratios: torch.Tensor, logps: torch.Tensor, is_bad: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of kto (arXiv 2402.01306, equation 7) and its sums.

        ratios, logps (N,): of each row's own answer, and of another row's answer to its question. The latter estimate
        the KL divergence from the reference and get no gradient. The estimate is per micro-batch, as in TRL, so other
        micro-batches give another step.
        """
        assert is_bad is not None
        # z0 of the paper: how far the model has moved on answers to other questions.
        # Never below 0, as in the paper: a KL divergence is not, but an estimate of it may be.
        moved = ratios[1::2].mean().detach().clamp(min=0)
        own, sign = ratios[0::2], 1.0 - 2.0 * is_bad.float()
        weights = torch.where(is_bad, self.undesirable_weight, self.desirable_weight)
        total = (weights * (1 - torch.sigmoid(self.beta * sign * (own - moved)))).sum()
        rewards, good, bad = self.beta * own.detach(), (~is_bad).float(), is_bad.float()
        right = (sign * (rewards - self.beta * moved) > 0).float()
        of_answers = [*(logps[0::2] * kind for kind in (good, bad)), moved.expand(len(own)), good, bad]
        values = [rewards * good, rewards * bad, right, torch.zeros_like(own), *of_answers]
        return total, torch.stack([each.sum() for each in values])

    def metrics(self, sums: Sequence[float], pairs: int) -> dict[str, float]:
        """Return the metrics by name: the sums divided by so many pairs, or rows. For rated rows each mean is over rows
        of its kind, and the margin is their difference; the accuracy (rows on their side of the KL estimate) is ours,
        TRL has none."""
        by_name = dict(zip(SUMS, sums, strict=True))
        if self.objective != "kto":
            return {name: by_name[name] / pairs for name in PAIR_METRICS}
        counts = {"chosen": by_name["good"], "rejected": by_name["bad"]}
        kinds = {
            f"{what}/{kind}": by_name[f"{what}/{kind}"] / count
            for kind, count in counts.items()
            for what in ("rewards", "logps")
            if count
        }
        # All rows may be of one kind.
        if all(counts.values()):
            kinds["rewards/margins"] = kinds["rewards/chosen"] - kinds["rewards/rejected"]
        return kinds | {"rewards/accuracies": by_name["rewards/accuracies"] / pairs, "kl": by_name["kl"] / pairs}

    def _losses(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        """Return the loss of each pair, (N,), from the scores of its two answers: of dpo and simpo -logsigmoid of the
        margin (loss_type robust and label_smoothing included), of orpo the odds ratio's term alone."""
        if self.objective == "orpo":
            # The logarithm of the odds ratio: odds are p / (1 - p).
            odds = (chosen - rejected) - (_log_of_rest(chosen) - _log_of_rest(rejected))
            return -self.beta * functional.logsigmoid(odds)
        ahead = self.beta * (chosen - rejected) - (self.simpo_gamma if self.objective == "simpo" else 0.0)
        right, wrong, share = -functional.logsigmoid(ahead), -functional.logsigmoid(-ahead), self.label_smoothing
        if self.loss_type == "robust":
            # Unbiased if this share of the pairs has its answers swapped.
            return ((1 - share) * right - share * wrong) / (1 - 2 * share)
        return (1 - share) * right + share * wrong if share else right


def log_probabilities(losses: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the log-probability of each example's trained tokens, (N,): minus the sum of their losses (K,)."""
    return -torch.stack([part.sum() for part in losses.split(batch.examples)])


def _log_of_rest(logps: torch.Tensor) -> torch.Tensor:
    """log(1 - e^x) for x <= 0, accurate at both ends (Maechler 2012); avoids 0 itself, a certain token."""
    logps = logps.clamp(max=-torch.finfo(torch.float32).tiny)
    near = logps > -0.6931472  # -log 2
    return torch.where(near, torch.log(-torch.expm1(logps)), torch.log1p(-torch.exp(torch.where(near, -1.0, logps))))
