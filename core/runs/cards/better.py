"""Comparison of a run's answers to validation questions before its first step and after its last. No torch.

film_scenes.json holds the questions beside the prompts of the sample answers (`held_out`: for a sample set its own with
their judges, else validation rows with a short answer), or the reason why there are none. held_out.jsonl has a line for
each time they were asked: v, step, answers. Both are limited by train.sample_seconds; a question without an answer in
time is left out on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from core import files
from core.errors import JudgeError
from core.judges import judge
from core.judges.texts import comparable
from core.messages import Message, msg
from core.runs import sample_answers, scenes
from core.runs.cards import tested
from core.runs.folder import RunFolder
from core.runs.sample_answers import FrameAnswer
from core.runs.scenes import ANSWER_TOKENS, MIN_HELD_OUT, Scene, Scenes
from core.values import Frozen, wilson

FILE = "held_out.jsonl"
SHORTER, LONGER = 0.9, 1.1  # times the length before; in between counts as equal


class HeldOutAnswers(Frozen):
    """A line of held_out.jsonl. answers: in the order of the questions."""

    v: Literal[1] = 1
    step: int = Field(ge=0)
    answers: tuple[FrameAnswer, ...]


def append(run: RunFolder, step: int, answers: Sequence[FrameAnswer]) -> None:
    """Append a step's answers to the held-out questions to the run's file."""
    files.append_line(run.path / FILE, HeldOutAnswers(step=step, answers=tuple(answers)).model_dump())


def _read(path: Path) -> list[HeldOutAnswers]:
    """Return the stored answers in the order of steps, invalid lines skipped; a repeated step replaces its older
    answers and all later ones."""
    records: list[HeldOutAnswers] = []
    for record in files.read_lines(path, 0).records:
        with suppress(ValidationError):
            one = HeldOutAnswers.model_validate(record)
            records = [*(before for before in records if before.step < one.step), one]
    return records


def sentences(run: RunFolder) -> list[Message]:
    """Return sentences on what a run changed from its first step to its last: how many validation questions are
    answered rightly, with confidence intervals, or why that is unknown; the length of the answers; its tests; and the
    loss on texts that have nothing to do with the data. If an earlier step than the last became the adapter, a sentence
    notes that.

    [] for a run without sample answers.
    """
    film = scenes.read(run)
    if film is None:
        return []
    messages, facts = list[Message](), run.facts()
    measured = _read(run.path / FILE)
    if film.not_asked:
        messages.append(msg(f"better.{film.not_asked}", least=MIN_HELD_OUT, tokens=ANSWER_TOKENS))
    elif len(measured) < 2 or measured[0].step != 0:
        messages.append(msg("better.not_at_both_ends"))
    else:
        messages += _of_answers(film, measured[0], measured[-1], facts.parent is not None)
    messages += tested.sentences(run)
    if forgot := sample_answers.forgetting(sample_answers.read(run)):
        messages.append(msg("better.neutral", percent=100 * forgot.change, words=msg(f"better.forgot_{forgot.forgot}")))
    if messages and facts.adapter_is_best and measured and facts.adapter_step not in (None, measured[-1].step):
        messages.append(msg("better.of_last_step", step=measured[-1].step, kept=facts.adapter_step))
    return messages


def _of_answers(film: Scenes, first: HeldOutAnswers, last: HeldOutAnswers, has_parent: bool) -> list[Message]:
    """Return two sentences that compare the first answers to the validation questions with the last ones: how many are
    right, with confidence intervals, and how long they are. Pairs of which one answer was cut for lack of time do not
    count.

    [] if fewer than MIN_HELD_OUT pairs are left, and for questions of earlier versions, which have neither an answer
    nor a judge. film: the run's prompts. has_parent: the first answers are those of a continued run's adapter, not of
    the base.
    """
    questions = film.held_out
    if any(question.judge is None and not question.answer for question in questions):
        return []

    def is_right(question: Scene, answer: FrameAnswer) -> bool:
        """Return whether an answer is right, by the question's own judge or else the one of all questions; by equal
        text if that judge cannot judge it."""
        try:
            return judge.is_right(question.judge or film.judge, question.answer or "", answer.text)
        except JudgeError:  # an expected answer of another kind than nearly all, as "unknown" among numbers
            return comparable(answer.text) == comparable(question.answer or "")

    both = [
        (question, before, now)
        for question, before, now in zip(questions, first.answers, last.answers, strict=False)
        if "time" not in (before.why, now.why)
    ]
    if len(both) < MIN_HELD_OUT:
        return []
    values: dict[str, object] = {"count": len(both)}
    for name, right in (
        ("now", sum(is_right(question, now) for question, _, now in both)),
        ("before", sum(is_right(question, before) for question, before, _ in both)),
    ):
        low, high = wilson(right, len(both))
        values |= {name: right, f"{name}_low": round(100 * low), f"{name}_high": round(100 * high)}
    values["judge"] = msg(f"judges.name_{(questions[0].judge or film.judge).kind}")
    messages = [msg("better.right_parent" if has_parent else "better.right_base", **values)]
    before, now = (sum(len(answer.text) for answer in side) / len(both) for side in list(zip(*both, strict=True))[1:])
    ratio = now / before if before else 0.0
    length = "shorter" if ratio < SHORTER else "longer" if ratio > LONGER else "same_length"
    messages.append(msg(f"better.{length}", before=round(before), now=round(now), tokens=ANSWER_TOKENS))
    return messages
