"""The reward on the validation split, by which a run stops early and chooses its best checkpoint. Workers only
(torch)."""

from __future__ import annotations

import math
import statistics

from core.engine.step import Rows
from core.messages import msg
from core.recipe import Recipe
from core.runs.reporter import Reporter
from core.training.rewards.drawing import Drawing
from core.training.rewards.questions import question_of
from core.training.rewards.reference import as_before_training, log_probabilities, mean_divergence

MAX_ROWS, MIN_ANSWERS = 128, 32  # questions of an evaluation; answers, several to each if there are few
OF_A_NAT = 0.01  # of the largest reward: the price of a nat of divergence a token, which decides between equal rewards
FAR = 1.0  # nats a token from which the answers should be read
HELD_OUT_SEED = 7


class HeldOutReward:
    """The reward on the validation split, in place of a loss. Each evaluation draws by the same random numbers, so that
    only the model makes the difference."""

    def __init__(self, drawing: Drawing, rows: Rows, recipe: Recipe, reporter: Reporter):
        self._drawing, self._rows, self._reporter = drawing, rows, reporter
        self._can_compare = not recipe.adapter.is_pissa  # whose base lacks what the adapter began with
        self._seed = recipe.train.seed * 1_000_003 - HELD_OUT_SEED
        self._metrics: dict[str, float] = {}
        self._first: float | None = None

    def measure(self) -> float | None:
        """Draw and judge answers to the validation rows, MAX_ROWS at most, and return one number, of which the higher
        is the better, unlike a loss: their mean reward as a share of the largest, less OF_A_NAT for each nat of KL
        divergence a token from the adapter before training. None without a validation split.

        Answers that no judge could judge count 0. With PiSSA the divergence is left out. The metrics are kept for
        `metrics`.
        """
        if not self._rows:
            return None
        drawing, rows = self._drawing, [self._rows[i] for i in range(min(MAX_ROWS, len(self._rows)))]
        self._reporter.set_stage("measuring")
        questions = [question_of(row, drawing.tokenizer) for row in rows]
        copies = max(1, math.ceil(MIN_ANSWERS / len(rows)))
        draw = drawing.draw(questions, self._seed, 0, copies)
        self._metrics = {f"eval_{name}": value for name, value in drawing.metrics_of(draw).items()}
        if self._can_compare:
            answers = drawing.rows_of(draw)
            now = log_probabilities(drawing.step, answers)
            with as_before_training(drawing.step):
                before = log_probabilities(drawing.step, answers)
            self._metrics["eval_kl"] = mean_divergence(now, before)
        rewards = [0.0 if math.isnan(reward) else reward for reward in draw.rewards]
        return statistics.fmean(rewards) / drawing.largest - OF_A_NAT * self._metrics.get("eval_kl", 0.0)

    def metrics(self, _: float, step: int) -> dict[str, float]:
        """Return the metrics of the last evaluation. Report once if its divergence from the base is FAR and its reward
        above that of the first."""
        reward, kl = self._metrics["eval_reward"], self._metrics.get("eval_kl", 0.0)
        self._first = reward if self._first is None else self._first
        if kl >= FAR and reward > self._first:
            self._drawing.report_once("far", step, msg("rewards.far", kl=kl, reward=reward, before=self._first))
        return self._metrics

    def rehearse(self) -> None:
        """Compute what an evaluation needs at most, for the memory probe."""
        if self._rows:
            self._drawing.rehearse(self._rows)
