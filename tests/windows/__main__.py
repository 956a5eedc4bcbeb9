"""`python launch.py test --windows [FILE ...] [--full]`: the tests on a Windows Python; on Linux one under Wine
(tests/windows/wine).

Without a FILE: the journeys that Windows alone breaks, and the files of tests that found something there (SHORT).
--full: the long journeys too (a first start, the page driven by a browser), and every file that needs no browser. One
file after the other, each ended after LIMIT_S (those of the journeys after LIMIT_OF_JOURNEYS_S), so that one that hangs
costs no more than that.

Prints a table and keeps it, with all that was said, in `<test cache>/windows/results/<when>/`. Exit status 1 where a
test failed or a file was cut off. What Wine does otherwise than Windows: docs/gaming-pc.md.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from core.presets import PROJECT
from tests.kit.durations import cache
from tests.kit.one_by_one import HEAD, commit, ended, pytest_of, starter_folder, walk
from tests.windows.wine import CHINESE, NotPossible, Wine, as_windows

LIMIT_S, LIMIT_OF_JOURNEYS_S = 900.0, 2400.0
FROM_OUTSIDE = "tests/windows/test_page.py"
JOURNEYS = (
    "tests/windows/test_journeys.py",
    "tests/windows/test_encodings.py",
    FROM_OUTSIDE,
    "tests/windows/test_first_start.py",
)
OF_CODE_PAGE_936 = "tests/windows/test_encodings.py"
SHORT = (
    *JOURNEYS[:2], "tests/faults/test_refusals.py", "tests/unit/runs/test_reporter.py", "tests/unit/test_files.py",
    "tests/unit/test_launch.py",
    "tests/unit/system/test_child.py", "tests/unit/hub/test_hub.py", "tests/unit/runs/test_deletion.py",
    "tests/process/test_own_code.py",
    "tests/model/test_device.py",
    "tests/model/test_trainer.py",
)  # fmt: skip
ALL = ("unit", "model", "process", "faults")


def files_asked(arguments: Sequence[str], full: bool) -> list[str]:
    """From the project's folder, with /; one test of a file as pytest names it, FILE::TEST. Raises NotPossible for what
    is not there."""
    chosen = list(arguments) or [
        *(JOURNEYS if full else SHORT),
        *([f"tests/{folder}" for folder in ALL] if full else []),
    ]
    tests_listed: list[str] = []
    for each in chosen:
        name, colons, test = each.partition("::")
        place = (PROJECT / name).resolve()
        if not place.exists():
            raise NotPossible(f"no such file of tests: {name}")
        inside = sorted(place.rglob("test_*.py")) if place.is_dir() else [place]
        tests_listed += [file.relative_to(PROJECT).as_posix() + colons + test for file in inside]
    return list(dict.fromkeys(tests_listed))


def long_forms_of(file: str, full: bool) -> list[str]:
    """Of the journeys alone: those of the other files take hours on Linux."""
    return ["--full"] if full and file.startswith("tests/windows/") else []


def limit_of(file: str) -> float:
    return LIMIT_OF_JOURNEYS_S if file.startswith("tests/windows/") else LIMIT_S


def on_wine(wine: Wine, file: str, full: bool, log: Path) -> int | None:
    if file == FROM_OUTSIDE:
        return run_here(file, full, log)
    locale = CHINESE if file == OF_CODE_PAGE_936 else "C.UTF-8"
    more = {
        "LORA_GARAGE_TEST_STARTER": as_windows(starter_folder()),
        "LORA_GARAGE_TEST_UV": as_windows(wine.uv),
        "LORA_GARAGE_NO_BROWSER": "none under Wine",
        "LORA_GARAGE_TEST_PATIENCE": "5",
        "PYTHONUTF8": "1",
        "COLUMNS": "300",
    }
    command = (wine.interpreter, *pytest_of(file, *long_forms_of(file, full)))
    return wine.run(*command, limit_s=limit_of(file), log=log, cwd=wine.program, locale=locale, more=more)


def run_here(file: str, full: bool, log: Path) -> int | None:
    """By this Python: on Windows itself, and what looks at Wine from outside."""
    environment = {} if os.name == "nt" else {"LORA_GARAGE_UNDER_WINE": "1"}
    command = [sys.executable, *pytest_of(file, *long_forms_of(file, full))]
    return ended(command, os.environ | environment, limit_of(file), log)


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that no Windows process is left
    full = "--full" in arguments
    files = files_asked([each for each in arguments if each != "--full"], full)
    results = cache().absolute() / "windows" / "results" / time.strftime("%Y-%m-%d_%H%M%S")
    with ExitStack() as held:
        if os.name == "nt":
            run, heading = run_here, f"Python {sys.version.split()[0]} on Windows"
        else:
            wine = Wine().ready()
            held.enter_context(wine.alone())
            wine.end()  # what a run that was killed has left
            wine.unpack()
            held.enter_context(wine.on_a_screen())
            run, heading = partial(on_wine, wine), f"Windows Python under {wine.version()}"
        heading += f", {time.strftime('%Y-%m-%d')}, {commit()}"
        print(f"{heading}\n\n{HEAD}", flush=True)
        return 0 if walk(files, run, full, results, heading) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))
