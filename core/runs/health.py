"""Detection of unhealthy steps: a loss or gradient that is not finite, and a diverging loss. No torch.

A non-finite step is skipped. After three in a row, or if the loss stays far above its start, the run goes back to its
last good checkpoint, once, and continues with half the learning rate; the next time it ends. A learning rate that is
only somewhat too high is a finding of core/advice/run_doctor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

StepVerdict = Literal["good", "skip", "roll_back", "stop"]
NON_FINITE_STEPS = 3  # steps in a row
# Nats above the start. A loss 3 higher makes each token twenty times less likely; single rows differ by 1 to 2.
DIVERGED_BY_NATS = 3.0
DIVERGED_STEPS = 5  # in a row
GOOD_WITHIN_NATS = 1.0  # nats above the start: a checkpoint to go back to must be no worse than this
MAX_ROLLBACKS = 1  # times


@dataclass
class Health:
    """The health of a training run, saved with each checkpoint.

    started_at: loss before training, the higher of the first step's and the first evaluation's. loss: of the last
    finite step. no_numbers, far: consecutive steps so far. back: how often the run went back, each time halving the
    learning rate.
    """

    started_at: float | None = None
    loss: float | None = None
    no_numbers: int = 0
    far: int = 0
    back: int = 0

    @property
    def is_worth_saving(self) -> bool:
        """Return whether the last step was without doubt: its loss and gradients were finite, and the loss not far
        above the start. Otherwise no checkpoint should be written, as that would delete earlier ones."""
        return not self.no_numbers and not self.far

    @property
    def is_good(self) -> bool:
        """True if a checkpoint of now is fit to go back to: no doubts, and the loss near its start or below."""
        is_near = self.loss is None or self.started_at is None or self.loss <= self.started_at + GOOD_WITHIN_NATS
        return self.is_worth_saving and is_near

    @property
    def share_of_learning_rate(self) -> float:
        """Return the factor for the learning rate: 1.0, halved for each time that the run went back."""
        return 0.5**self.back

    def note_start(self, loss: float) -> None:
        """Take a loss before training for the start, if it is finite; the highest one counts."""
        if math.isfinite(loss):
            self.started_at = max(loss, self.started_at or loss)

    def judge(self, loss: float, is_finite: bool, step: int) -> StepVerdict:
        """Judge a step whose gradients are computed but not applied: "skip" it for numbers that are not finite,
        "roll_back" after several, or if the loss was DIVERGED_BY_NATS above the start for DIVERGED_STEPS steps, "stop"
        instead once that was done too often, else "good". Updates the counts. loss: mean over its trained tokens."""
        if not is_finite:
            self.no_numbers += 1
            if self.no_numbers < NON_FINITE_STEPS:
                return "skip"
        else:
            self.no_numbers, self.loss = 0, loss
            if self.started_at is None or step == 1:
                self.note_start(loss)
            is_far = self.started_at is not None and loss > self.started_at + DIVERGED_BY_NATS
            self.far = self.far + 1 if is_far else 0
            if self.far < DIVERGED_STEPS:
                return "good"
        return "roll_back" if self.back < MAX_ROLLBACKS else "stop"

    @property
    def has_diverged(self) -> bool:
        """Return whether the loss has been DIVERGED_BY_NATS above the start for the last DIVERGED_STEPS steps."""
        return self.far >= DIVERGED_STEPS
