"""Runs Python programs that may be killed or crash at any moment, llama.cpp's and pip, which downloads wheels.

Standard input is a pipe to the parent: if the parent is killed the child ends too, and frees its model.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from core.system.processes import kill_tree, own_group, worker_environment

POLL_S = 0.05
LOG_TAIL = 2000
ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception|Interrupt)\b")


def run(
    arguments: list[str], log: Path, check: Callable[[], None], environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run Python with arguments to its end, its output appended to log; return (exit status, end of its log). check is
    called meanwhile; if it raises, the process is killed."""
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


def last_line(text: str) -> str:
    """Return the last line that looks like a Python error, else the last line, because libraries print other lines
    around it; "-" without any."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR.match(line)]
    return (errors or lines)[-1][:300] if lines else "-"


def download(pins: Path, to: Path, scratch: Path, check: Callable[[], None]) -> tuple[int, str]:
    """Download the wheels that the file pins names with pip, checked against its hashes and without dependencies; what
    `run` returns. scratch: for pip's log and temporary files, so that its size shows the progress."""
    command = ["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "-r", str(pins), "-d", str(to)]
    return run(command, scratch / "pip.log", check, dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch)))


def reason_of_pip(log_tail: str) -> str:
    """Return the first error in the end of pip's output, else its `last_line`."""
    errors = [line.removeprefix("ERROR: ").strip() for line in log_tail.splitlines() if line.startswith("ERROR: ")]
    return errors[0][:300] if errors else last_line(log_tail)
