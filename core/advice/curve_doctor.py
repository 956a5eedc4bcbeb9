"""Problems of a run, judged by its curves. Pure: reads recorded numbers, changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from core.advice.case import USUAL_RATE
from core.advice.decisions import MIN_STEPS
from core.advice.diagnosis import LISTED, Diagnosis
from core.advice.doctor.pairs import NUMBERS, PairSeries, of_pairs
from core.advice.goals import goal_of
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.health import DIVERGED_BY_NATS, DIVERGED_STEPS

WARMEST = 2  # times the usual rate: the most to recommend after a rate that was too low
BACK_TO = 5  # divisor of a rate that was too high, if it is near the usual one
WINDOW = 8  # least steps to average a loss over
SURE = 3.0  # standard errors
RISEN = 1.2  # times its lowest
ABOVE_BASE = 1.15  # times the untrained model's
JUMP = 0.5  # of the untrained model's loss, above the previous steps
MAX_JUMPS = 2
GAP = 0.10  # of the best measured loss
MIN_GAP = 0.02  # of the untrained model's loss
GAP_OF_ROWS = 2.0  # over the number of measured rows: 20 % for ten rows, two thirds for three
STILL_FALLING = 0.9  # times the training loss at the best measurement
FLAT = 0.01  # of the measured loss
FLAT_TRAINING = 0.02
LEARNING = 0.25  # of the highest rate; below it a flat loss is due to the schedule's end
MIN_FLAT_STEPS = 20
NOTHING_LEARNED = 0.03  # of the untrained model's loss
DONE = 0.1  # of the untrained model's loss: with less left, a flat loss is no problem

_TRAINED = ("loss", "grad_norm", "learning_rate", *NUMBERS)
_MEASURED = ("eval_loss", *(f"eval_{name}" for name in NUMBERS))


@dataclass(frozen=True, eq=False)
class Series:
    """The finite numbers of a run by step, without those that were taken back. measured_rows: rows of each
    evaluation."""

    steps: np.ndarray = field(default_factory=lambda: np.array([]))
    losses: np.ndarray = field(default_factory=lambda: np.array([]))
    norms: np.ndarray = field(default_factory=lambda: np.array([]))
    rates: np.ndarray = field(default_factory=lambda: np.array([]))
    eval_steps: np.ndarray = field(default_factory=lambda: np.array([]))
    eval_losses: np.ndarray = field(default_factory=lambda: np.array([]))
    measured_rows: int = 0
    pairs: PairSeries = field(default_factory=PairSeries)

    @classmethod
    def of_records(
        cls, records: Iterable[dict[str, object]], measured_rows: int = 0, answers: Sequence[tuple[int, float]] = ()
    ) -> Series:
        """Build the series from the lines of metrics.jsonl.

        A line of an earlier or equal step takes back all lines from that step on: the run was resumed from a
        checkpoint. answers: (step, mean characters) of the sample answers.
        """
        train: list[tuple[float, ...]] = []
        evals: list[tuple[float, ...]] = []
        for record in records:
            kind, step = record.get("kind"), record.get("step")
            if kind not in ("train", "eval") or not isinstance(step, int):
                continue
            points, names = (train, _TRAINED) if kind == "train" else (evals, _MEASURED)
            while points and points[-1][0] >= step:
                points.pop()
            if kind == "train":
                while evals and evals[-1][0] >= step:
                    evals.pop()
            points.append((step, *(_number(record.get(name)) for name in names)))
        trained, measured = (
            np.array(points, float).reshape(-1, 1 + len(names)).T
            for points, names in ((train, _TRAINED), (evals, _MEASURED))
        )
        pairs = PairSeries.from_columns(np.delete(trained, [1, 2, 3], 0), np.delete(measured, 1, 0), list(answers))
        (steps, losses, norms, rates), (eval_steps, eval_losses) = trained[:4].tolist(), measured[:2].tolist()
        return cls.of_columns(steps, losses, norms, rates, eval_steps, eval_losses, measured_rows, pairs)

    @classmethod
    def of_columns(
        cls,
        steps: Sequence[float],
        losses: Sequence[float],
        norms: Sequence[float],
        rates: Sequence[float],
        eval_steps: Sequence[float],
        eval_losses: Sequence[float],
        measured_rows: int = 0,
        pairs: PairSeries | None = None,
    ) -> Series:
        """Build the series from columns. Unknown numbers are nan; a step without a loss is left out."""
        train = np.array([steps, losses, norms, rates], float).reshape(4, -1)
        evals = np.array([eval_steps, eval_losses], float).reshape(2, -1)
        train, evals = train[:, np.isfinite(train[1])], evals[:, np.isfinite(evals[1])]
        return cls(train[0], train[1], train[2], train[3], evals[0], evals[1], measured_rows, pairs or PairSeries())

    @property
    def base(self) -> float:
        """The estimated loss of the untrained model; nan without losses.

        It is the first step's loss, or a larger one: the evaluation at step 0 or, without that evaluation, the median
        of the first 5 losses (which counts as at most twice the first). The first step's loss is computed before its
        update, but on one batch, which may have been an easy one.
        """
        if not len(self.losses):
            return math.nan
        first = float(self.losses[0])
        if len(self.eval_steps) and self.eval_steps[0] == 0:
            return max(first, float(self.eval_losses[0]))
        return max(first, min(float(np.median(self.losses[:5])), 2 * first))

    def between(self, after: float, until: float) -> np.ndarray:
        """Return the training losses of the steps after `after` up to `until`, which is included."""
        return self.losses[(self.steps > after) & (self.steps <= until)]


def _number(value: object) -> float:
    """Return value as a float; nan if it is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def of_run(recipe: Recipe, series: Series, is_active: bool, usual_rate: float | None = None) -> list[Diagnosis]:
    """Return the problems of a run that is active or has ended: at most one, of pairs first, then a too high rate,
    overfitting, a plateau. [] for training by rewards, where a loss says nothing.

    usual_rate: of the advice that the run was planned with, if known.
    """
    if recipe.rewards:
        return []
    if finding := of_pairs(recipe, series.pairs, is_active, series.measured_rows):
        return [finding]
    for rule in (hot_rate, overfitting, plateau):
        if finding := rule(recipe, series, is_active, usual_rate or USUAL_RATE):
            return [finding]
    return []


