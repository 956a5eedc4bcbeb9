"""Time limits for the sample answers of one evaluation, so that all of them stay a small part of the run. No torch.

The first frame and the last, which show most, get twice the time of one between them; unused time goes to the later
frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.runs.time_left import EVALUATION_SHARE

MAX_SHARE_OF_RUN = 0.05  # of the time of an attempt's steps
TEXTS_SHARE = 0.5  # of that, for the neutral texts before and after


@dataclass
class SampleTime:
    """The time budget of sample answers. most: seconds of one frame. every, total_steps: when frames are due. spent:
    seconds of earlier frames in this attempt."""

    most: float
    every: int
    total_steps: int
    spent: float = 0.0

    def seconds_for(self, step: int, run_seconds: float | None, reserved: float) -> float:
        """Return the seconds for the frame at `step`, at most `most`: its part of what sample answers may still take of
        the run; the first and last count double. run_seconds: of the run's steps, None if unknown (0 seconds).
        reserved: for the texts after the last step."""
        if run_seconds is None:
            return 0.0
        later = self.total_steps // self.every - step // self.every + bool(self.total_steps % self.every)
        is_last = step >= self.total_steps
        part = 2 if step == 0 or is_last else 1
        parts = part if is_last else part + later + 1
        available = MAX_SHARE_OF_RUN * run_seconds - self.spent - (0.0 if is_last else reserved)
        return min(self.most, max(0.0, available * part / parts))


def texts_within(lengths: list[int], run_tokens: float) -> int:
    """Return how many texts, counted from the first, a run can afford to measure twice in every attempt: so many that
    their tokens together stay within a fixed share of the run's. lengths: tokens of each text; run_tokens: that all
    steps of the run read."""
    most, count = TEXTS_SHARE * MAX_SHARE_OF_RUN * run_tokens / (2 * EVALUATION_SHARE), 0
    while count < len(lengths) and sum(lengths[: count + 1]) <= most:
        count += 1
    return count
