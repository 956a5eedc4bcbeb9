"""The report of a changed dataset's version: that of its file, updated for the changed rows. No torch.

Costs one look at every row of the version, once: it is kept beside the set, and goes with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from core import files
from core.data.findings.look import Look
from core.data.reading.file_rows import DEFAULT_LIMITS
from core.data.sets.edits import Edits
from core.data.sets.inspection import CHECK_EVERY, DataReport, repeated
from core.data.sets.stored_rows import Rows, example_of
from core.messages import msg
from core.progress import Check, go_on


def kept(file: Path, make: Callable[[], DataReport]) -> DataReport:
    """file: where it is kept. Raises what `make` raises."""
    found = files.read_model(DataReport, file)
    if found is None:
        found = make()
        with suppress(OSError):  # a full or read-only disk: the next time looks again
            files.replace_json(file, found.model_dump(mode="json"))
    return found


def report(base: DataReport, edits: Edits, version: int, as_added: Rows, check: Check = go_on) -> DataReport:
    """base: of the set as it was added; as_added: its rows."""
    rows, look = edits.rows(as_added, version), Look()
    hashes, places = array("q"), array("q")
    for index, (number, said) in enumerate(rows.texts()):
        if index % CHECK_EVERY == 0:
            check(index)
        hashes.append(hash(said))
        places.extend((number, 0))
        if look.is_next():
            look.add(number, example_of(said))
    again, duplicates = repeated(hashes, places, DEFAULT_LIMITS.problems)
    says_file = rows.keys(np.arange(len(rows))) >= 0
    named = np.array([problem.row for problem in base.problems], np.int64)
    untouched = set(named[np.isin(named, np.concatenate((rows.numbers()[says_file], rows.flawed_numbers())))].tolist())
    of_file = [problem for problem in base.problems if problem.text.key != "data.duplicate"]
    gone = {problem.row for problem in of_file if problem.row} - untouched
    stay = [problem for problem in of_file if problem.row not in gone]
    warned = sum(problem.severity == "warning" for problem in of_file if problem.row in gone)
    mended = np.setdiff1d(as_added.flawed, rows.flawed).tolist()  # or removed
    errors = sum(as_added.entry(position)["problem"] is not None for position in mended)
    return base.model_copy(
        update={
            "rows": len(rows.flawed) + len(rows),
            "good_rows": len(rows),
            "duplicates": duplicates,
            "problems": tuple(sorted(stay + again, key=lambda problem: problem.row)[: DEFAULT_LIMITS.problems]),
            "problem_count": base.problem_count - base.duplicates - warned - errors + duplicates,
            "error_count": base.error_count - errors,
            "findings": look.found(),
            "notes": (*base.notes, msg("sets.note_version", version=version, what=edits.story(version)[-1].what)),
        }
    )
