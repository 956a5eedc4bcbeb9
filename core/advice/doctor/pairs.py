"""Problems of a preference run, judged by its curves and sample answers. Pure: reads recorded numbers, changes nothing.

The bounds are our own choice: each is wider than what healthy runs of the starter showed, and every finding names its
numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from core.advice.decisions import MIN_STEPS
from core.advice.diagnosis import Diagnosis
from core.messages import Message, msg
from core.recipe import Recipe

NUMBERS = ("rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected")  # in metrics.jsonl, TRL's names
COOLER = 5  # divisor of the learning rate, if there is no other remedy
WINDOW = 8  # least steps to average a training number over
FALLEN = 0.2  # share of the better answers' log-probability before the training
MIN_NATS = 2.0  # for dpo and kto, whose log-probabilities are sums over an answer
ALL, AT_ONCE = 0.999, 0.25  # share of the pairs; share of the steps so far
MIN_MEASURED = 10  # pairs: with fewer all may be right by chance
MIN_SEEN = 20  # steps, if there is no validation set
LONGER, MIN_ADDED_CHARACTERS = 1.5, 20  # times the answers before the training, and characters
NORM_BETA = 5.0  # beta of sigmoid_norm, from Tulu 3 (arXiv 2411.15124)


def _no_columns(rows: int) -> np.ndarray:
    """Return an array of so many rows without any column."""
    return np.empty((rows, 0))


@dataclass(frozen=True, eq=False)
class PairSeries:
    """The curves of a preference run.

    training, measured: (5, P) step and NUMBERS; answers: (2, F) step and mean characters of the sample answers.
    """

    training: np.ndarray = field(default_factory=lambda: _no_columns(5))
    measured: np.ndarray = field(default_factory=lambda: _no_columns(5))
    answers: np.ndarray = field(default_factory=lambda: _no_columns(2))

    @classmethod
    def from_columns(cls, training: np.ndarray, measured: np.ndarray, answers: list[tuple[int, float]]) -> PairSeries:
        """Build the series without points that hold a number that is not finite."""
        known, of_measured = (columns[:, np.isfinite(columns).all(0)] for columns in (training, measured))
        return cls(known, of_measured, np.array(answers, float).reshape(-1, 2).T)


def of_pairs(recipe: Recipe, series: PairSeries, is_active: bool, measured_rows: int) -> Diagnosis | None:
    """Return the first problem of a preference run, or None, also for other runs. measured_rows: pairs of each
    evaluation."""
    if not recipe.train.compares:
        return None
    finding = displaced(recipe, series, is_active) or longer(recipe, series, is_active)
    return finding or told_apart_at_once(recipe, series, is_active, measured_rows)


def displaced(recipe: Recipe, series: PairSeries, is_active: bool) -> Diagnosis | None:
    """Return the finding that the better answers have become clearly less likely than before the training while the
    margin over the worse ones grew (arXiv 2410.08847); else None.

    The evaluations are judged or, with fewer than three, blocks of training steps. The remedy adds an sft_weight of 1
    where the loss allows it, else lowers the learning rate to a fifth.
    """
    columns = series.measured if series.measured.shape[1] >= 3 else _averaged(series.training)
    if columns.shape[1] < 3:
        return None
    steps, _, margins, chosen, rejected = columns
    least = max(FALLEN * abs(chosen[0]), MIN_NATS if recipe.train.objective in ("dpo", "kto") else 0.0)
    below = np.flatnonzero(chosen < chosen[0] - least)
    if (chosen[-2:] >= chosen[0] - least).any() or margins[-1] <= margins[0]:
        return None
    evidence = msg(
        "run_doctor.displaced",
        step=int(steps[0]), last=int(steps[-1]), before=float(chosen[0]), now=float(chosen[-1]),
        worse=float(rejected[0]), worse_now=float(rejected[-1]), margin=float(margins[-1]),
    )  # fmt: skip
    train = recipe.train
    if train.objective in ("dpo", "simpo") and not train.sft_weight:
        remedy = msg(f"run_doctor.{_key_prefix(is_active)}again_with_sft_weight", weight=1)
        fix: dict[str, object] = {"train.sft_weight": 1.0}
    else:
        remedy, fix = _cooler(recipe, is_active)
    return _diagnosis("displaced", evidence, remedy, fix, is_active, int(steps[below[0]]))


def longer(recipe: Recipe, series: PairSeries, is_active: bool) -> Diagnosis | None:
    """Return the finding that the sample answers have grown, or None: the last two measurements are at least LONGER
    times the first, and MIN_ADDED_CHARACTERS longer. A sum of log-probabilities gains more from a long answer (arXiv
    2403.19159)."""
    steps, lengths = series.answers
    if len(steps) < 3 or (lengths[-2:] < max(LONGER * lengths[0], lengths[0] + MIN_ADDED_CHARACTERS)).any():
        return None
    evidence = msg(
        "run_doctor.longer", step=int(steps[0]), last=int(steps[-1]), before=round(lengths[0]), now=round(lengths[-1])
    )
    train = recipe.train
    if train.objective == "dpo" and train.loss_type == "sigmoid":
        remedy = msg(f"run_doctor.{_key_prefix(is_active)}again_by_mean", beta=NORM_BETA)
        fix: dict[str, object] = {"train.loss_type": "sigmoid_norm", "train.beta": NORM_BETA}
    else:
        remedy, fix = _cooler(recipe, is_active)
    begun = int(np.flatnonzero(lengths >= LONGER * lengths[0])[0])
    return _diagnosis("longer", evidence, remedy, fix, is_active, int(steps[begun]))


def told_apart_at_once(recipe: Recipe, series: PairSeries, is_active: bool, measured_rows: int) -> Diagnosis | None:
    """Return the finding that the model tells better from worse answers almost without error in every measurement, of
    which the first lies in the first quarter of the steps: something trivial distinguishes them. None otherwise, and
    with too few pairs or steps to judge."""
    measured = series.measured[:, series.measured[0] > 0]
    if measured.shape[1]:
        steps, shares = (measured[0], measured[1]) if measured_rows >= MIN_MEASURED else (measured[0], measured[1][:0])
    else:
        steps, shares = _averaged(series.training)[:2] if series.training.shape[1] >= MIN_SEEN else _no_columns(2)
    if len(shares) < 2 or (shares < ALL).any() or steps[0] > AT_ONCE * steps[-1]:
        return None
    enough = max(int(steps[0]), MIN_STEPS)
    evidence = msg("run_doctor.told_apart", step=int(steps[0]), last=int(steps[-1]))
    if enough < int(steps[-1]):
        remedy = msg(f"run_doctor.{_key_prefix(is_active)}again_with_steps", steps=enough)
        fix: dict[str, object] = {"train.max_steps": enough}
    else:
        remedy, fix = _cooler(recipe, is_active)
    return _diagnosis("told_apart", evidence, remedy, fix, is_active, int(steps[0]))


def _averaged(columns: np.ndarray) -> np.ndarray:
    """Return the columns averaged over consecutive blocks of equally many steps, at most 5 of at least WINDOW steps
    each: row 0 has the last step of each block, the other rows the means. Steps left over at the end are dropped."""
    width = max(WINDOW, columns.shape[1] // 5)
    count = columns.shape[1] // width
    blocks = columns[:, : count * width].reshape(len(columns), count, width)
    return np.concatenate([blocks[:1, :, -1], blocks[1:].mean(2)])


def _key_prefix(is_active: bool) -> str:
    """Return "stop_" for an active run, else "": the beginning of the key of a remedy that first stops the run."""
    return "stop_" if is_active else ""


def _cooler(recipe: Recipe, is_active: bool) -> tuple[Message, dict[str, object]]:
    """Return the advice to train again at a fifth of the learning rate (is_active: to stop first), and the change of
    the recipe."""
    rate = recipe.train.learning_rate / COOLER
    rate = round(rate, 1 - math.floor(math.log10(rate)))
    return msg(f"run_doctor.{_key_prefix(is_active)}again_with_rate", rate=rate), {"train.learning_rate": rate}


def _diagnosis(
    name: str, evidence: Message, remedy: Message, fix: dict[str, object], is_active: bool, step: int
) -> Diagnosis:
    """Return a diagnosis with the meaning of its name; while the run is active it offers to stop it."""
    means, action = msg(f"run_doctor.{name}_means"), "stop" if is_active else None
    return Diagnosis.model_validate(
        {
            "id": name,
            "evidence": evidence,
            "meaning": means,
            "remedy": remedy,
            "fix": fix,
            "action": action,
            "step": step,
        }
    )
