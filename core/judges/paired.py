"""Two contestants on the same questions: the difference of their mean scores, how sure it is, and one sentence.

The interval is the percentile bootstrap's over the questions, as scipy.stats.bootstrap(method="percentile") has it;
McNemar's test is the exact one, as scipy.stats.binomtest of the questions that exactly one of them has right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from core.judges.judge import Outcome
from core.messages import Message, msg
from core.values import Frozen, Z

RESAMPLES, SEED = 10_000, 0
ALPHA = 0.05
MARGIN = 0.05  # five points: whoever may be worse by less does as well
MIN_QUESTIONS = 8  # for any conclusion
MAX_FURTHER = 1000  # questions: more than that nobody writes
NONE_RIGHT = 0.1  # mean score up to which a contestant can do nothing

Rival = Literal["base", "prompt", "examples", "prompt_examples"]


class Paired(Frozen):
    """The second contestant against the first. difference: of the mean scores, -1 to 1, with low and high at 95 %.

    wins, losses: questions that only the second, only the first has entirely right; p: McNemar's, exact. further: how
    many more questions would decide, if they come out alike; 0 if it is decided, None if more than MAX_FURTHER.
    """

    count: int
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    p: float
    further: int | None = None

    @property
    def is_better(self) -> bool:
        """True if the second surely has the higher mean: enough questions, and the whole interval above 0."""
        return self._is_enough and self.low > 0 and self.difference > 0

    @property
    def is_worse(self) -> bool:
        """True if the second surely has the lower mean: enough questions, and the whole interval below 0."""
        return self._is_enough and self.high < 0

    @property
    def brings_nothing(self) -> bool:
        """True if the second is surely less than MARGIN better than the first, or worse."""
        return self._is_enough and self.high < MARGIN

    @property
    def _is_enough(self) -> bool:
        """Return True if there are at least MIN_QUESTIONS questions, below which no difference counts as sure."""
        return self.count >= MIN_QUESTIONS


def compare(first: Sequence[float], second: Sequence[float], seed: int = SEED) -> Paired:
    """Compare the scores, 0 to 1, of two contestants on the same questions: the mean difference (second minus first)
    with its interval, wins and losses with McNemar's p, and how many more questions would decide. Raises ValueError for
    no or unequally many scores."""
    a, b = np.asarray(first, float), np.asarray(second, float)
    if a.shape != b.shape or not a.size:
        raise ValueError(f"{a.size} and {b.size} scores: expected as many, and at least one")
    differences = b - a
    count, mean = len(differences), float(differences.mean())
    low, high = _interval(differences, seed)
    wins, losses = int(((b == 1) & (a < 1)).sum()), int(((a == 1) & (b < 1)).sum())
    p = mcnemar(wins, losses)
    all_or_nothing = bool(np.isin([a, b], (0.0, 1.0)).all())
    if all_or_nothing and p >= ALPHA:  # a small sample's bootstrap is too sure
        low, high = (min(low, 0.0), high) if mean > 0 else (low, max(high, 0.0))
    pair = Paired(count=count, difference=mean, low=low, high=high, wins=wins, losses=losses, p=p)
    further = _further(pair, float(differences.std()), all_or_nothing)
    return pair.model_copy(update={"further": further if further <= MAX_FURTHER else None})


def mcnemar(wins: int, losses: int) -> float:
    """Return McNemar's exact p, two-sided, of questions that exactly one of two has right."""
    count, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)


