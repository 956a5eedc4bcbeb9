"""Whether a run answers better, or only differently: validation questions, asked before its first step and after its
last. No torch.

film_scenes.json holds the questions beside the film's (`held_out`: of a sample set its own with their checks, else rows
kept apart whose answer is short enough to be written), or why there are none. held_out.jsonl, a line a time by the
film: v, step, answers. Both are bound by train.sample_seconds; a question that was not answered in time counts for
neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from core import files
from core.data.sets.heldout import passes
from core.messages import Message, msg
from core.runs import frames, scenes
from core.runs.folder import RunFolder
from core.runs.frames import FrameAnswer
from core.runs.scenes import ANSWER_TOKENS, LEAST_HELD_OUT, Scene
from core.values import Frozen, wilson

FILE = "held_out.jsonl"
SHORTER, LONGER = 0.9, 1.1  # of the length before: what lies between is about as long


class AskedApart(Frozen):
    """answers: in the order of the questions."""

    v: Literal[1] = 1
    step: int = Field(ge=0)
    answers: tuple[FrameAnswer, ...]


def append(run: RunFolder, step: int, answers: Sequence[FrameAnswer]) -> None:
    files.append_line(run.path / FILE, AskedApart(step=step, answers=tuple(answers)).model_dump())


def _read(path: Path) -> list[AskedApart]:
    found: list[AskedApart] = []
    for record in files.read_lines(path, 0).records:
        with suppress(ValidationError):
            one = AskedApart.model_validate(record)
            found = [*(before for before in found if before.step < one.step), one]
    return found


def is_right(question: Scene, answer: str) -> bool:
    """As its check says; else as the data answers, but for spaces and capitals."""
    if question.check is not None:
        return passes(question.check, answer)
    return " ".join(answer.split()).casefold() == " ".join((question.answer or "").split()).casefold()


def sentences(run: RunFolder) -> list[Message]:
    """Of a run that is over: right answers with their interval, neutral text, length; or why nothing can be said. ()
    without a film."""
    asked = scenes.read(run)
    if asked is None:
        return []
    told, facts = list[Message](), run.facts()
    found = _read(run.path / FILE)
    if asked.not_asked:
        told.append(msg(f"better.{asked.not_asked}", least=LEAST_HELD_OUT, tokens=ANSWER_TOKENS))
    elif len(found) < 2 or found[0].step != 0:
        told.append(msg("better.not_at_both_ends"))
    else:
        told += _of_answers(asked.held_out, found[0], found[-1], facts.parent is not None)
    if forgot := frames.forgetting(frames.read(run)):
        told.append(msg("better.neutral", percent=100 * forgot.change, words=msg(f"better.forgot_{forgot.forgot}")))
    if told and facts.adapter_is_best and found and facts.adapter_step not in (None, found[-1].step):
        told.append(msg("better.of_last_step", step=found[-1].step, kept=facts.adapter_step))
    return told


def _of_answers(questions: Sequence[Scene], first: AskedApart, last: AskedApart, has_parent: bool) -> list[Message]:
    both = [
        (question, before, now)
        for question, before, now in zip(questions, first.answers, last.answers, strict=False)
        if "time" not in (before.why, now.why)
    ]
    if len(both) < LEAST_HELD_OUT:
        return [msg("better.no_time", answered=len(both), count=len(questions))]
    values: dict[str, object] = {"count": len(both)}
    for name, right in (
        ("now", sum(is_right(question, now.text) for question, _, now in both)),
        ("before", sum(is_right(question, before.text) for question, before, _ in both)),
    ):
        low, high = wilson(right, len(both))
        values |= {name: right, f"{name}_low": round(100 * low), f"{name}_high": round(100 * high)}
    kind = "checked" if questions[0].check is not None else "same"
    told = [msg(f"better.{kind}_{'parent' if has_parent else 'base'}", **values)]
    before, now = (sum(len(answer.text) for answer in side) / len(both) for side in list(zip(*both, strict=True))[1:])
    ratio = now / before if before else 0.0
    length = "shorter" if ratio < SHORTER else "longer" if ratio > LONGER else "same_length"
    told.append(msg(f"better.{length}", before=round(before), now=round(now), tokens=ANSWER_TOKENS))
    return told
