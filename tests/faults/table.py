"""What was injected and what was lost: a table at the end of a test run; --fault-table FILE also writes a page of
docs/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import groupby
from pathlib import Path

KEPT = Path(__file__).with_name("faults.tsv")
HEAD = ("injected", "into", "times", "lost", "form", "day")  # form: short is what the gate runs, full is everything
INTRO = """# Fault injection: what was injected and what was lost

Reference, written by `python launch.py test --full -k faults --fault-table docs/faults.md` from
`tests/faults/faults.tsv`, which has a row for each fault. Last run on: {machine}

Injected were SIGKILL and a full disk at each disk operation and at random moments, damaged files, workers that freeze,
memory that runs out, an app that dies, and clocks that jump. *Lost*: what the checks afterwards
found missing or damaged. *Back*: steps that a resumed run repeats, never more than one save interval.

"""


@dataclass
class FaultTable:
    rows: dict[tuple[str, str], list] = field(default_factory=dict)

    def add(self, injected: str, into: str, times: int = 1, lost: str = "nothing") -> None:
        """Called when the checks after a fault have passed. The same fault again adds to its times."""
        row = self.rows.setdefault((injected, into), [0, lost])
        row[0] += times
        row[1] = lost

    def lines(self) -> list[tuple[str, str, str, str]]:
        return [(what, into, f"{times:,}", lost) for (what, into), (times, lost) in self.rows.items()]

    def write(self, page: Path, full: bool, kept: Path = KEPT) -> None:
        """This run's rows into `kept`, where those that it did not touch stay as they were, and the page of all."""
        from benchmarks import machine

        about = machine.line("torch", "transformers", "peft", "filelock", "gradio") + f", {sys.platform}"
        rows = {line[:2]: line for line in _kept(kept)}
        rows |= {line[:2]: (*line, "full" if full else "short", date.today().isoformat()) for line in self.lines()}
        lines = sorted(rows.values(), key=lambda line: (line[1], line[0]))
        kept.write_text("".join("\t".join(line) + "\n" for line in [HEAD, *lines]), "utf-8", newline="\n")
        page.write_text(INTRO.format(machine=about) + summary(lines), "utf-8", newline="\n")

    def shown(self) -> list[str]:
        lines = [("injected", "into", "times", "lost"), *self.lines()]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        return ["  ".join((*(line[i].ljust(widths[i]) for i in range(3)), line[3])) for line in lines]


def summary(lines: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table with a row for each kind of place that faults were injected into: its name up to a comma."""
    table = ["| into | kinds of faults | times | lost | last day |", "|---|---|---|---|---|"]
    for into, group in groupby(sorted(lines, key=kind_of), key=kind_of):
        faults = list(group)
        times = sum(int(line[2].replace(",", "")) for line in faults)
        lost = max((line[3] for line in faults), key=lambda each: (not each.startswith("nothing"), len(each), each))
        table.append(f"| {into} | {len(faults)} | {times:,} | {lost} | {max(line[5] for line in faults)} |")
    return "\n".join(table) + "\n"


def kind_of(line: tuple[str, ...]) -> str:
    return line[1].partition(",")[0]


def _kept(file: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split("\t")) for line in file.read_text("utf-8").splitlines()[1:]] if file.exists() else []
