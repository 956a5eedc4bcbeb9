"""`python launch.py test --full`: every test, the long forms too, one folder or file after the other, with a table at
the end.

Takes hours; the expected time is printed first, by tests/durations.tsv. If it is interrupted, the next `test --full` on
the same files continues: passed parts are not run again. The table and all output are kept in `<test
cache>/full/<commit>/`. Exit status 1 if a test failed. With arguments (`test --full -k words`), it is pytest with the
long forms.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from core.presets import PROJECT
from tests.kit import durations
from tests.kit.durations import cache
from tests.kit.one_by_one import commit

TOGETHER = ("tests/unit",)  # whose folders run whole: their tests are quick, and starting pytest is not
ALONE = ("tests/model", "tests/process", "tests/faults", "tests/browser", "tests/windows/test_short_form.py")
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")
# With -q no signs of equality stand around it.
ENDED = re.compile(r"^(?:=+ )?(.*\bin [\d.]+s\b.*?)(?: =+)?$", re.MULTILINE)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
HEAD = "| tests | passed | failed | skipped | seconds | failed tests |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """The result of one part. failed counts errors, and 1 if pytest did not come to its end."""

    part: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    tests: tuple[str, ...]  # that failed

    @classmethod
    def of(cls, part: str, output: str, code: int, seconds: float) -> Row:
        ends = ENDED.findall(output)
        counts = {
            word.rstrip("s") if word.startswith("error") else word: int(n)
            for n, word in COUNTED.findall(ends[-1] if ends else "")
        }
        failed = counts.get("failed", 0) + counts.get("error", 0)
        if code not in (0, 5) and not failed:
            failed = 1
        tests = tuple(FAILED.findall(output)) or ((f"ended with {code}",) if failed else ())
        return cls(part, counts.get("passed", 0), failed, counts.get("skipped", 0), round(seconds, 1), tests)

    def shown(self) -> str:
        return (
            f"| `{self.part}` | {self.passed} | {self.failed} | {self.skipped} | {self.seconds:.0f} | "
            f"{', '.join(self.tests)} |"
        )


def parts() -> Iterator[str]:
    """Yield the parts, each run by one pytest, the quick ones first."""
    for place in TOGETHER:
        yield from sorted(
            {file.parent.relative_to(PROJECT).as_posix() for file in (PROJECT / place).rglob("test_*.py")}
            - set(TOGETHER)
        )
        yield from sorted(file.relative_to(PROJECT).as_posix() for file in (PROJECT / place).glob("test_*.py"))
    for place in ALONE:
        files = (PROJECT / place).rglob("test_*.py") if (PROJECT / place).is_dir() else [PROJECT / place]
        yield from sorted(file.relative_to(PROJECT).as_posix() for file in files)


def state_of_files() -> str:
    """Return the commit and a hash of the uncommitted changes: parts that passed with the same value need not be run
    again."""
    changes = subprocess.run(["git", "diff", "HEAD"], cwd=PROJECT, capture_output=True).stdout
    return commit().replace("/", "-") + ("-" + hashlib.sha256(changes).hexdigest()[:8] if changes else "")


class Record:
    """The rows of earlier attempts on these files, and of this one."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "rows.json"
        rows = [Row(**row) for row in json.loads(file.read_text("utf-8"))] if file.exists() else []
        self.rows = {row.part: row for row in rows if not row.failed}

    def add(self, row: Row) -> None:
        self.rows[row.part] = row
        rows = [asdict(row) for row in self.rows.values()]
        (self.folder / "rows.json").write_text(json.dumps(rows, indent=0) + "\n", "utf-8")
        (self.folder / "table.md").write_text(self.table() + "\n", "utf-8", newline="\n")

    def table(self) -> str:
        rows = self.rows.values()
        total = (
            f"{sum(row.passed for row in rows)} passed, {sum(row.failed for row in rows)} failed, "
            f"{sum(row.skipped for row in rows)} skipped"
        )
        seconds = sum(row.seconds for row in rows)
        return "\n".join(
            [HEAD, *(row.shown() for row in rows), "", f"{total} in {seconds / 60:.0f} minutes, {self.folder.name}"]
        )


def run(part: str, log: Path) -> Row:
    workers = ["-n", "2", "--dist", "worksteal"] if (os.cpu_count() or 1) > 1 else []
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", part, "--full", "-q", "--color=no", *workers]
    settings = {"cwd": PROJECT, "env": os.environ | {durations.FILE: str(log.with_suffix(".tsv"))}}
    with open(log, "wb") as output:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **settings).returncode
    return Row.of(part, log.read_text("utf-8", "replace"), code, time.monotonic() - began)


def main() -> int:
    record = Record(cache() / "full" / state_of_files())
    waiting = [part for part in parts() if part not in record.rows]
    seconds = durations.kept("full")
    expected = sum(took for test, took in seconds.items() if test.startswith(tuple(waiting)))
    done = f"{len(record.rows)} parts of these files passed before; " if record.rows else ""
    # Two processes share a part's tests, and starting one takes some seconds.
    print(
        (
            f"{done}{len(waiting)} parts, about {(expected / 2 + 8 * len(waiting)) / 60:.0f} minutes and the long "
            f"forms.\n"
            f"\n{HEAD}"
        ),
        flush=True,
    )
    for part in waiting:
        row = run(part, record.folder / (part.replace("/", ".") + ".log"))
        record.add(row)
        print(row.shown(), flush=True)
    print(f"\n{record.table()}\n{record.folder / 'table.md'}")
    print(f"What each test took becomes tests/durations_full.tsv by: python -m tests.kit.durations {record.folder}")
    return 1 if any(row.failed for row in record.rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
