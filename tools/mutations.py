"""Puts small faults into core at random places and reports which tests find them.

    python -m tools.mutations [--count 60] [--seed N] [--first 1] [--full] FOLDER

FOLDER: a checkout of its own (git worktree add), which is changed. --first: the number of the drawn fault to begin
with, to go on with a round that was ended.

Each fault replaces one operator (KINDS) at one place of one file of core, drawn by the printed seed. The nearest of the
tests that `test --changed` chooses for it are run until one fails; with --full the others that reach it too, in their
long forms. A test that fails without the fault as well finds nothing. A fault without visible effect (another bound of
a message's length) counts as not found. Prints a line for each: the place, the fault, the test that failed, and whether
the gate always runs that test (tests/kit/sampling); then the number of each outcome.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tests.changed import QUICK_S, Choice
from tests.kit import durations, sampling
from tests.kit.reach import Change, Project

KINDS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not", ast.IsNot: "is", ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.And: "or",
    ast.Or: "and",
}  # fmt: skip
SYMBOLS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.And: "and",
    ast.Or: "or",
}  # fmt: skip
MAX_S = 45.0  # of the nearest tests that are run for one fault
MAX_FULL_S = 240.0  # of the tests after them, with --full
LIMIT_S = 900.0  # for one pytest; where it does not end, that is said and counted apart


@dataclass(frozen=True)
class Fault:
    """One replaced operator. path: of the file; line, start, stop: the operator's place in it; old, new: its text."""

    path: Path
    line: int
    start: int
    stop: int
    old: str
    new: str

    def put(self, root: Path) -> str:
        """Write the fault into the checkout; return the file's text before."""
        file = root / self.path
        before = file.read_text("utf-8")
        lines = before.split("\n")
        text = lines[self.line - 1]
        lines[self.line - 1] = (
            text[: self.start] + text[self.start : self.stop].replace(self.old, self.new, 1) + text[self.stop :]
        )
        file.write_text("\n".join(lines), "utf-8", newline="\n")
        return before

    def shown(self) -> str:
        return f"{self.path.as_posix()}:{self.line} `{self.old}` -> `{self.new}`"


def faults_of(path: Path, source: str) -> Iterator[Fault]:
    """Yield a fault for each operator whose two sides are on one line of ASCII, where a column is a place."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        sides: list[tuple[ast.expr, ast.AST, ast.expr]] = []
        if isinstance(node, ast.Compare):
            sides = list(zip([node.left, *node.comparators], node.ops, node.comparators, strict=False))
        elif isinstance(node, ast.BinOp):
            sides = [(node.left, node.op, node.right)]
        elif isinstance(node, ast.BoolOp):
            sides = [(node.values[0], node.op, node.values[1])]
        for left, operator, right in sides:
            old, new = SYMBOLS.get(type(operator)), KINDS.get(type(operator))
            if not old or not new or left.end_lineno != right.lineno or not lines[right.lineno - 1].isascii():
                continue
            start, stop = left.end_col_offset or 0, right.col_offset
            if re.fullmatch(rf"\)*\s*{re.escape(old)}\s*\(*", lines[right.lineno - 1][start:stop]):
                yield Fault(path, right.lineno, start, stop, old, new)


def first_failure(root: Path, tests: list[str], *options: str) -> str | None:
    """Return the first test that fails, without its case; None if all pass, "" if the run did not end, or not normally.

    options: of pytest.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", delete=False) as names:
        names.write("\n".join(tests) + "\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-n",
        "2",
        "--color=no",
        "-p",
        "no:cacheprovider",
        f"@{names.name}",
        *options,
    ]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return ""
    finally:
        Path(names.name).unlink()
    failed = re.findall(r"^(?:FAILED|ERROR) (tests/[^\s\[]+::\w+)", done.stdout, re.MULTILINE)
    return failed[0] if failed else None if done.returncode in (0, 5) else ""


def nearest(tests: list[str], seconds: dict[str, float], most_s: float = MAX_S) -> list[str]:
    """Return the first tests, up to most_s seconds in all. tests: the nearest first."""
    totals = accumulate(seconds.get(test, QUICK_S) for test in tests)
    return [test for test, total in zip(tests, totals, strict=True) if total <= most_s]


def finding(root: Path, fault: Fault, full: bool, seconds: dict[str, float]) -> tuple[str | None, int]:
    """Put the fault in and take it out; return the test that finds it as first_failure does, and how many were run."""
    before = fault.put(root)
    project = Project(root, root / "tests" / ".cache" / "modules.pickle")
    choice = Choice.of(project.tests(Change(project, "HEAD").nodes()), seconds)
    tests = nearest(choice.run, seconds)
    failure = first_failure(root, tests) if tests else None
    if failure is None and full:
        further = [test for test in [*choice.run, *choice.left] if test not in tests]
        tests = nearest(further, seconds, MAX_FULL_S)
        failure = first_failure(root, tests, "--full") if tests else None
    (root / fault.path).write_text(before, "utf-8", newline="\n")
    if failure and first_failure(root, [failure], *["--full"] * full) is not None:
        return "", len(tests)
    return failure, len(tests)


def is_always_run(test: str, seconds: dict[str, float]) -> bool:
    return test in seconds and not sampling.is_long(test, seconds[test])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    root, draw, seconds = options.folder.resolve(), random.Random(options.seed), durations.kept()
    files = [file.relative_to(root) for file in sorted((root / "core").rglob("*.py"))]
    every = [fault for path in files for fault in faults_of(path, (root / path).read_text("utf-8"))]
    print(f"seed {options.seed}: {options.count} of {len(every)} faults", flush=True)
    counts: Counter[str] = Counter()
    for number, fault in enumerate(draw.sample(every, options.count), 1):
        if number < options.first:
            continue
        failure, tests = finding(root, fault, options.full, seconds)
        what = "not found" if failure is None else "found" if failure else "did not end, or fails without it"
        counts[what] += 1
        sure = is_always_run(failure, seconds) if failure else False
        counts["always in the gate"] += sure
        print(
            f"{number}. {fault.shown()}: {failure or what}{' (always in the gate)' if sure else ''}, {tests} tests",
            flush=True,
        )
    total = counts.total() - counts["always in the gate"]
    print(f"of {total}: {', '.join(f'{count} {what}' for what, count in counts.items())}")


if __name__ == "__main__":
    main()
