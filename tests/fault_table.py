"""What was injected and what was lost: a table at the end of a test run, and with --fault-table FILE as a page of docs/."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

INTRO = """# What was injected, and what was lost

Written by `python launch.py test --full -k faults --fault-table docs/faults.md` on {day}; do not edit.
{machine}

{form} form. "Lost" is what a check found missing or damaged afterwards; steps that a resumed run does once more
are counted as "back", never more than one save interval.

| injected | into | times | lost |
|---|---|---|---|
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

    def write(self, file: Path, full: bool) -> None:
        from benchmarks import machine

        about = machine.line("torch", "transformers", "peft", "filelock", "gradio") + f", {sys.platform}"
        form = "Full" if full else "Short"
        text = INTRO.format(day=date.today().isoformat(), machine=about, form=form)
        file.write_text(text + "".join(f"| {' | '.join(line)} |\n" for line in self.lines()), "utf-8")

    def shown(self) -> list[str]:
        lines = [("injected", "into", "times", "lost"), *self.lines()]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        return ["  ".join((*(line[i].ljust(widths[i]) for i in range(3)), line[3])) for line in lines]
