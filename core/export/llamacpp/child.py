"""Runs processes that may be killed or crash at any moment: pip, llama.cpp's converter, quantizer and runtime. No
torch.

Standard input is a pipe to the parent: if the parent is killed the child ends too, and frees its model.
"""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from core import files
from core.errors import ExportError
from core.files import JsonObject
from core.system.lines import end_with_parent
from core.system.processes import kill_tree, own_group, worker_environment

POLL_S = 0.05
LOG_TAIL = 2000
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt)\b")


def run(
    arguments: list[str], log: Path, check: Callable[[], None], environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run Python with arguments to its end: (exit status, end of its log). check is called meanwhile; if it raises, the
    process is killed."""
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            # Its end tells the process that this one is gone (`end_with_parent`).
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=worker_environment() | dict(environment or {}),
            **own_group(),
        )
        try:
            while process.poll() is None:
                check()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
        finally:
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()
            assert process.stdin
            process.stdin.close()
    return process.returncode, log.read_text("utf-8", "replace")[-LOG_TAIL:]


def ask(module: str, request: JsonObject, work: Path, log: Path, check: Callable[[], None], what: str) -> JsonObject:
    """Run a module of this app as a process that reads its request and writes its answer as JSON. work: a folder for
    both.

    Raises ExportError if the process refused (`answer`) or ended without an answer, as a runtime does that crashes on a
    damaged file; OSError if the disk was full. what: the name of the step for that message.
    """
    request_file, answer_file = work / "request.json", work / "answer.json"
    answer_file.unlink(missing_ok=True)
    files.replace(request_file, json.dumps(request), lasting=False)
    code, log_tail = run(["-m", module, str(request_file), str(answer_file)], log, check)
    answer = files.read_json(answer_file)
    failed = not isinstance(answer, dict) or "refused" in answer
    if failed and (files.free_when_full(work) is not None or files.is_disk_full(OSError(log_tail))):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not isinstance(answer, dict):
        raise ExportError("gguf.died", what=what, code=code, reason=last_line(log_tail))
    if refused := answer.get("refused"):
        raise ExportError(f"gguf.{refused}", **answer.get("found", {}))
    return answer


def threads() -> int:
    return psutil.cpu_count(logical=False) or 2


def last_line(text: str) -> str:
    """The last line that looks like a Python error, else the last line: libraries print other lines around it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines)[-1][:300] if lines else "-"


class Refused(Exception):
    """Raised in a process that `ask` started: the key of a message below `gguf.`, and its values."""

    def __init__(self, key: str, **values: object):
        super().__init__(key)
        self.answer = {"refused": key, "found": values}


def answer(work: Callable[[JsonObject], JsonObject]) -> int:
    """Main function of such a process. An exception other than Refused ends it with a traceback and without an
    answer."""
    end_with_parent()
    request_file, answer_file = map(Path, sys.argv[1:3])
    try:
        result = work(json.loads(request_file.read_text("utf-8")))
    except Refused as refused:
        result = refused.answer
    files.replace(answer_file, json.dumps(result), lasting=False)
    sys.stdout.flush()
    os._exit(0)  # libraries of the runtime have crashed while Python shuts down
