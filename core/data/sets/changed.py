"""The report of a changed dataset's version: that of its file, updated for the changed rows. No torch.

Costs one pass over the rows of the version; the result is kept beside the dataset and deleted with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from core import files
from core.data.findings.checks import Checks
from core.data.reading.file_rows import DEFAULT_LIMITS
from core.data.sets.edits import Edits
from core.data.sets.inspection import DataReport, repeated
from core.data.sets.interpretation import CHECK_EVERY
from core.data.sets.stored_rows import Rows, example_of
from core.messages import msg
from core.progress import Check, go_on


def cached_report(file: Path, make: Callable[[], DataReport]) -> DataReport:
    """Return the report stored in file, made by `make` and stored there if it is missing or damaged; an error in
    storing is ignored. Raises what `make` raises."""
    known = files.read_model(DataReport, file)
    if known is None:
        known = make()
        with suppress(OSError):  # a full or read-only disk: it is made again next time
            files.replace_json(file, known.model_dump(mode="json"))
    return known


def report(base: DataReport, edits: Edits, version: int, as_added: Rows, check: Check = go_on) -> DataReport:
    """Return the report of a version: findings and duplicates anew, problems of changed rows removed. base: report of
    the dataset as it was imported; as_added: its rows then. check: called with the rows so far."""
    rows, checks = edits.rows(as_added, version), Checks()
    hashes, numbers = array("q"), array("q")
    for index, (number, text) in enumerate(rows.texts()):
        if index % CHECK_EVERY == 0:
            check(index)
        hashes.append(hash(text))
        numbers.extend((number, 0))
        if checks.is_next():
            checks.add(number, example_of(text))
    repeats, duplicates = repeated(hashes, numbers, DEFAULT_LIMITS.problems)
    # Problems of rows that are as they were read still hold; the key of a row that a person wrote is below 0.
    is_unchanged = rows.keys(np.arange(len(rows))) >= 0
    problem_rows = np.array([problem.row for problem in base.problems], np.int64)
    untouched = set(
        problem_rows[
            np.isin(problem_rows, np.concatenate((rows.numbers()[is_unchanged], rows.flawed_numbers())))
        ].tolist()
    )
    base_problems = [problem for problem in base.problems if problem.text.key != "data.duplicate"]
    changed_rows = {problem.row for problem in base_problems if problem.row} - untouched
    remaining = [problem for problem in base_problems if problem.row not in changed_rows]
    warned = sum(problem.severity == "warning" for problem in base_problems if problem.row in changed_rows)
    no_longer_flawed = np.setdiff1d(as_added.flawed, rows.flawed).tolist()  # or removed
    errors = sum(as_added.entry(position)["problem"] is not None for position in no_longer_flawed)
    return base.model_copy(
        update={
            "rows": len(rows.flawed) + len(rows),
            "good_rows": len(rows),
            "duplicates": duplicates,
            "problems": tuple(sorted(remaining + repeats, key=lambda problem: problem.row)[: DEFAULT_LIMITS.problems]),
            "problem_count": base.problem_count - base.duplicates - warned - errors + duplicates,
            "error_count": base.error_count - errors,
            "findings": checks.findings(),
            "notes": (*base.notes, msg("sets.note_version", version=version, what=edits.history(version)[-1].what)),
        }
    )
