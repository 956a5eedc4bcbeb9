"""A model is tried before a training by rewards: shares of questions, verdict, and what does not work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from core.chat import trying
from core.chat.answer import Sampling
from core.chat.trying import QUESTIONS, Trial, questions_of, try_model
from core.data.conversation import Turn
from core.data.formats import Example
from core.errors import ChatError, RunError
from core.judges.weighted import WeightedJudge
from core.recipe import Recipe
from core.runs.judging import Judged
from core.runs.judging_worker import scored

ROWS = [Example(prompt=f"What is {n} + 1?", completion=str(n + 1)) for n in range(40)]


def recipe(**rewards: Any) -> Recipe:
    judged = {"judges": [{"kind": "number"}], "num_generations": 4, "max_completion_length": 9} | rewards
    given = {"data": {"source": "mine"}, "train": {"objective": "grpo"}, "rewards": judged}
    return Recipe.parse(given)


class Writer:
    """Stands in for a model in a chat: answers every question by `answer(number in it, seed)`."""

    target = "it"

    def __init__(self, answer: Any):
        self._answer, self.asked = answer, list[Sampling]()
        self.chat = SimpleNamespace(state=lambda: SimpleNamespace(target="it", phase="ready", thinks=None))

    def sampled(self, conversations: Sequence[Sequence[Turn]], sampling: Sampling) -> list[str]:
        self.asked.append(sampling)
        return [
            self._answer(int(turns[-1]["content"].split()[2]), sampling.seed + at)
            for at, turns in enumerate(conversations)
        ]


class JudgingHere:
    def __init__(self, judges: Sequence[WeightedJudge]):
        self.judges = judges

    def judge(self, pairs: Sequence[tuple[str, str]], check: Callable[[], None]) -> Judged:
        check()
        results = [scored(each.judge, pairs) for each in self.judges]
        problems = {each.name: why for each, (_, why) in zip(self.judges, results, strict=True) if why}
        return Judged([scores for scores, _ in results], problems)

    def close(self) -> None:
        """Nothing runs."""


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trying, "Judging", JudgingHere)  # its process: tests/process/test_judging.py


def tried(answer: Any, report: Any = lambda done, total: None, **rewards: Any) -> tuple[Trial, Writer]:
    writer = Writer(answer)
    return try_model(writer, recipe(**rewards), ROWS, report), writer  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "key", "shares"),
    [
        (lambda n, seed: "none", "rewards.trial_wrong", (QUESTIONS, 0, 0)),
        (lambda n, seed: str(n + 1), "rewards.trial_right", (0, QUESTIONS, 0)),
        (lambda n, seed: str(n + (seed == 2)), "rewards.trial_learns", (0, 0, QUESTIONS)),
        (lambda n, seed: f"{n + 1} or {n}", "rewards.trial_alike", (0, 0, 0)),  # half of the reward each time
    ],
)
def test_shares_of_questions_and_the_verdict_follow_from_the_rewards(answer: Any, key: str, shares: Any) -> None:
    seen: list[tuple[int, int]] = []
    trial, writer = tried(answer, lambda done, total: seen.append((done, total)), temperature=0.5)
    assert (trial.wrong, trial.right, trial.mixed) == shares and trial.verdict().key == key
    assert (trial.questions, trial.answers) == (QUESTIONS, 4) and seen[-1] == (64, 64) and seen[1] == (4, 64)
    assert trial.question.startswith("What is ") and trial.best
    assert {(one.temperature, one.top_p, one.max_new_tokens) for one in writer.asked} == {(0.5, 1.0, 9)}
    assert [one.seed for one in writer.asked] == [0] * QUESTIONS and all(one.do_sample for one in writer.asked)
    assert trial.seconds > 0


def test_more_answers_than_a_batch_holds_are_drawn_with_other_seeds() -> None:
    trial, writer = tried(lambda n, seed: str(n + (seed == 11)), num_generations=12)
    assert [one.seed for one in writer.asked][:4] == [0, 8, 0, 8] and trial.mixed == QUESTIONS


def test_a_judge_that_can_judge_nothing_and_rows_without_a_question_are_refused() -> None:
    with pytest.raises(RunError, match="cannot judge any") as refused:
        tried(lambda n, seed: "7", judges=[{"kind": "choice"}, {"kind": "label", "labels": ["a"]}], num_generations=2)
    assert refused.value.message.key == "rewards.judge_cannot"
    for rows in ([], [Example(text="A text.")], [Example(prompt="", completion="Hello.")][:0]):
        with pytest.raises(RunError) as refused:
            questions_of(rows, 1)
        assert refused.value.message.key == "rewards.no_question"


def test_it_can_be_stopped_while_it_answers_and_while_it_is_judged() -> None:
    for end in (16, 64):

        def stop(done: int, total: int, end: int = end) -> None:
            if done >= end:
                raise ChatError("compare.stopped")

        with pytest.raises(ChatError):
            tried(lambda n, seed: "7", stop)
