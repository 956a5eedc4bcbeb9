"""Known benchmarks by lm-eval, which is not a dependency, over a run's base as it is loaded here, bare and with the
adapter: a process that reads its request and writes its answer as JSON, with files named on its command line.

request: model_id, revision, adapter (folder), four_bit, eight_bit, tasks, limit (questions of each task, or null),
include (folder of one's own tasks, or null). answer: {"results": {"base": ..., "tuned": ...}}, each as lm-eval's
`results`, or {"refused": Message}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from core import files
from core.chat.chat_worker import LoadedBase, checked_adapter
from core.data.tokenizer import Tokenizer
from core.errors import ChatError, GarageError
from core.files import JsonObject
from core.messages import msg
from core.models.library import Models
from core.system.lines import end_with_parent
from core.workspace import lease
from core.workspace.folder import Workspace

LEASE_S = 30.0


def main() -> int:
    """Do the request in the file of the second argument and write its result, or the refusal, to that of the third;
    return 0."""
    end_with_parent()
    root, request_file, answer_file = sys.argv[1:4]
    try:
        answer = measure(Workspace.open(Path(root)), json.loads(Path(request_file).read_text("utf-8")))
    except GarageError as error:
        answer = {"refused": error.message.model_dump(mode="json")}
    files.replace_json(Path(answer_file), answer)
    return 0


def measure(workspace: Workspace, request: JsonObject) -> JsonObject:
    """Run lm-eval's tasks on the base and on the base with the adapter, holding the device, and return {"results":
    {"base": ..., "tuned": ...}}, each with the numbers of each task. request: model_id, revision, four_bit, eight_bit,
    adapter (a folder), tasks, limit (of their questions) and include (a folder with more tasks). Raises GarageError,
    also without lm-eval."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ChatError("evaluation.no_lm_eval", reason=str(error)) from None
    from core.engine import base_model, device

    adapter = Path(request["adapter"])
    checked_adapter(adapter)
    folder = Models(workspace).obtain(
        request["model_id"], request["revision"], lambda *_: None, lambda: None, to_train=False
    )
    with lease.hold(workspace, msg("evaluation.benchmarking"), LEASE_S):
        compute = device.choose()
        key = request["model_id"], request["revision"], request["four_bit"], request["eight_bit"]
        loaded, compute = base_model.load_finite(folder, compute, request["four_bit"], request["eight_bit"])
        base = LoadedBase(key, compute, Tokenizer(folder), loaded)
        manager = TaskManager(include_path=request["include"])
        results = {}
        for name, with_adapter in (("base", None), ("tuned", adapter)):
            results[name] = _results(base.with_adapter(with_adapter), folder, manager, request)
    return {"results": results}


def _results(model: Any, folder: Path, manager: Any, request: JsonObject) -> JsonObject:
    """Return the numbers that lm-eval measures for each task with a loaded model. Raises ChatError with its reason."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    try:
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)
        measured = simple_evaluate(
            wrapped, tasks=request["tasks"], limit=request["limit"], task_manager=manager, log_samples=False
        )
    except (ValueError, KeyError, OSError, ImportError) as error:  # no such task, or its data cannot be downloaded
        raise ChatError("evaluation.benchmark_failed", reason=(str(error).splitlines() or ["?"])[0][:300]) from None
    assert measured is not None, "one process"
    return {
        task: {name: value for name, value in values.items() if isinstance(value, int | float)}
        for task, values in measured["results"].items()
    }


if __name__ == "__main__":
    sys.exit(main())
