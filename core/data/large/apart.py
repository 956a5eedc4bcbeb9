"""Work on a whole large dataset in a separate process (core/data/large/worker), which returns its memory when it ends,
while the page stays responsive. Cost: a start of about a second, for work that takes more than three.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from core.data.reading import apart
from core.data.sets.inspection import DataReport
from core.errors import DataError
from core.messages import Message
from core.progress import Check, go_on
from core.values import MIB

LARGE_BYTES = 64 * MIB  # of a file
LARGE_ROWS = 100_000  # of a set that is looked through
_here: list[bool] = []  # not empty in the process that does the work


def work_here() -> None:
    _here.append(True)


def is_for(bytes: int = 0, rows: int = 0) -> bool:
    """Whether what is to be done is done in another process than this one."""
    return not _here and (bytes >= LARGE_BYTES or rows >= LARGE_ROWS)


def asked(path: Path, act: str, *arguments: str, check: Check = go_on) -> Any:
    """What the process says that it has done. check: may raise, which ends it. Raises DataError, OSError."""
    so_far = [0]
    heard = apart.listen("core.data.large.worker", path, act, *arguments, errors=None, waiting=lambda: check(so_far[0]))
    with contextlib.closing(heard) as lines:
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
                    raise DataError("data.apart_memory", file=path.name, limit_mib=apart.MOST_MEMORY // MIB)
    raise DataError("data.apart_ended", file=path.name)


def report(path: Path, act: str, *arguments: str, check: Check = go_on) -> DataReport:
    return DataReport.model_validate(asked(path, act, *arguments, check=check))
