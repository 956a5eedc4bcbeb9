"""Useful tokens of all that a step computes: padded as it comes, padded by length, and packed. Nothing is trained.

    .venv/bin/python -m benchmarks.packing_waste [--data FILE ...] [--rows 300] [--max-length 512] [--batch 4]

The three sample sets that come along, and the given files; rows longer than max_length are cut. Packed: our own batches
of 16 examples, filled up to rows of max_length as others do. Ours are not filled up: every token that is computed is
one of an example; the last column says how many micro-batches that takes, against padded ones.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import machine, rows
from core.data.row_order import Schedule, grouped
from core.presets import PRESETS

EXAMPLES = 16  # in an optimizer step
Share = Callable[[Sequence[int], int, int], float]  # lengths, batch, max_length -> useful tokens / computed tokens


def padded_as_it_comes(lengths: Sequence[int], batch: int, max_length: int) -> float:
    order = list(lengths)
    random.Random(0).shuffle(order)
    batches = [order[i : i + batch] for i in range(0, len(order), batch)]
    return sum(lengths) / sum(len(chosen) * max(chosen) for chosen in batches)


def padded_by_length(lengths: Sequence[int], batch: int, max_length: int) -> float:
    batches = [[lengths[i] for i in chosen] for chosen in grouped(lengths, batch, seed=0, epoch=0)]
    return sum(lengths) / sum(len(chosen) * max(chosen) for chosen in batches)


def packed_and_filled_up(lengths: Sequence[int], batch: int, max_length: int) -> float:
    schedule = Schedule(tuple(lengths), batch, EXAMPLES // batch, 1.0, -1, 0, capacity=max_length)
    return sum(lengths) / (max_length * sum(len(step) for step in schedule.steps()))


def micro_batches(lengths: Sequence[int], batch: int, capacity: int | None) -> int:
    return sum(len(step) for step in Schedule(tuple(lengths), batch, EXAMPLES // batch, 1.0, -1, 0, capacity).steps())


WAYS: dict[str, Share] = {
    "padded as it comes": padded_as_it_comes,
    "padded by length": padded_by_length,
    "packed, rows filled up": packed_and_filled_up,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="data files of any format that the app reads")
    parser.add_argument("--rows", type=int, default=300, help="of the first rows of each")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--workspace", type=Path, help="a workspace that has, or gets, the starter model")
    chosen = parser.parse_args()
    model = rows.starter(chosen.workspace)
    print(machine.line("tokenizers"))
    print(
        f"\n| data | rows | mean tokens | {' | '.join(WAYS)} | micro-batches |\n|---|---|---|{'---|' * (len(WAYS) + 1)}"
    )
    for path in [*sorted((PRESETS / "samples").glob("*.jsonl")), *chosen.data]:
        found, _ = rows.read(path, model, chosen.rows, None)
        lengths = [min(len(row.input_ids), chosen.max_length) for row in found.encoded]
        shares = " | ".join(f"{way(lengths, chosen.batch, chosen.max_length):.1%}" for way in WAYS.values())
        ours, padded = (
            micro_batches(lengths, chosen.batch, capacity) for capacity in (chosen.batch * chosen.max_length, None)
        )
        print(f"| {path.name} | {len(lengths)} | {sum(lengths) / len(lengths):.0f} | {shares} | {ours} of {padded} |")


if __name__ == "__main__":
    main()
