"""What was injected and what was lost: a table at the end of a test run; --fault-table FILE also writes it as a page of
docs/."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

INTRO = """# Fault injection: what was injected and what was lost

Written by `python launch.py test --full -k faults --fault-table docs/faults.md`; running some of the tests updates
their rows. Do not edit.
Last run on: {machine}

*Lost*: what the checks found missing or damaged afterwards. *Back*: steps that a resumed run has to repeat, never more
than one save interval. *Form*: short is what CI runs, full is everything.

"""
HEAD = ("injected", "into", "times", "lost", "form", "day")


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

    def write(self, file: Path, full: bool) -> None:
        """The rows of this run into the page; those that it did not touch stay as they were."""
        from benchmarks import machine

        about = machine.line("torch", "transformers", "peft", "filelock", "gradio") + f", {sys.platform}"
        rows = {line[:2]: line for line in _kept(file)}
        rows |= {line[:2]: (*line, "full" if full else "short", date.today().isoformat()) for line in self.lines()}
        table = [HEAD, ("---",) * len(HEAD), *sorted(rows.values(), key=lambda line: (line[1], line[0]))]
        file.write_text(INTRO.format(machine=about) + "".join(f"| {' | '.join(line)} |\n" for line in table), "utf-8")

    def shown(self) -> list[str]:
        lines = [("injected", "into", "times", "lost"), *self.lines()]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        return ["  ".join((*(line[i].ljust(widths[i]) for i in range(3)), line[3])) for line in lines]


def _kept(file: Path) -> list[tuple[str, ...]]:
    if not file.exists():
        return []
    lines = [line for line in file.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
