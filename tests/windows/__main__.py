"""`python launch.py test --windows [FILE ...] [--full]`: the tests on a Windows Python; on Linux one under Wine (tests/windows/wine).

Without a FILE: the journeys that Windows alone breaks, and the files of tests that found something there (SHORT). --full: the long
journeys too (a first start, the page driven by a browser), and every file that needs no browser. One file after the other, each
ended after LIMIT_S (those of the journeys after LIMIT_OF_JOURNEYS_S), so that one that hangs costs no more than that.

Prints a table and keeps it, with all that was said, in `<test cache>/windows/results/<when>/`. Exit status 1 where a test failed or
a file was cut off. What Wine does otherwise than Windows: docs/gaming-pc.md.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.models import starter
from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit.durations import cache
from tests.windows.wine import CHINESE, NotPossible, Wine, as_windows

LIMIT_S, LIMIT_OF_JOURNEYS_S = 900.0, 2400.0
FROM_OUTSIDE = "tests/windows/test_page.py"
JOURNEYS = ("tests/windows/test_journeys.py", "tests/windows/test_encodings.py", FROM_OUTSIDE, "tests/windows/test_first_start.py")
OF_CODE_PAGE_936 = "tests/windows/test_encodings.py"
SHORT = (
    *JOURNEYS[:2], "tests/faults/test_refusals.py", "tests/unit/runs/test_reporter.py", "tests/unit/test_files.py", "tests/unit/test_launch.py",
    "tests/unit/system/test_child.py", "tests/unit/hub/test_hub.py", "tests/unit/runs/test_deletion.py", "tests/process/test_trust.py",
    "tests/model/test_device.py",
    "tests/model/test_trainer.py",
)  # fmt: skip
ALL = ("unit", "model", "process", "faults")
ENDED = re.compile(r"^(tests/\S+?\.py)::(.+?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", re.MULTILINE)
BEGUN = re.compile(r"^(tests/\S+?\.py)::(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """What came of one file. is_whole: pytest came to its end."""

    file: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    is_whole: bool
    why: str

    @classmethod
    def of_log(cls, file: str, said: str, code: int | None, seconds: float) -> Row:
        """code: pytest's exit status, None where it was ended for its time."""
        counts = Counter(word for _, _, word in ENDED.findall(said))
        failed = counts["FAILED"] + counts["ERROR"]
        is_whole = code in (0, 1, 5) and (code != 1 or failed > 0)
        why = []
        for test in (test for _, test, word in ENDED.findall(said) if word in ("FAILED", "ERROR")):
            reason = re.search(rf"^(?:FAILED|ERROR) \S+?::{re.escape(test)} - (.+)$", said, re.MULTILINE)
            why.append(f"{test}: {' '.join(reason[1].split())[:160]}" if reason else test)
        if not is_whole:
            begun = [test for _, test in BEGUN.findall(said)]
            last = said.strip().splitlines()[-1:] or [""]
            ended = "cut off" if code is None else f"ended with {code}"
            why.append(f"{ended} in {begun[-1]}" if begun else f"{ended}: {last[0][:160]}")
        return cls(file, counts["PASSED"], failed, counts["SKIPPED"], seconds, is_whole, "; ".join(why))

    @property
    def is_good(self) -> bool:
        return self.is_whole and not self.failed

    def shown(self) -> str:
        cells = (f"`{self.file}`", self.passed, self.failed, self.skipped, f"{self.seconds:.0f}", self.why.replace("|", "\\|"))
        return "| " + " | ".join(map(str, cells)) + " |"


HEAD = "| file | passed | failed | skipped | seconds | why |\n|---|---|---|---|---|---|"


