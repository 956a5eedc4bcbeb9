"""The process behind dry runs: `python -m core.trial.dry_run_worker`. Once warm it answers in seconds; its start takes
as long again.

In lines (core.system.lines): {"id", "question"} (dry_runs.Question); out {"id", "answer"} (DryRun), or {"id", "why"} (a
Message). A newer question ends the one at work, which then is not answered. It touches no card, no file and no network,
and computes in one thread.
"""

from __future__ import annotations

import queue
import traceback
from typing import Any

from core.errors import GarageError
from core.messages import msg
from core.system import cores
from core.system.lines import ToParent
from core.trial.dry_runs import Question


class _Outdated(BaseException):
    """Nobody waits for this answer any more. No Exception: nothing on its way may take it for a model that cannot be
    run."""


class Questions:
    """What was asked, the newest alone."""

    def __init__(self, parent: ToParent):
        self.newest = -1
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        parent.listen(self._hear, self._gone)

    def _hear(self, asked: dict[str, Any]) -> None:
        self.newest = asked["id"]
        self._queue.put(asked)

    def _gone(self) -> None:
        self.newest = -1  # whatever is at work: nobody waits for it
        self._queue.put(None)

    def next(self) -> dict[str, Any] | None:
        """The next that is still wanted; None at the end."""
        while (asked := self._queue.get()) is not None:
            if asked["id"] == self.newest:
                return asked
        return None


def answer(asked: dict[str, Any], questions: Questions) -> dict[str, Any] | None:
    """None where a newer question came meanwhile."""
    from core.trial.dry_run import dry_run

    def check() -> None:
        if questions.newest != asked["id"]:
            raise _Outdated

    try:
        return {"answer": dry_run(Question.model_validate(asked["question"]), check).model_dump(mode="json")}
    except _Outdated:
        return None
    except GarageError as error:
        traceback.print_exc()
        return {"why": error.message.model_dump(mode="json")}
    except Exception as error:  # noqa: BLE001 - the plan stands without this number, and the line says why it does
        traceback.print_exc()
        return {"why": msg("dry_run.failed", reason=f"{type(error).__name__}: {error}"[:200]).model_dump(mode="json")}


def main() -> None:
    parent = ToParent()
    cores.stand_back()
    questions = Questions(parent)
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    while (asked := questions.next()) is not None:
        found = answer(asked, questions)
        if found is not None:
            parent.say(id=asked["id"], **found)


if __name__ == "__main__":
    main()
