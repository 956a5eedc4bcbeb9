"""Runs the parts, each in processes of its own, and writes the report. No torch: no part can break it."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import child as benchmark
from benchmarks.gpu_report.child import FAILED, LEFT_OUT, WELL, keep
from benchmarks.gpu_report.hour import Hour, Part, last_of
from core import files
from core.presets import PROJECT
from core.system.processes import kill_tree

Results = dict[tuple[str, str], dict[str, Any]]  # by part and check
BY_HAND = "**What only a person at the PC can see:**"
MAX_LETTERS = 400  # of a cell


def go_through(hour: Hour, module: str, of: str, seconds: float, quick: bool = False) -> int:
    """Run all parts; return the exit status. module: of PARTS. of: the card and versions; results of others are
    dropped. seconds: for all parts."""
    hour.write()
    if files.read_object(hour.folder / "of.json").get("of") != of:
        for name in ("results.jsonl", "kept.json"):
            (hour.folder / name).unlink(missing_ok=True)
        files.replace_json(hour.folder / "of.json", {"of": of})
    parts = [each for each in importlib.import_module(module).PARTS if not quick or each.quick_seconds]
    end = time.monotonic() + seconds
    for part in parts:
        budget = min((part.quick_seconds if quick else None) or part.seconds, end - time.monotonic())
        print(f"{part.title} ({max(0, budget):.0f} s at most) ...", flush=True)
        carry_out(hour, module, part, budget)
        (hour.folder / "report.md").write_text(report(hour, of, parts), "utf-8")
    found = results(hour)
    failed = [name for name, result in found.items() if result["how"] == FAILED]
    print(f"\n{of}\n\n{table(parts, found)}\n")
    print(f"{hour.folder / 'report.md'}: {f'{len(failed)} failed' if failed else 'all is well'}")
    return 1 if failed else 0


def carry_out(hour: Hour, module: str, part: Part, seconds: float) -> None:
    """Run every check that has not succeeded yet, in as many processes as it takes."""
    before, end = results(hour), time.monotonic() + seconds
    left = [name for name in part.checks if before.get((part.title, name), {}).get("how") != WELL]
    log = hour.folder / "log.txt"
    while left:
        seen, began = len(lines(hour)), time.monotonic()
        if began >= end:
            for name in left:
                keep(hour, part.title, name, LEFT_OUT, 0.0, ["no time was left"])
            return
        command = [sys.executable, "-m", "benchmarks.gpu_report.child", module, part.title, str(hour.folder), *left]
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=PROJECT,
                env=benchmark.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                reason = f"its process ended with {process.wait(end - began)}"
            except subprocess.TimeoutExpired:
                reason = f"not done when the {seconds:.0f} s of this part were over"
            finally:
                kill_tree(process.pid)
                process.wait()
        new = lines(hour)[seen:]
        left = left[len(new) :]
        if left and (not new or new[-1]["how"] != FAILED):  # the process went in the middle of this one
            said = [*last_of(log.read_text("utf-8", "replace")).splitlines(), reason]
            since = time.monotonic() - began - sum(each["seconds"] for each in new)
            keep(hour, part.title, left.pop(0), FAILED, since, said)
        for result in lines(hour)[seen:]:
            print(f"  {result['check']}: {result['how']}, {result['seconds']:.0f} s", flush=True)


def lines(hour: Hour) -> list[dict[str, Any]]:
    return files.read_lines(hour.folder / "results.jsonl", 0).records


def results(hour: Hour) -> Results:
    """Return the newest result of each check."""
    return {(each["part"], each["check"]): each for each in lines(hour)}


def report(hour: Hour, of: str, parts: Sequence[Part]) -> str:
    found = results(hour)
    details = [
        f"## {part}: {check}\n\n```\n" + "\n".join(each["said"]) + "\n```\n"
        for (part, check), each in found.items()
        if each["how"] == FAILED or len(each["said"]) > 1
    ]
    return "\n".join(
        [
            "# The first half hour on a card\n",
            f"{of}\n",
            table(parts, found),
            "",
            *details,
            f"## Not asked here\n\n{by_hand()}\n",
        ]
    )


def table(parts: Sequence[Part], found: Results) -> str:
    rows = ["| part | check | result | s | what came |", "|---|---|---|---|---|"]
    for part in parts:
        for name in part.checks:
            if each := found.get((part.title, name)):
                said = each["said"][-1:] if each["how"] == FAILED else each["said"]
                cell = "<br>".join(said).replace("|", "\\|")[:MAX_LETTERS]
                rows.append(f"| {part.title} | {name} | {each['how']} | {each['seconds']:.0f} | {cell} |")
    return "\n".join(rows)


def by_hand() -> str:
    """Return the list in docs/gaming-pc.md of what a report does not show."""
    said = (PROJECT / "docs" / "gaming-pc.md").read_text("utf-8")
    return said.split(BY_HAND, 1)[1].split("\n#", 1)[0].strip()
