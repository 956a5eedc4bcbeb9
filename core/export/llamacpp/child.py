"""Runs a process that may be ended, or crash, at any moment: pip, llama.cpp's converter, quantizer and runtime. No
torch.

Its standard input is a pipe to whoever started it: when that one is killed it ends too, and lets go of the model that
it holds.
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
from typing import Any

import psutil

from core import files
from core.errors import ExportError
from core.system.lines import end_with_parent
from core.system.processes import kill_tree, own_group, worker_environment

POLL_S = 0.05
LAST_WORDS = 2000
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt)\b")


def run(
    arguments: list[str], log: Path, check: Callable[[], None], environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Python with arguments, to its end: (exit status, its last words). check is called meanwhile; what it raises ends
    the process."""
    with open(log, "ab") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments],
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
    return process.returncode, log.read_text("utf-8", "replace")[-LAST_WORDS:]


def ask(
    module: str, request: dict[str, Any], work: Path, log: Path, check: Callable[[], None], what: str
) -> dict[str, Any]:
    """A module of ours as a process that gets request as JSON and leaves its answer as JSON. work: a folder for both.

    Raises ExportError: what the process itself refused (`answer`), or that it ended without an answer, which a runtime
    that a damaged file brings down does; OSError where the disk was full. what: which of the steps it was, for that
    sentence.
    """
    asked, said = work / "request.json", work / "answer.json"
    said.unlink(missing_ok=True)
    files.replace(asked, json.dumps(request), lasting=False)
    code, words = run(["-m", module, str(asked), str(said)], log, check)
    answer = files.read_json(said)
    fell = not isinstance(answer, dict) or "refused" in answer
    if fell and (files.free_when_full(work) is not None or files.is_disk_full(OSError(words))):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not isinstance(answer, dict):
        raise ExportError("gguf.died", what=what, code=code, reason=last_line(words))
    if refused := answer.get("refused"):
        raise ExportError(f"gguf.{refused}", **answer.get("found", {}))
    return answer


def threads() -> int:
    return psutil.cpu_count(logical=False) or 2


def last_line(words: str) -> str:
    """The error that Python ended with, where there is one: libraries say their own things behind it, and before."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines)[-1][:300] if lines else "-"


class Refused(Exception):
    """Of a process that `ask` started: the key of a sentence below `gguf.`, and its values."""

    def __init__(self, key: str, **found: object):
        super().__init__(key)
        self.answer = {"refused": key, "found": found}


def answer(work: Callable[[dict[str, Any]], dict[str, Any]]) -> int:
    """The main function of such a process. Anything else that is raised ends it with its traceback and without an
    answer."""
    end_with_parent()
    asked, said = map(Path, sys.argv[1:3])
    try:
        found = work(json.loads(asked.read_text("utf-8")))
    except Refused as refused:
        found = refused.answer
    files.replace(said, json.dumps(found), lasting=False)
    sys.stdout.flush()
    os._exit(0)  # libraries of a runtime have been seen to fall over at the end of Python
