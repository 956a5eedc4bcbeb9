"""Group relative policy optimization (GRPO): drawn answers whose tokens become likelier the better their answer is
judged than others to the same prompt. Imports torch: workers only.

Names and formulas are TRL 1.16's, and a test holds loss and gradients against its GRPOTrainer: `dapo` (arXiv
2503.14476), `dr_grpo` (2503.20783), a penalty `beta` for the distance from the reference (k3, with the ratio's
gradient). Each draw is used for one update, so the ratio of probabilities is 1 and nothing is clipped. The reference is
the adapter before the first step: the base, or the parent run's adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from core.data.labels import Encoded
from core.engine.batches import Batch
from core.engine.decoding.sampler import DrawnAnswer
from core.engine.loss import Head
from core.engine.variants.preference import SUMS
from core.recipe import Recipe

NO_SPREAD = 1e-4  # added to a standard deviation, as in TRL


@dataclass(frozen=True)
class WeighedAnswer(Encoded):
    """A prompt with a drawn answer. advantage: of the answer in its group; share: of each of its tokens in the loss of
    the step; before: log-probabilities (K,) of its tokens under the reference, only with beta."""

    advantage: float = 0.0
    share: float = 1.0
    before: tuple[float, ...] = ()

    def for_batch(self) -> list[tuple[float, float, float]]:
        """Return advantage, share and reference log-probability of each trained token."""
        before = self.before or (0.0,) * self.learned_count
        return [(self.advantage, self.share, logp) for logp in before]


@dataclass(frozen=True)
class Policy:
    """The loss of drawn answers. Fields as in core.reward_settings.Rewards."""

    loss_type: str = "dapo"
    beta: float = 0.0
    scale_rewards: str = "group"
    max_completion_length: int = 512
    temperature: float = 1.0
    mask_truncated_completions: bool = False

    objective: ClassVar[str] = "grpo"
    # Not the reference that pairs keep on disk (core/training/preference): `before` comes with each drawn answer.
    needs_reference: ClassVar[bool] = False

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> Policy | None:
        """Return the recipe's loss, or None if it does not train by rewards."""
        return cls(**{name: getattr(recipe.rewards, name) for name in cls.__dataclass_fields__ if name not in (
            "objective", "needs_reference")}) if recipe.rewards else None  # fmt: skip

    # ---- rows of a step -------------------------------------------------------------------------------------------
    def advantages(self, rewards: torch.Tensor, group: int) -> torch.Tensor:
        """Return each answer's reward minus the mean of its group, (N,), divided by a standard deviation: of the group,
        of all rewards, or not at all, as scale_rewards says.

        rewards (N,): groups are neighbours; NaN for an answer that no judge could judge, which counts for nothing and
        gets 0.
        """
        groups = rewards.view(-1, group)
        centred = (groups - groups.nanmean(1, keepdim=True)).flatten()
        if self.scale_rewards != "none":
            spread = _spread(groups) if self.scale_rewards == "group" else _spread(rewards[None])
            centred = centred / (spread.repeat_interleave(len(rewards) // len(spread)) + NO_SPREAD)
        return centred.nan_to_num(0.0)

    def weighed(self, answers: Sequence[DrawnAnswer], rewards: Sequence[float], group: int) -> list[WeighedAnswer]:
        """Return the rows of a step, without those that change nothing: answers of groups that are all alike, unless
        beta is above 0, and with mask_truncated_completions those that were cut off. One at least is kept."""
        counted = [answer.has_ended or not self.mask_truncated_completions for answer in answers]
        tokens = sum(len(answer.ids) for answer, counts in zip(answers, counted, strict=True) if counts)
        divisor = tokens if self.loss_type == "dapo" else len(answers) * self.max_completion_length
        advantages = self.advantages(torch.tensor(rewards, dtype=torch.float64), group).tolist()
        rows = [
            WeighedAnswer(
                answer.prompt + answer.ids,
                [False] * len(answer.prompt) + [True] * len(answer.ids),
                advantage=advantage if counts else 0.0,
                share=counts / max(1, divisor),
            )
            for answer, advantage, counts in zip(answers, advantages, counted, strict=True)
        ]
        # A step without a row would have no loss: the shortest one costs least.
        useful = [row for row in rows if row.share and (self.beta or row.advantage)]
        return useful or [min(rows, key=lambda row: len(row.input_ids))]

    # ---- the loss, as core.engine.step computes it ----------------------------------------------------------------
    def divisor(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """Return (1, 0): the summed loss of a step is divided by 1, because each row holds its share already, and there
        is no share of a supervised loss."""
        return 1.0, 0.0

    def count(self, batch: Batch) -> int:
        """Return the number of trained tokens."""
        return batch.targets.numel()

    def head(self, head: Head) -> Head:
        """Return the head with logits divided by the temperature, with which the answers were drawn."""
        return replace(head, scale=head.scale / self.temperature, cap=head.cap and head.cap / self.temperature)

    def loss_and_sums(self, losses: torch.Tensor, batch: Batch, _: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the batch's part of the step's loss, and the sums that SUMS names. losses: (K,)."""
        assert batch.weights is not None
        advantage, share, before = batch.weights.T
        ratio = torch.exp(losses.detach() - losses)  # 1, with the gradient of the log-probability
        penalty = torch.zeros_like(losses)
        if self.beta:
            # k3, an estimate of the KL divergence that is never negative (joschu.net/blog/kl-approx.html).
            away = before + losses
            penalty = (torch.exp(away) - away - 1) * ratio
        sums = torch.zeros(len(SUMS), device=losses.device)
        sums[SUMS.index("kl")] = penalty.detach().sum()
        return ((self.beta * penalty - ratio * advantage) * share).sum(), sums

    def metrics(self, sums: Sequence[float], tokens: int) -> dict[str, float]:
        """Return {"kl": mean KL divergence of a token from the reference} with beta above 0; else {}. sums: as of
        `loss_and_sums`."""
        return {"kl": sums[SUMS.index("kl")] / tokens} if self.beta else {}


def _spread(groups: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of each row without its NaN, (rows,); 0 for a single value."""
    counts = (~groups.isnan()).sum(1)
    squares = ((groups - groups.nanmean(1, keepdim=True)) ** 2).nansum(1)
    return (squares / (counts - 1).clamp(min=1)).sqrt()