def files_asked(arguments: Sequence[str], full: bool) -> list[str]:
    """From the project's folder, with /; one test of a file as pytest names it, FILE::TEST. Raises NotPossible for what is not there."""
    asked = list(arguments) or [*(JOURNEYS if full else SHORT), *([f"tests/{folder}" for folder in ALL] if full else [])]
    found: list[str] = []
    for each in asked:
        name, colons, test = each.partition("::")
        place = (PROJECT / name).resolve()
        if not place.exists():
            raise NotPossible(f"no such file of tests: {name}")
        inside = sorted(place.rglob("test_*.py")) if place.is_dir() else [place]
        found += [file.relative_to(PROJECT).as_posix() + colons + test for file in inside]
    return list(dict.fromkeys(found))


def pytest_of(file: str, full: bool) -> list[str]:
    """Arguments of the interpreter. The long forms of the journeys alone: those of the other files take hours on Linux."""
    return [
        "-m",
        "pytest",
        file,
        "-v",
        "--color=no",
        "-p",
        "no:cacheprovider",
        *(["--full"] if full and file.startswith("tests/windows/") else []),
    ]


def limit_of(file: str) -> float:
    return LIMIT_OF_JOURNEYS_S if file.startswith("tests/windows/") else LIMIT_S


def on_wine(wine: Wine, file: str, full: bool, log: Path) -> int | None:
    if file == FROM_OUTSIDE:
        return here(file, full, log)
    locale = CHINESE if file == OF_CODE_PAGE_936 else "C.UTF-8"
    more = {
        "LORA_GARAGE_TEST_STARTER": as_windows(starter_folder()),
        "LORA_GARAGE_TEST_UV": as_windows(wine.uv),
        "LORA_GARAGE_NO_BROWSER": "none under Wine",
        "LORA_GARAGE_TEST_PATIENCE": "5",
        "PYTHONUTF8": "1",
        "COLUMNS": "300",
    }
    command = (wine.interpreter, *pytest_of(file, full))
    return wine.run(*command, limit_s=limit_of(file), log=log, cwd=wine.program, locale=locale, more=more)


def here(file: str, full: bool, log: Path) -> int | None:
    """By this Python: on Windows itself, and what looks at Wine from outside."""
    seen = {} if os.name == "nt" else {"LORA_GARAGE_UNDER_WINE": "1"}
    command = [sys.executable, *pytest_of(file, full)]
    with open(log, "wb") as output:
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                env=os.environ | seen,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=limit_of(file),
            )
        except subprocess.TimeoutExpired:
            return None
    return done.returncode


def starter_folder() -> Path:
    """Made on this side: the tests of both share it."""
    return starter.ensure(Workspace.open(cache()).models, lambda stage, progress: None, lambda: None).absolute()


def walk(files: Sequence[str], run: Callable[[str, bool, Path], int | None], full: bool, results: Path, heading: str) -> bool:
    """One after the other; the table grows as they end. Whether all was well."""
    results.mkdir(parents=True)
    rows: list[Row] = []
    for file in files:
        log, began = results / (re.sub(r"[^\w.-]+", ".", file.removeprefix("tests/")) + ".log"), time.monotonic()
        code = run(file, full, log)
        rows.append(Row.of_log(file, log.read_text("utf-8", errors="replace").replace("\r", ""), code, time.monotonic() - began))
        print(rows[-1].shown(), flush=True)
        total = f"{sum(row.passed for row in rows)} passed, {sum(row.failed for row in rows)} failed, {sum(row.skipped for row in rows)} skipped"
        table = "\n".join([heading, "", HEAD, *(row.shown() for row in rows), "", total])
        (results / "table.md").write_text(table + "\n", "utf-8", newline="\n")
    print(f"\n{total}\n{results / 'table.md'}")
    return all(row.is_good for row in rows)


def main(arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that no Windows process is left
    full = "--full" in arguments
    files = files_asked([each for each in arguments if each != "--full"], full)
    results = cache().absolute() / "windows" / "results" / time.strftime("%Y-%m-%d_%H%M%S")
    with ExitStack() as held:
        if os.name == "nt":
            run, heading = here, f"Python {sys.version.split()[0]} on Windows"
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


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True)
    return said.stdout.strip() or "no git"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NotPossible as reason:
        sys.exit(str(reason))
