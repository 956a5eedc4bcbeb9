"""The process behind dry runs: `python -m core.trial.dry_run_worker`. Once warm it answers in seconds; its start takes
as long again.

In lines (core.system.lines): {"id", "question"} (dry_runs.Question); out {"id", "answer"} (DryRun), or {"id", "why"} (a
Message). A newer question ends the one at work, which then is not answered. It uses no GPU, no file and no network, and
computes in one thread.
"""

from __future__ import annotations

import queue
import traceback

from core.errors import GarageError
from core.files import JsonObject
from core.messages import msg
from core.system import cores
from core.system.lines import ToParent
from core.trial.dry_runs import Question


class _Outdated(BaseException):
    """A newer question has come. Not an Exception, so that no code on its way takes it for a model that cannot be
    run."""


class Requests:
    """The requests from the parent; only the newest counts."""

    def __init__(self, parent: ToParent):
        self.newest = -1
        self._queue: queue.SimpleQueue[JsonObject | None] = queue.SimpleQueue()
        parent.listen(self._receive, self._gone)

    def _receive(self, request: JsonObject) -> None:
        self.newest = request["id"]
        self._queue.put(request)

    def _gone(self) -> None:
        self.newest = -1  # so that the dry run at work ends
        self._queue.put(None)

    def next(self) -> JsonObject | None:
        """Wait for the next request that is still the newest; None at the end."""
        while (request := self._queue.get()) is not None:
            if request["id"] == self.newest:
                return request
        return None


def answer(request: JsonObject, requests: Requests) -> JsonObject | None:
    """Return {"answer": the dry run} or {"why": a message of the error}; None if a newer request came meanwhile."""
    from core.trial.dry_run import dry_run

    def check() -> None:
        if requests.newest != request["id"]:
            raise _Outdated

    try:
        return {"answer": dry_run(Question.model_validate(request["question"]), check).model_dump(mode="json")}
    except _Outdated:
        return None
    except GarageError as error:
        traceback.print_exc()
        return {"why": error.message.model_dump(mode="json")}
    except Exception as error:  # noqa: BLE001 - the plan needs no dry run, and the line has the reason
        traceback.print_exc()
        return {"why": msg("dry_run.failed", reason=f"{type(error).__name__}: {error}"[:200]).model_dump(mode="json")}


def main() -> None:
    """Answer dry-run requests from the parent, one at a time, until it closes the pipe."""
    parent = ToParent()
    cores.stand_back()
    requests = Requests(parent)
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    while (request := requests.next()) is not None:
        result = answer(request, requests)
        if result is not None:
            parent.send(id=request["id"], **result)


if __name__ == "__main__":
    main()
