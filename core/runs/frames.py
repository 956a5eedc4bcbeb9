"""A run's sample answers: what its model answered at each evaluation. No torch.

film.jsonl, one line a frame, appended by the worker: v, step, attempt, time, seconds (that it took), answers (in the
order of film_scenes.json: text, and why it ends), neutral_loss (mean over the neutral texts; absent where it was not
measured). A crash leaves at most an unfinished last line. A run that goes back (resumed from an older checkpoint)
writes its steps again: a line takes back every line before it that is not of an earlier step.
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
MOST_FRAMES = 24  # of a run; more cannot be told apart on a screen, and each costs seconds
# Of the neutral loss before. Where a change begins to show in answers differs between models: these are words, no
# verdict.
NOTHING, LITTLE, SOME = 0.02, 0.10, 0.25

Ending = Literal["stop", "length", "time", "not_finite"]
Forgot = Literal["better", "nothing", "little", "some", "much"]


class FrameAnswer(Frozen):
    """why: the model ended it, ANSWER_TOKENS were written, there was no time for it (text is empty; versions before
    wrote what they had), or its numbers were none."""

    text: str
    why: Ending


class Frame(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    v: Literal[1] = 1
    step: int = Field(ge=0)
    attempt: int = 1
    time: float = 0.0
    seconds: float = 0.0
    answers: tuple[FrameAnswer, ...]
    neutral_loss: float | None = None


def append(run: RunFolder, frame: Frame) -> None:
    files.append_line(
        run.path / FILE, frame.model_copy(update={"time": round(time.time(), 3)}).model_dump(exclude_none=True)
    )


def read(run: RunFolder) -> list[Frame]:
    """Frames in the order of their steps; a line that is none is passed over."""
    found: list[Frame] = []
    for record in read_lines(run.path / FILE, 0).records:
        with suppress(ValidationError):
            frame = Frame.model_validate(record)
            found = [*(before for before in found if before.step < frame.step), frame]
    return found


class Forgetting(Frozen):
    """The loss on texts that have nothing to do with the data: before the first step of the run, and now."""

    before: float
    now: float

    @property
    def change(self) -> float:
        """Of the loss before: 0.04 is 4 % worse."""
        return (self.now - self.before) / self.before if self.before > 0 else 0.0

    @property
    def forgot(self) -> Forgot:
        if self.change < -NOTHING:
            return "better"
        bands: tuple[tuple[float, Forgot], ...] = ((NOTHING, "nothing"), (LITTLE, "little"), (SOME, "some"))
        return next((name for most, name in bands if self.change <= most), "much")


def forgetting(frames: list[Frame], at: int | None = None) -> Forgetting | None:
    """At the newest frame that was measured, or the newest up to step `at`; None where the run has no two of them."""
    measured = [frame for frame in frames if frame.neutral_loss is not None and (at is None or frame.step <= at)]
    if len(measured) < 2 or measured[0].step != 0:
        return None
    return Forgetting(before=measured[0].neutral_loss, now=measured[-1].neutral_loss)


def every(evaluations_every: int, total_steps: int) -> int:
    """Steps between two frames: one at each evaluation, or at every second, third ... where those are too many."""
    evaluations = max(1, -(-total_steps // evaluations_every))
    return evaluations_every * -(-evaluations // MOST_FRAMES)


def mean_lengths(run: RunFolder) -> list[tuple[int, float]]:
    """(step, mean characters) of the answers that every frame has."""
    found = read(run)
    asked = min((len(frame.answers) for frame in found), default=0)
    whole = [i for i in range(asked) if all(frame.answers[i].text for frame in found)]
    return (
        [(frame.step, sum(len(frame.answers[i].text) for i in whole) / len(whole)) for frame in found] if whole else []
    )
