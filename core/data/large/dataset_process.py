"""Run work on a large file or dataset in a separate process (core/data/large/dataset_worker).

The process returns its memory when it ends, and the page stays responsive. Starting it takes about a second; it is used
for work of more than three seconds.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from core.data.reading import reader_process
from core.data.sets.inspection import DataReport
from core.errors import DataError
from core.messages import Message
from core.progress import Check, go_on
from core.values import MIB

LARGE_BYTES = 64 * MIB  # of a file
LARGE_ROWS = 100_000  # of a dataset that is processed completely
_in_worker: list[bool] = []  # not empty in the process that does the work, which must not start a further one


def work_in_this_process() -> None:
    """Make this process do large work itself instead of starting another one."""
    _in_worker.append(True)


def is_needed(bytes: int = 0, rows: int = 0) -> bool:
    """Return True if work on so many bytes or rows belongs in a separate process; always False in the process that does
    such work."""
    return not _in_worker and (bytes >= LARGE_BYTES or rows >= LARGE_ROWS)


def run(path: Path, act: str, *arguments: str, check: Check = go_on) -> Any:
    """Run an act of dataset_worker.ACTS on path in a separate process and return its result. check: called with the
    rows read so far, also while it waits; an exception from it ends the process. Raises DataError (its refusal, lack of
    memory, an early end) or OSError."""
    so_far = [0]
    output = reader_process.listen(
        "core.data.large.dataset_worker", path, act, *arguments, errors=None, waiting=lambda: check(so_far[0])
    )
    with contextlib.closing(output) as lines:
        for line in lines:
            match line:
                case {"rows": rows}:
                    so_far[0] = rows
                    check(rows)
                case {"done": done}:
                    return done
                case {"refused": refused}:
                    raise DataError(Message.model_validate(refused))
                case {"os": [number, reason]}:
                    raise OSError(number, reason)
                case {"error": "memory"}:
                    raise DataError("data.apart_memory", file=path.name, limit_mib=reader_process.MAX_MEMORY // MIB)
    # No result: the process was killed, or failed.
    raise DataError("data.apart_ended", file=path.name)


def report(path: Path, act: str, *arguments: str, check: Check = go_on) -> DataReport:
    """Run an act of dataset_worker.ACTS that returns a DataReport on path in a separate process, and return that
    report. check: called with the rows read so far; an exception from it ends the process. Raises DataError (its
    refusal, lack of memory, an early end) or OSError."""
    return DataReport.model_validate(run(path, act, *arguments, check=check))
