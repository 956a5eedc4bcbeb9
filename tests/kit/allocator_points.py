"""Peaks of the real caching allocator on the null card (tests/card/sweep.py), kept in tests/data/allocator_points.csv,
and the estimate of core/memory for each."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.memory.arithmetic import estimate
from core.memory.setup import Setup
from core.models.known import known_models
from core.values import GIB, MIB

FILE = Path(__file__).parent.parent / "data" / "allocator_points.csv"
LENGTHS = (512, 1024, 2048, 4096)  # tokens of a micro-batch, padding included
HEAD = ("model", "method", "rows", "checkpointing", *(f"mib_{length}" for length in LENGTHS))
Kind = Literal["packed", "padded", "unpacked"]  # unpacked: three rows that the family could not pack, side by side


def rows_of(tokens: int, packing: bool) -> list[int]:
    """Lengths of a micro-batch's rows: three examples in one row; or two rows side by side, the shorter filled up."""
    if packing:
        return [tokens // 2, tokens * 3 // 10, tokens - tokens // 2 - tokens * 3 // 10]
    return [tokens // 2, tokens * 3 // 10]


@dataclass(frozen=True)
class Point:
    model: str
    method: Literal["lora", "qlora"]
    rows: Kind
    checkpointing: bool
    tokens: int
    mib: float

    @property
    def setup(self) -> Setup:
        lengths = rows_of(self.tokens, self.rows != "padded")
        together = {"method": self.method, "gradient_checkpointing": self.checkpointing}
        if self.rows == "packed":
            return Setup(max_length=sum(lengths), grouped=True, **together)
        learned = -(-sum(lengths) // len(lengths))
        packs = self.rows == "unpacked"
        return Setup(
            per_device_train_batch_size=len(lengths),
            max_length=max(lengths),
            supervised_tokens=learned,
            packed=packs,
            **together,
        )

    @property
    def error(self) -> float:
        """The relative error of the estimate: estimated over measured, less one."""
        shape = next(model.shape for model in known_models() if model.id == self.model)
        return estimate(shape, self.setup).allocated_gib * GIB / (self.mib * MIB) - 1


def read() -> list[Point]:
    with open(FILE, encoding="utf-8", newline="") as file:
        return [
            Point(
                row["model"],
                row["method"],
                row["rows"],
                row["checkpointing"] == "True",
                length,
                float(row[f"mib_{length}"]),
            )
            for row in csv.DictReader(file)
            for length in LENGTHS
        ]


def write(points: Sequence[Point]) -> None:
    """Write points into FILE, the four lengths of a configuration in one line."""
    lines: dict[tuple[str, str, str, bool], dict[int, float]] = {}
    for point in points:
        lines.setdefault((point.model, point.method, point.rows, point.checkpointing), {})[point.tokens] = point.mib
    with open(FILE, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows([*key, *(round(found[length]) for length in LENGTHS)] for key, found in sorted(lines.items()))


def table(points: Iterable[Point]) -> str:
    """Return a Markdown table of the errors, a line for each method and kind of rows: n, median of the amount, worst
    under and over."""
    groups: dict[str, list[float]] = {}
    for point in points:
        for name in ("all", f"{'QLoRA' if point.method == 'qlora' else 'LoRA'}, {point.rows}"):
            groups.setdefault(name, []).append(100 * point.error)
    lines = ["| method, rows | n | median of the amount | worst under | worst over |\n|---|---|---|---|---|"]
    for name, errors in groups.items():
        median = statistics.median(map(abs, errors))
        lines.append(f"| {name} | {len(errors):,} | {median:.1f} % | {-min(errors):.1f} % | {max(errors):.1f} % |")
    return "\n".join(lines)
