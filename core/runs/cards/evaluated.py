"""The newest evaluation of a run in short, for its model card and the table of runs: evaluation.json in its folder.

{"v": 1, "step": of the adapter, "count": questions, "conclusion": Message, "contestants": [{label, right, score}],
"own": index of the run}. The app or the command that evaluated the run writes it (core/chat/evaluation), whole; without
it the card says nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core import files
from core.messages import Message
from core.runs.folder import RunFolder
from core.values import Frozen

FILE = "evaluation.json"


class ContestantResult(Frozen):
    """A contestant's result. right: answers; score: their mean, 0 to 1."""

    label: str
    right: int = Field(ge=0)
    score: float = Field(ge=0, le=1)


class RunEvaluation(Frozen):
    """The result of an evaluation. step: of the adapter that answered, as far as it is known. own: place of the run
    among the contestants."""

    v: Literal[1] = 1
    step: int | None = None
    count: int = Field(ge=1)
    conclusion: Message
    contestants: tuple[ContestantResult, ...]
    own: int = Field(ge=0)

    @property
    def right(self) -> tuple[int, int] | None:
        """The run's right answers, and the questions; None if it is not among the contestants."""
        return (self.contestants[self.own].right, self.count) if self.own < len(self.contestants) else None


def write(run: RunFolder, result: RunEvaluation) -> None:
    """Keep a result, in place of an earlier one. Raises RunError for a full disk."""
    with files.writing(run.path):
        files.replace_json(run.path / FILE, result.model_dump(mode="json"))


def read(run: RunFolder) -> RunEvaluation | None:
    """Return the result for the run's adapter; None without one, or if the adapter is that of another step now."""
    result = files.read_model(RunEvaluation, run.path / FILE)
    return result if result is not None and result.step == run.facts().adapter_step else None
