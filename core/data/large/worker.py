"""`python -m core.data.large.worker FILE "" ACT ...`: reads a file, or repairs or checks a dataset, for
core/data/large/apart.

Says on stdout, a JSON object a line, {rows} so far, and at last {done}, {refused: Message} or {os: [errno, reason]}.
Where nobody listens any more, a write fails and it ends. A bug leaves its traceback on stderr, that of whoever asked.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.data.large import apart
from core.data.reading.choices import Choices
from core.data.sets import working
from core.data.sets.readings import read_rows
from core.data.store import DatasetStore
from core.errors import GarageError
from core.presets import PRESETS

TOLD_EACH_S = 0.1


class Telling:
    """A check that says how many rows so far, no oftener than anybody looks."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, rows: int = 0) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + TOLD_EACH_S
            say(rows=rows)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def read(path: Path, rows_file: str, format: str, choices: str) -> Any:
    said = Choices.model_validate_json(choices)
    return read_rows(path, Path(rows_file), format or None, said, Telling()).model_dump(mode="json")  # type: ignore[arg-type]


def report(path: Path, format: str, choices: str) -> Any:
    said = Choices.model_validate_json(choices)
    return _store(path).report(path.parent.name, format or None, said, Telling()).model_dump(mode="json")  # type: ignore[arg-type]


def mend(path: Path, kind: str, value: str, argument: str, action: str) -> Any:
    return working.mended(_store(path), path.parent.name, kind, value, argument, action, Telling()).version


def _store(path: Path) -> DatasetStore:
    return DatasetStore(path.parent.parent, PRESETS)


ACTS: dict[str, Callable[..., Any]] = {"read": read, "report": report, "mend": mend}


def main(path: str, act: str, *arguments: str) -> None:
    apart.work_here()
    try:
        say(done=ACTS[act](Path(path), *arguments))
    except GarageError as error:
        say(refused=error.message.model_dump(mode="json"))
    except OSError as error:
        say(os=[error.errno, error.strerror or str(error)])


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[3:])