def _interval(differences: np.ndarray, seed: int) -> tuple[float, float]:
    """Return the bootstrap's percentile interval (low, high) of the mean at 95 %.

    If all differences are the same, resampling shows no uncertainty. Then the interval reaches as far to both sides
    (within -1 and 1) as the exact binomial upper bound of a share that is true of none of `count` cases.
    """
    count = len(differences)
    if np.ptp(differences) == 0:
        unknown = 1 - (ALPHA / 2) ** (1 / count)
        return max(-1.0, differences[0] - unknown), min(1.0, differences[0] + unknown)
    generator = np.random.default_rng(seed)
    rows = max(1, 2_000_000 // count)  # resamples at once: 16 MB
    means = np.concatenate([
        differences[generator.integers(0, count, (min(rows, RESAMPLES - begin), count))].mean(axis=1)
        for begin in range(0, RESAMPLES, rows)
    ])  # fmt: skip
    low, high = np.percentile(means, (100 * ALPHA / 2, 100 * (1 - ALPHA / 2)))
    return float(low), float(high)


def _further(pair: Paired, spread: float, all_or_nothing: bool) -> int:
    """Return how many more questions would decide that one is better, or that the second brings nothing; 0 if it is
    decided. spread: the standard deviation of the differences, which the questions to come are taken to have too."""
    if pair.is_better or pair.is_worse or pair.brings_nothing:
        return 0
    needed = [(Z * spread / (MARGIN - pair.difference)) ** 2] if pair.difference < MARGIN else []
    if all_or_nothing and pair.wins != pair.losses:
        # McNemar's p of ALPHA with Edwards' continuity correction, (|b - c| - 1)^2 / (b + c) = Z^2, both times x^2
        more, total = abs(pair.wins - pair.losses), pair.wins + pair.losses
        x = (Z * math.sqrt(total) + math.sqrt(Z * Z * total + 4 * more)) / (2 * more)
        needed.append(pair.count * x * x)
    elif pair.difference and not all_or_nothing:
        needed.append((Z * spread / pair.difference) ** 2)
    if spread == 0 and pair.difference == 0:
        needed = [math.log(ALPHA / 2) / math.log(1 - MARGIN)]
    return max(MIN_QUESTIONS, math.ceil(min(needed)), pair.count + 1) - pair.count


class Agreement(Frozen):
    """A judge's agreement with a person. share: of the same opinion, 0 to 1; kappa: Cohen's, None where both always
    have the same one opinion."""

    count: int
    share: float
    kappa: float | None


def agreement(pairs: Sequence[tuple[Outcome, Outcome]]) -> Agreement:
    """Return how far a judge and a person agree. pairs: their opinions of each answer, at least one."""
    count, (judged, votes) = len(pairs), list(zip(*pairs, strict=True))
    share = sum(a == b for a, b in pairs) / count
    chance = sum(judged.count(each) * votes.count(each) for each in set(votes)) / count**2
    return Agreement(count=count, share=share, kappa=None if chance == 1 else (share - chance) / (1 - chance))


def conclusion(rivals: Mapping[Rival, Sequence[float]], tuned: Sequence[float]) -> Message:
    """Return one sentence on whether fine-tuning brings anything over the best of what needs no training, the rival
    with the largest sum of scores.

    It may also say that nearly all answers are wrong, or how many more questions would decide. rivals: the scores of
    each, at least one, on the same questions as tuned's.
    """
    best = max(rivals, key=lambda rival: sum(rivals[rival]))
    pair = compare(rivals[best], tuned)
    percents = {
        "points": abs(round(100 * pair.difference)), "low": round(100 * pair.low), "high": round(100 * pair.high)
    }  # fmt: skip
    rival = msg(f"judges.rival_{best}")
    if max(sum(rivals[best]), sum(tuned)) <= NONE_RIGHT * pair.count and pair.count >= MIN_QUESTIONS:
        return msg("judges.none_right", count=pair.count)
    if pair.is_worse:
        worse = {"low": -percents["high"], "high": -percents["low"]}
        return msg("judges.worse", rival=rival, points=percents["points"], **worse)
    if pair.brings_nothing:
        return msg(f"judges.as_well_{best}", **percents)
    if pair.is_better:
        return msg("judges.brings", rival=rival, **percents)
    if pair.further is None:
        return msg("judges.too_close", rival=rival, count=pair.count, **percents)
    if abs(pair.difference) < MARGIN and pair.count >= MIN_QUESTIONS:
        return msg(f"judges.alike_{best}", further=pair.further, count=pair.count, **percents)
    return msg("judges.undecided", further=pair.further, rival=rival, count=pair.count, **percents)