def hot_rate(recipe: Recipe, series: Series, is_active: bool, usual: float) -> Diagnosis | None:
    """Return the finding that the learning rate is too high, or None. usual: the rate usual for the model.

    The loss ends above the untrained model's or was there for most of the run, rises again after it had fallen, or
    jumps up and stays up. The remedy is to train again at the usual rate if the present one is more than twice that,
    else at a fifth of the present one; an active run is stopped first.
    """
    evidence = _above_base(series) or _risen(series) or _jumps(series) or _mostly_above(series)
    if evidence is None:
        return None
    rate = recipe.train.learning_rate
    cooler = usual if rate > 2 * usual else float(f"{rate / BACK_TO:.1g}")
    limit = recipe.train.max_grad_norm
    known = series.norms[np.isfinite(series.norms)]
    percent = round(100 * float((known > limit).mean())) if limit and len(known) else 0
    norms = msg("run_doctor.clipped", percent=percent, limit=limit) if percent else ""
    return Diagnosis(
        id="hot_rate",
        evidence=msg("run_doctor.hot_rate", what=evidence[0], rate=rate, norms=norms),
        meaning=msg("run_doctor.hot_rate_means"),
        remedy=msg(f"run_doctor.{'stop_' if is_active else ''}again_with_rate", rate=cooler),
        fix={"train.learning_rate": cooler},
        action="stop" if is_active else None,
        step=evidence[1],
    )


Evidence = tuple[Message, int]  # a sentence, and the step at which it begins


