"""`python launch.py test --card [--record | FILE ...]`: tests on the CUDA build of torch and the null card
(tests/card/card.py).

Without a FILE: the journeys of a person, and every test marked gpu. One file after the other, each ended after LIMIT_S.
Prints a table and keeps it, with all output and with what each test did on the card, in `<test
cache>/card/results/<when>/`; --record makes it docs/null-card-record.md too. Exit status 1 where a test failed or a
file was cut off.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core.presets import PROJECT
from tests.card import record
from tests.card.card import NotPossible, NullCard
from tests.kit.one_by_one import HEAD, commit, ended, pytest_of, starter_folder, walk

LIMIT_S = 3600.0
MARKED = re.compile(r"mark\.gpu\b")
CANNOT_SHOW = "No real GPU has run this: neither speed nor the correctness of a kernel is shown (docs/null-card.md)."


def files_of(arguments: Sequence[str]) -> list[str]:
    """Those named; else the journeys, and every file with a test marked gpu. Raises NotPossible for what is not
    there."""
    for name in arguments:
        if not (PROJECT / name.partition("::")[0]).exists():
            raise NotPossible(f"no such file of tests: {name}")
    tests = sorted((PROJECT / "tests").rglob("test_*.py"))
    files = [file for file in tests if file.parent.name == "card" or is_marked(file)]
    return list(arguments) or [file.relative_to(PROJECT).as_posix() for file in files]


def is_marked(file: Path) -> bool:
    """Whether its tests run on the card whole: those of a journey start commands there instead."""
    return bool(MARKED.search(file.read_text("utf-8")))


def on_card(card: NullCard, file: str, full: bool, log: Path) -> int | None:
    """pytest's exit status, None where it was ended for its time."""
    settings = {
        "LORA_GARAGE_TEST_STARTER": str(starter_folder()), "LORA_GARAGE_CARD_RECORD": str(log.parent / "tests.jsonl"),
        "COLUMNS": "300", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    recorded = ("-p", "tests.card.record")
    if is_marked(PROJECT / file.partition("::")[0]):
        command = [str(card.python), *pytest_of(file, *recorded, "-m", "gpu")]
        return ended(command, card.environment(settings), LIMIT_S, log)
    return ended([sys.executable, *pytest_of(file, *recorded)], os.environ | settings, LIMIT_S, log)


def main(arguments: Sequence[str]) -> int:
    named = [each for each in arguments if each != "--record"]
    if named and "--record" in arguments:
        raise NotPossible("--record is of a whole run: name no file.")
    files = files_of(named)
    card = NullCard().ready()
    results = card.folder / "results" / time.strftime("%Y-%m-%d_%H%M%S")
    heading = f"Null card, {card.versions()}, {time.strftime('%Y-%m-%d')}, {commit()}"
    print(f"{heading}\n\n{HEAD}", flush=True)
    is_well = walk(files, partial(on_card, card), False, results, heading)
    page = record.page(heading, files, record.Line.read(results / "tests.jsonl"))
    for place in (results / "record.md", *([record.PAGE] if "--record" in arguments else [])):
        place.write_text(page, "utf-8", newline="\n")
    print(CANNOT_SHOW)
    return 0 if is_well else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))
