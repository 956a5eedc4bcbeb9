"""The process behind dry runs: `python -m core.trial.dry_run_worker`. Once warm it answers in seconds; its start takes
as long again.

In lines (core.system.lines): {"question"} (dry_runs.Question); out {"answer"} (DryRun), or {"why"} (a Message). It uses
no GPU, no file and no network, computes in one thread, and ends with its parent.
"""

from __future__ import annotations

import os
import queue
import traceback

from core.errors import GarageError
from core.files import JsonObject
from core.messages import msg
from core.system import cores
from core.system.lines import ToParent
from core.trial.dry_runs import Question


def answer(request: JsonObject) -> JsonObject:
    """Return {"answer": the dry run} or {"why": a message of the error}."""
    from core.trial.dry_run import dry_run

    try:
        return {"answer": dry_run(Question.model_validate(request["question"])).model_dump(mode="json")}
    except GarageError as error:
        traceback.print_exc()
        return {"why": error.message.model_dump(mode="json")}
    except Exception as error:  # noqa: BLE001 - the plan needs no dry run, and the line has the reason
        traceback.print_exc()
        return {"why": msg("dry_run.failed", reason=f"{type(error).__name__}: {error}"[:200]).model_dump(mode="json")}


def main() -> None:
    """Answer dry-run requests from the parent, one at a time, until it closes the pipe."""
    parent, requests = ToParent(), queue.SimpleQueue[JsonObject]()
    cores.lower_priority()
    parent.listen(requests.put, lambda: os._exit(0))
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    while True:
        parent.send(**answer(requests.get()))


if __name__ == "__main__":
    main()
