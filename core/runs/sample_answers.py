"""The sample answers of a run: what its model answered at each evaluation. No torch.

The worker appends them to film.jsonl, one line a frame: v, step, attempt, time, seconds (that it took), answers (in the
order of film_scenes.json: text, and why it ends), neutral_loss (mean over the neutral texts; absent if not measured). A
crash leaves at most an unfinished last line. A run resumed from an older checkpoint writes its steps again: a line
replaces all earlier lines of the same or a later step.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core import files
from core.files import read_lines
from core.runs.folder import RunFolder
from core.values import Frozen

FILE = "film.jsonl"
MAX_FRAMES = 24  # of a run; more cannot be distinguished on a screen, and each costs seconds
# Relative to the neutral loss before. Models differ in where a change begins to show in answers, so these bands only
# choose words.
NOTHING, LITTLE, SOME = 0.02, 0.10, 0.25

Ending = Literal["stop", "length", "time", "not_finite"]
Forgot = Literal["better", "nothing", "little", "some", "much"]


class FrameAnswer(Frozen):
    """One sample answer.

    why: how it ended: by the model ("stop"), after ANSWER_TOKENS ("length"), for lack of time ("time"; text is empty,
    earlier versions kept what was written), or because of logits that are not finite.
    """

    text: str
    why: Ending


class Frame(BaseModel):
    """The sample answers of one step, a line of film.jsonl."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    v: Literal[1] = 1
    step: int = Field(ge=0)
    attempt: int = 1
    time: float = 0.0
    seconds: float = 0.0
    answers: tuple[FrameAnswer, ...]
    neutral_loss: float | None = None


def append(run: RunFolder, frame: Frame) -> None:
    """Append a frame with the present time to the run's sample answers."""
    files.append_line(
        run.path / FILE, frame.model_copy(update={"time": round(time.time(), 3)}).model_dump(exclude_none=True)
    )


def read(run: RunFolder) -> list[Frame]:
    """Return the frames in the order of their steps; a repeated step replaces its older frame and all later ones.
    Invalid lines are skipped."""
    frames: list[Frame] = []
    for record in read_lines(run.path / FILE, 0).records:
        with suppress(ValidationError):
            frame = Frame.model_validate(record)
            frames = [*(before for before in frames if before.step < frame.step), frame]
    return frames


class Forgetting(Frozen):
    """The loss on texts unrelated to the data: before the run's first step, and now."""

    before: float
    now: float

    @property
    def change(self) -> float:
        """Relative to the loss before: 0.04 is 4 % worse."""
        return (self.now - self.before) / self.before if self.before > 0 else 0.0

    @property
    def forgot(self) -> Forgot:
        """The size of the change in a word: better, nothing, little, some or much."""
        if self.change < -NOTHING:
            return "better"
        bands: tuple[tuple[float, Forgot], ...] = ((NOTHING, "nothing"), (LITTLE, "little"), (SOME, "some"))
        return next((name for most, name in bands if self.change <= most), "much")


def forgetting(frames: list[Frame], at: int | None = None) -> Forgetting | None:
    """Return the loss on neutral texts before training and at the newest measured frame, or the newest up to step `at`.

    None for a run without two measured frames, the first at step 0.
    """
    measured = [frame for frame in frames if frame.neutral_loss is not None and (at is None or frame.step <= at)]
    if len(measured) < 2 or measured[0].step != 0:
        return None
    return Forgetting(before=measured[0].neutral_loss, now=measured[-1].neutral_loss)


def every(evaluations_every: int, total_steps: int) -> int:
    """Return the number of steps between two rounds of sample answers: one round at each evaluation, or at every
    second, third, ... of them, so that a run has about MAX_FRAMES at most."""
    evaluations = max(1, -(-total_steps // evaluations_every))
    return evaluations_every * -(-evaluations // MAX_FRAMES)


def mean_lengths(run: RunFolder) -> list[tuple[int, float]]:
    """Return (step, mean characters) of each frame, over the prompts that every frame answered; [] without any."""
    frames = read(run)
    count = min((len(frame.answers) for frame in frames), default=0)
    answered = [i for i in range(count) if all(frame.answers[i].text for frame in frames)]
    return (
        [(frame.step, sum(len(frame.answers[i].text) for i in answered) / len(answered)) for frame in frames]
        if answered
        else []
    )
