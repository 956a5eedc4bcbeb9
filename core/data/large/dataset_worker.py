"""`python -m core.data.large.dataset_worker FILE "" ACT ...`: reads a large file, or repairs or checks a large dataset.

Writes one JSON object a line to stdout: {rows} read so far, and last {done}, {refused: Message} or {os: [errno,
reason]}. If the reader of stdout is gone, a write fails and the process ends. The traceback of a bug goes to the stderr
that it inherited from core/data/large/dataset_process.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from core.data.large import dataset_process
from core.data.reading.choices import Choices
from core.data.sets import working
from core.data.sets.readings import read_rows
from core.data.store import DatasetStore
from core.errors import GarageError
from core.presets import PRESETS

REPORT_EVERY_S = 0.1


class ProgressLines:
    """Progress check that writes the number of rows read so far, at most once in REPORT_EVERY_S seconds."""

    def __init__(self) -> None:
        """Let the first call write at once."""
        self._next = 0.0

    def __call__(self, rows: int = 0) -> None:
        """Write {"rows": rows} to stdout if REPORT_EVERY_S seconds have passed since the last line; else do nothing."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + REPORT_EVERY_S
            write_line(rows=rows)


def write_line(**values: object) -> None:
    """Write values as one JSON object to stdout, at once."""
    print(json.dumps(values), flush=True)


def read(path: Path, rows_file: str, format: str, choices: str) -> dict[str, object]:
    """Read a file into an Arrow file of rows and return its DataReport as JSON."""
    parsed = Choices.model_validate_json(choices)
    report = read_rows(path, Path(rows_file), format or None, parsed, ProgressLines())  # type: ignore[arg-type]
    return report.model_dump(mode="json")


def report(path: Path, format: str, choices: str) -> dict[str, object]:
    """Return the DataReport of a dataset as JSON."""
    parsed = Choices.model_validate_json(choices)
    report = _store(path).report(path.parent.name, format or None, parsed, ProgressLines())  # type: ignore[arg-type]
    return report.model_dump(mode="json")


def mend(path: Path, kind: str, value: str, argument: str, action: str) -> int:
    """Store a new version of a dataset without one kind of problem and return the version's number. value: fills a
    placeholder. argument, action: which repair of the kind, "" for the first."""
    return working.repair_rows(_store(path), path.parent.name, kind, value, argument, action, ProgressLines()).version


def _store(path: Path) -> DatasetStore:
    """Return the store that holds the dataset. path: the dataset's file, two levels below the store's folder."""
    return DatasetStore(path.parent.parent, PRESETS)


ACTS: dict[str, Callable[..., object]] = {"read": read, "report": report, "mend": mend}


def main(path: str, act: str, *arguments: str) -> None:
    """Run an act on a file and write its result, refusal or OSError as a line to stdout."""
    dataset_process.work_in_this_process()
    try:
        write_line(done=ACTS[act](Path(path), *arguments))
    except GarageError as error:
        write_line(refused=error.message.model_dump(mode="json"))
    except OSError as error:
        write_line(os=[error.errno, error.strerror or str(error)])


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[3:])
