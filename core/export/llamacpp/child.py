"""Asks llama.cpp's converter, quantizer and runtime, as processes that may be killed or crash at any moment
(core/system/programs). No torch."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from core import files
from core.errors import ExportError
from core.files import JsonObject
from core.system import programs
from core.system.lines import end_with_parent


def ask(module: str, request: JsonObject, work: Path, log: Path, check: Callable[[], None], what: str) -> JsonObject:
    """Run a module of this app as a process that reads its request and writes its answer as JSON, and return the
    answer. work: a folder for both.

    Raises ExportError if the process refused (`answer`) or ended without an answer, as a runtime does that crashes on a
    damaged file; OSError if the disk was full. what: the name of the step for that message.
    """
    request_file, answer_file = work / "request.json", work / "answer.json"
    answer_file.unlink(missing_ok=True)
    files.replace(request_file, json.dumps(request), lasting=False)
    code, log_tail = programs.run(["-m", module, str(request_file), str(answer_file)], log, check)
    answer = files.read_json(answer_file)
    failed = not isinstance(answer, dict) or "refused" in answer
    # First of all reasons: libraries report a full disk as any other failure.
    if failed and (files.free_when_full(work) is not None or files.is_disk_full(OSError(log_tail))):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not isinstance(answer, dict):
        raise ExportError("gguf.died", what=what, code=str(code), reason=programs.last_line(log_tail))
    if refused := answer.get("refused"):
        raise ExportError(f"gguf.{refused}", **answer.get("found", {}))
    return answer


class Refused(Exception):
    """Raised in a process that `ask` started: the key of a message below `gguf.`, and its values."""

    def __init__(self, key: str, **values: object):
        super().__init__(key)
        self.answer = {"refused": key, "found": values}


def answer(work: Callable[[JsonObject], JsonObject]) -> int:
    """Main function of such a process: read the request of argv[1], write work's answer, or that of Refused, to
    argv[2], and exit with 0. An exception other than Refused ends it with a traceback and without an answer."""
    end_with_parent()
    request_file, answer_file = map(Path, sys.argv[1:3])
    try:
        result = work(json.loads(request_file.read_text("utf-8")))
    except Refused as refused:
        result = refused.answer
    files.replace(answer_file, json.dumps(result), lasting=False)
    sys.stdout.flush()
    os._exit(0)  # libraries of the runtime have crashed while Python shuts down
