"""A chat without a worker, whose answers say with which settings they were asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from core.chat.answer import Done, Piece, Sampling
from core.chat.client import ChatState, ChatTarget
from core.chat.comparison import Contestant
from core.errors import ChatError
from core.runs.folder import RunFolder


class Chat:
    """Answers with what it was asked as, or with `reply` to (column, turns); ends after so many questions, as a worker
    that is killed does."""

    def __init__(self, questions: int = 1000, reply: Callable[[str, list[Any]], str] | None = None):
        self.reply = reply
        self.loads: list[ChatTarget] = []
        self.asked: list[tuple[bool, bool, float]] = []
        self.together: list[int] = []  # questions of each batch
        self.questions, self.target = questions, None

    def state(self) -> ChatState:
        return ChatState("ready", self.target) if self.target else ChatState()

    def load(self, target: ChatTarget) -> None:
        self.loads.append(target)
        self.target = target

    def wait_ready(self, timeout_s: float) -> ChatState:
        return self.state()

    def unload(self, reason: object = None) -> None:
        self.target = None

    @contextmanager
    def ask_together(
        self, questions: Any, sampling: Sampling, strength: float = 1.0
    ) -> Iterator[Iterator[Piece | Done]]:
        self.together.append(len(questions))
        yield self._answers(questions, strength)

    def join(self, answer: object, questions: object, sampling: object) -> None:
        """Questions come too late for the batch, as they may with a real worker; they are asked again."""

    def _answers(self, questions: Any, strength: float) -> Iterator[Piece | Done]:
        for number, (base, tuned) in enumerate(questions):
            if len(self.asked) == self.questions:
                raise ChatError("chat.unloaded")
            self.asked.append((bool(base), bool(tuned), strength))
            for column, turns in (("base", base), ("tuned", tuned)):
                if turns:
                    text = self.reply(column, turns) if self.reply else f"{column} {strength}"
                    yield from (Piece(column, text, number), Done(column, 3, 0.5, "stop", number))


def pair_of(run: RunFolder, base_label: str, run_label: str) -> tuple[Contestant, Contestant]:
    """Return two chat targets: the base of a run, and the run."""
    return Contestant(label=base_label, run=run.id, column="base"), Contestant(label=run_label, run=run.id)
