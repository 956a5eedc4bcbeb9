"""How long the sample answers of one evaluation may take, so that all of them stay a small part of the run. No torch.

The first frame and the last, which tell most, get twice what one between them gets; what a frame leaves of its part, or
one that was left out, is the later ones'.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.runs.time_left import EVALUATION_SHARE

MOST_OF_RUN = 0.05  # of the time that the steps of an attempt take
TEXTS_SHARE = 0.5  # of that, for the neutral texts before and after


@dataclass
class FrameTime:
    """most: seconds of one frame. every, total_steps: when frames are due. spent: seconds of those before, in this
    attempt."""

    most: float
    every: int
    total_steps: int
    spent: float = 0.0

    def of(self, step: int, run_seconds: float | None, kept: float) -> float:
        """Of the frame at `step`. run_seconds: of the run's steps, None where that is not known. kept: for the texts
        after the last step."""
        if run_seconds is None:
            return 0.0
        later = self.total_steps // self.every - step // self.every + bool(self.total_steps % self.every)
        is_last = step >= self.total_steps
        part = 2 if step == 0 or is_last else 1
        whole = part if is_last else part + later + 1
        left = MOST_OF_RUN * run_seconds - self.spent - (0.0 if is_last else kept)
        return min(self.most, max(0.0, left * part / whole))


def texts_within(lengths: list[int], run_tokens: float) -> int:
    """How many texts of these lengths, from the first, a run of so many tokens can afford to measure twice. By counts,
    so that every attempt measures the same."""
    most, count = TEXTS_SHARE * MOST_OF_RUN * run_tokens / (2 * EVALUATION_SHARE), 0
    while count < len(lengths) and sum(lengths[: count + 1]) <= most:
        count += 1
    return count