def _window(series: Series) -> int:
    """Return how many steps a loss is averaged over: a fifth of all, at least WINDOW."""
    return max(WINDOW, len(series.losses) // 5)


def _above_base(series: Series) -> Evidence | None:
    """Return a sentence and a step if the run ends above the untrained model's loss, else None.

    The mean of the last steps (a fifth of the run, or the last DIVERGED_STEPS of a run that diverges) must be at least
    ABOVE_BASE times that loss, and not by chance. The step is the first whose loss is so high. None also for a short
    run.
    """
    width = _window(series)
    if len(series.losses) > DIVERGED_STEPS and series.losses[-DIVERGED_STEPS:].min() > series.base + DIVERGED_BY_NATS:
        width = DIVERGED_STEPS  # as far as the limit at which a run goes back by itself (core/runs/health)
    elif len(series.losses) < 2 * width:
        return None
    last = series.losses[-width:]
    is_sure = last.min() > ABOVE_BASE * series.base or last.mean() - series.base > SURE * last.std() / math.sqrt(width)
    if last.mean() < ABOVE_BASE * series.base or not is_sure:
        return None
    begin, end = int(series.steps[-width]), int(series.steps[-1])
    above = int(series.steps[np.flatnonzero(series.losses > ABOVE_BASE * series.base)[0]])
    numbers = {"base": series.base, "last": float(last.mean()), "begin": begin, "end": end}
    return msg("run_doctor.above_base", **numbers), above


def _mostly_above(series: Series) -> Evidence | None:
    """Return a sentence and the first such step if more than half of all losses are above ABOVE_BASE times the
    untrained model's (and the first step's) loss, whatever the last ones are; else None. None also for a short run."""
    losses = series.losses
    above = np.flatnonzero(losses > ABOVE_BASE * max(series.base, float(losses[0]))) if len(losses) else losses
    if len(losses) < 2 * _window(series) or 2 * len(above) <= len(losses):
        return None
    begin, end = int(above[0]), int(above[-1])
    numbers = {
        "last": float(losses[begin : end + 1].mean()),
        "begin": int(series.steps[begin]),
        "end": int(series.steps[end]),
    }
    return msg("run_doctor.above_base", base=series.base, **numbers), int(series.steps[begin])


def _risen(series: Series) -> Evidence | None:
    """Return a sentence and a step if the loss had fallen and has risen again, else None.

    The mean of the last steps is compared with the lowest mean of as many earlier steps: it must be RISEN times that,
    and have gone back at least the share JUMP of the way to the untrained model's loss, by more than batches differ.
    The step is the last of the lowest steps.
    """
    width, losses = _window(series), series.losses
    if len(losses) < 3 * width:
        return None
    sums = np.concatenate([[0.0], losses.cumsum()])
    means = (sums[width:] - sums[:-width]) / width
    lowest = int(means[:-width].argmin())
    low, last = losses[lowest : lowest + width], losses[-width:]
    back = last.mean() > low.mean() + JUMP * max(0.0, series.base - low.mean())
    noise = math.sqrt((low.var() + last.var()) / width)
    if not back or last.mean() < RISEN * low.mean() or last.mean() - low.mean() < SURE * noise:
        return None
    from_step = int(series.steps[lowest + width - 1])
    return msg(
        "run_doctor.risen", low=float(low.mean()), step=from_step, last=float(last.mean()), end=int(series.steps[-1])
    ), from_step


def _jumps(series: Series) -> Evidence | None:
    """Return a sentence and the step of the first jump if the loss jumps more than MAX_JUMPS times, else None.

    A jump is a rise above the median of the previous WINDOW losses by JUMP of the untrained model's loss that lasts for
    at least three steps, so that one odd row is none.
    """
    losses = series.losses
    jumps: list[int] = []
    if len(losses) < WINDOW + 3:
        return None
    up = JUMP * series.base
    after = sliding_window_view(losses[WINDOW:], 3).min(1)
    # The median of the previous steps is computed only where their minimum allows a jump, which is rare.
    possible = WINDOW + np.flatnonzero(after > sliding_window_view(losses, WINDOW)[: len(after)].min(1) + up)
    for i in possible.tolist():
        if jumps and i <= jumps[-1] + WINDOW:
            continue
        if after[i - WINDOW] > np.median(losses[i - WINDOW : i]) + up:
            jumps.append(i)
    if len(jumps) <= MAX_JUMPS:
        return None
    steps = [int(series.steps[i]) for i in jumps]
    return msg("run_doctor.jumps", count=len(steps), steps=steps[:LISTED]), steps[0]


def overfitting(recipe: Recipe, series: Series, is_active: bool, usual: float) -> Diagnosis | None:
    """Return the finding of a validation loss that rises while the training loss falls, with the step to stop at; None
    otherwise, without validation rows, and for goals that learn rows by heart. The fewer validation rows, the larger
    the rise must be."""
    if series.measured_rows < 1 or len(series.eval_losses) < 3:
        return None
    if recipe.goal and goal_of(recipe.goal).learns_rows:
        return None
    best = int(series.eval_losses.argmin())
    after, low = series.eval_losses[best + 1 :], float(series.eval_losses[best])
    needed = 1 + max(GAP, GAP_OF_ROWS / series.measured_rows)
    if len(after) < 2 or after[-1] < max(needed * low, low + MIN_GAP * series.base) or (after[-2:] <= low).any():
        return None
    step, last_step = int(series.eval_steps[best]), int(series.eval_steps[-1])
    span = series.eval_steps[best] - series.eval_steps[best - 1] if best else series.eval_steps[1]
    then, now = (
        series.between(step - span, step) if best else series.losses[:1],
        series.between(last_step - span, last_step),
    )
    if not len(then) or not len(now) or now.mean() > STILL_FALLING * then.mean():
        return None
    steps = max(step, MIN_STEPS)
    return Diagnosis(
        id="overfitting",
        evidence=msg(
            "run_doctor.overfitting",
            step=step, last=last_step, low=low, high=float(after[-1]),
            percent=round(100 * (float(after[-1]) / low - 1)),
            rows=series.measured_rows, then=float(then.mean()), now=float(now.mean()),
        ),
        meaning=msg("run_doctor.overfitting_means"),
        remedy=_stop(recipe, series) if is_active else msg("run_doctor.again_with_steps", steps=steps),
        fix={} if is_active else {"train.max_steps": steps},
        action="stop" if is_active else None,
        step=step,
    )  # fmt: skip


def plateau(recipe: Recipe, series: Series, is_active: bool, usual: float) -> Diagnosis | None:
    """Return the finding of a loss that no longer improves while the learning rate is high: hardly better than the
    untrained model's (then a higher rate helps), or flat since some step (then fewer steps do). None otherwise, and for
    a loss that is nearly 0."""
    flat = _flat_measured(series) if len(series.eval_losses) else _flat_training(recipe, series)
    if flat is None:
        return None
    evidence, step, left = flat
    rate = recipe.train.learning_rate
    if left > 1 - NOTHING_LEARNED:
        warmer = max(usual, min(float(f"{rate * BACK_TO:.1g}"), WARMEST * usual))
        if warmer <= rate:
            return None
        remedy = msg(f"run_doctor.{'stop_' if is_active else ''}again_with_rate", rate=warmer)
        means, fix = msg("run_doctor.cold_means", rate=rate), {"train.learning_rate": warmer}
    elif left < DONE:
        return None
    else:
        steps = max(step, MIN_STEPS)
        remedy = _stop(recipe, series) if is_active else msg("run_doctor.again_with_steps", steps=steps)
        means, fix = msg("run_doctor.plateau_means"), {} if is_active else {"train.max_steps": steps}
    return Diagnosis(
        id="plateau",
        evidence=evidence,
        meaning=means,
        remedy=remedy,
        fix=fix,
        action="stop" if is_active else None,
        step=step,
    )


def _stop(recipe: Recipe, series: Series) -> Message:
    """Return the text of the remedy that stops an active run. It names the step of the best measured checkpoint if that
    is the one that is kept, else it says that the last state is kept."""
    steps, losses = series.eval_steps[series.eval_steps > 0], series.eval_losses[series.eval_steps > 0]
    if not recipe.train.load_best_model_at_end or not len(steps) or losses.argmin() == len(steps) - 1:
        return msg("run_doctor.stop_keep_last")
    return msg("run_doctor.stop_keep_best", step=int(steps[losses.argmin()]))


def _while_learning(series: Series) -> float:
    """Return the last step whose learning rate was not yet low; 0 without any."""
    known = series.rates[np.isfinite(series.rates)]
    high = series.rates >= LEARNING * known.max(initial=0.0)
    return float(series.steps[high][-1]) if high.any() else 0.0


def _flat_measured(series: Series) -> tuple[Message, int, float] | None:
    """Return (sentence, step, loss as a share of the untrained model's) if the validation loss no longer falls, else
    None.

    The step is that of the first evaluation since which neither the validation loss nor the training loss has fallen
    clearly. Only evaluations before the learning rate is low count, and at least two must follow it. Requires at least
    one evaluation.
    """
    usable = series.eval_steps <= _while_learning(series)
    steps, losses = series.eval_steps[usable], series.eval_losses[usable]
    untrained = float(series.eval_losses[0]) if series.eval_steps[0] == 0 else series.base
    for i in range(len(losses) - 2):
        first, last = steps[i], steps[-1]
        later = series.eval_losses[i + 1 :]
        if last - first < max(MIN_FLAT_STEPS, 0.3 * last):
            return None
        if later.min() < (1 - FLAT) * losses[i] or losses[-1] > (1 + FLAT) * losses[i]:
            continue
        early, late = series.between(first, (first + last) / 2), series.between((first + last) / 2, last)
        if not len(early) or not len(late):
            continue
        noise = math.sqrt(early.var() / len(early) + late.var() / len(late))
        if early.mean() - late.mean() > FLAT_TRAINING * early.mean() + noise:
            continue
        numbers = {
            "then": float(losses[i]),
            "now": float(losses[-1]),
            "early": float(early.mean()),
            "late": float(late.mean()),
        }
        return (
            msg("run_doctor.flat_measured", step=int(first), last=int(last), **numbers),
            int(first),
            float(losses[i]) / untrained,
        )
    return None


def _flat_training(recipe: Recipe, series: Series) -> tuple[Message, int, float] | None:
    """Return evidence of three long blocks in a row at the end with the same mean, within what batches differ, for runs
    without validation rows; else None. Returns (evidence, first step, loss as a share of the untrained model's)."""
    losses = series.losses[series.steps <= _while_learning(series)]
    width = max(2 * MIN_FLAT_STEPS, len(losses) // 6)
    if len(losses) < 3 * width:
        return None
    blocks = losses[-3 * width :].reshape(3, width)
    means, noise = blocks.mean(1), float(blocks.std(1).max()) / math.sqrt(width)
    if means.max() - means.min() > FLAT_TRAINING * means[0] or SURE * noise > FLAT_TRAINING * 2 * means[0]:
        return None
    first, last = int(series.steps[len(losses) - 3 * width]), int(series.steps[len(losses) - 1])
    numbers = {"early": float(means[0]), "late": float(means[2])}
    return msg("run_doctor.flat_training", step=first, last=last, **numbers), first, float(means[0]) / series.base
