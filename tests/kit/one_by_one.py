"""Files of tests run one after the other, each by a pytest of its own, with a table that grows as they end."""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.models import starter
from core.presets import PROJECT
from core.workspace.folder import Workspace
from tests.kit.durations import cache

ENDED = re.compile(r"^(tests/\S+?\.py)::(.+?) (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS)\b", re.MULTILINE)
BEGUN = re.compile(r"^(tests/\S+?\.py)::(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """The result of one file. is_whole: pytest ended by itself, and not by a crash."""

    file: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    is_whole: bool
    why: str

    @classmethod
    def of_log(cls, file: str, said: str, code: int | None, seconds: float) -> Row:
        """said: pytest's output. code: its exit status, None where it was ended for its time."""
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
        cells = (
            f"`{self.file}`",
            self.passed,
            self.failed,
            self.skipped,
            f"{self.seconds:.0f}",
            self.why.replace("|", "\\|"),
        )
        return "| " + " | ".join(map(str, cells)) + " |"


HEAD = "| file | passed | failed | skipped | seconds | why |\n|---|---|---|---|---|---|"


def walk(
    files: Sequence[str], run: Callable[[str, bool, Path], int | None], full: bool, results: Path, heading: str
) -> bool:
    """Run files one after the other, write each log and the growing table.md into results, and return whether all
    passed."""
    results.mkdir(parents=True)
    rows: list[Row] = []
    for file in files:
        log, began = results / (re.sub(r"[^\w.-]+", ".", file.removeprefix("tests/")) + ".log"), time.monotonic()
        code = run(file, full, log)
        rows.append(
            Row.of_log(file, log.read_text("utf-8", errors="replace").replace("\r", ""), code, time.monotonic() - began)
        )
        print(rows[-1].shown(), flush=True)
        total = (
            f"{sum(row.passed for row in rows)} passed, {sum(row.failed for row in rows)} failed, "
            f"{sum(row.skipped for row in rows)} skipped"
        )
        table = "\n".join([heading, "", HEAD, *(row.shown() for row in rows), "", total])
        (results / "table.md").write_text(table + "\n", "utf-8", newline="\n")
    print(f"\n{total}\n{results / 'table.md'}")
    return all(row.is_good for row in rows)


def pytest_of(file: str, *more: str) -> list[str]:
    """Return the interpreter's arguments that run file's tests."""
    return ["-m", "pytest", file, "-v", "--color=no", "-p", "no:cacheprovider", *more]


def ended(command: Sequence[str], environment: Mapping[str, str], limit_s: float, log: Path) -> int | None:
    """Run a command in the project's folder and return its exit status, None where it was ended after limit_s. log:
    gets all its output."""
    with open(log, "wb") as output:
        try:
            done = subprocess.run(
                command,
                cwd=PROJECT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired:
            return None
    return done.returncode


def starter_folder() -> Path:
    """Return the starter model's folder, which all files share; it is made where it is missing."""
    return starter.ensure(Workspace.open(cache()).models, lambda stage, progress: None, lambda: None).absolute()


def commit() -> str:
    said = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=PROJECT, capture_output=True, text=True)
    return said.stdout.strip() or "no git"
