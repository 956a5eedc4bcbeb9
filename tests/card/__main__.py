"""`python launch.py test --card [FILE ...]`: tests on the CUDA build of torch and the null card (tests/card/card.py).

Without a FILE: the journeys of a person, and every test marked gpu. One file after the other, each ended after LIMIT_S. Prints a table
and keeps it, with all output, in `<test cache>/card/results/<when>/`. Exit status 1 where a test failed or a file was cut off. What
the table cannot show stands below it: docs/null-card.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core.models import starter
from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.card.card import NotPossible, NullCard
from tests.kit.durations import cache
from tests.kit.one_by_one import HEAD, commit, walk

LIMIT_S = 3600.0
FILES = (
    "tests/card/test_documented.py",
    "tests/card/test_journeys.py",
    "tests/card/test_faults.py",
    "tests/card/test_races.py",
    "tests/card/test_two_cards.py",
    "tests/card/test_memory.py",
    "tests/model/test_streaming.py",
    "tests/model/test_on_a_card.py",
)
CANNOT_SHOW = "No real GPU has run this: neither speed nor the correctness of a kernel is shown (docs/null-card.md)."


def on_card(card: NullCard, file: str, full: bool, log: Path) -> int | None:
    """pytest's exit status, None where it was ended for its time. A journey starts its commands on the card by itself; other files
    run there whole, but for what is not marked gpu."""
    folder = starter.ensure(Workspace.open(cache()).models, lambda stage, progress: None, lambda: None).absolute()
    settings = {"LORA_GARAGE_TEST_STARTER": str(folder), "COLUMNS": "300", "OMP_NUM_THREADS": "1"}
    is_journey = file.startswith("tests/card/")
    command = [
        sys.executable if is_journey else str(card.python),
        "-m",
        "pytest",
        file,
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
    ]
    environment = os.environ | settings if is_journey else card.environment(settings)
    with open(log, "wb") as output:
        try:
            done = subprocess.run(
                [*command, *([] if is_journey else ["-m", "gpu"])], cwd=PROJECT, env=environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, timeout=LIMIT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None
    return done.returncode


def main(arguments: Sequence[str]) -> int:
    for name in arguments:
        if not (PROJECT / name.partition("::")[0]).exists():
            raise NotPossible(f"no such file of tests: {name}")
    card = NullCard().ready()
    results = card.folder / "results" / time.strftime("%Y-%m-%d_%H%M%S")
    heading = f"Null card, {card.versions()}, {time.strftime('%Y-%m-%d')}, {commit()}"
    print(f"{heading}\n\n{HEAD}", flush=True)
    is_well = walk(list(arguments) or FILES, partial(on_card, card), False, results, heading)
    print(CANNOT_SHOW)
    return 0 if is_well else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))
