"""A finished run's answers to the test sets of its base: tests.json in its folder.

{"v": 1, "step": n, "answers": [{"set": title, "key": of the question with its judge, "question": text, "text": answer,
"outcome": "right", "partly", "wrong" or null, "before": name of the newest earlier run of the same base that had it
right, or null}]}. The worker writes it after the last step, whole (core/chat/evaluation/regression); outcome is null
where there was no time for an answer, or where nobody could judge it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core import files
from core.judges.judge import Outcome
from core.judges.texts import quoted
from core.messages import Message, msg
from core.runs.folder import RunFolder
from core.values import Frozen

FILE = "tests.json"
LOST = "better.tests_lost"  # the sentence that names what is lost
SHOWN = 3  # questions in a sentence


class TestedAnswer(Frozen):
    """One answer. before: the run that had the question right before."""

    __test__ = False  # to pytest a class of this name is a test

    set: str
    key: str
    question: str
    text: str = ""
    outcome: Outcome | None = None
    before: str | None = None


class TestedAnswers(Frozen):
    """The answers of a run to the test sets of its base."""

    __test__ = False

    v: Literal[1] = 1
    step: int = Field(ge=0)
    answers: tuple[TestedAnswer, ...]

    @property
    def lost(self) -> list[TestedAnswer]:
        """Tests that an earlier run passed and this one does not."""
        return [one for one in self.answers if one.before is not None and one.outcome in ("wrong", "partly")]


def write(run: RunFolder, answers: TestedAnswers) -> None:
    """Write a run's answers to the test sets to its tests.json, in place of earlier ones. Raises OSError."""
    files.replace_json(run.path / FILE, answers.model_dump(mode="json"))


def read(run: RunFolder) -> TestedAnswers | None:
    """Return the answers of a run; None if its base had no test sets, or the file cannot be read."""
    return files.read_model(TestedAnswers, run.path / FILE)


def sentences(run: RunFolder) -> list[Message]:
    """Return how many tests the run passes, and which ones an earlier run passed and this one does not; [] without
    tests that were judged."""
    tested = read(run)
    judged = [one for one in tested.answers if one.outcome is not None] if tested else []
    if tested is None or not judged:
        return []
    right, lost = sum(one.outcome == "right" for one in judged), tested.lost
    messages = [msg("better.tests", right=right, count=len(judged), all=len(tested.answers))]
    if lost:
        runs = list(dict.fromkeys(one.before for one in lost))
        questions = [quoted(one.question) for one in lost[:SHOWN]]
        messages.append(msg(LOST, count=len(lost), runs=runs[:SHOWN], questions=questions))
    return messages
