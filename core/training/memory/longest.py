"""The largest micro-batch of the coming steps. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.data.sets.pieces import learned_of, lengths_of
from core.engine.step import LongestBatch, Rows, Step, padded_tokens


def longest_of(step: Step, steps: Iterable[Sequence[Sequence[int]]], rows: Rows) -> LongestBatch:
    """Return the largest micro-batch of some steps: that with most tokens, padding included, among equals that with
    most trained tokens. Each planned micro-batch is split first as it is computed now, smaller if memory ran out
    before. `several` of the result: some step has more than one micro-batch.

    steps: for each step its micro-batches, as positions in rows.
    """
    lengths, learned = lengths_of(rows), learned_of(rows)
    best, several = ((-1, -1), list[int]()), False
    for chosen_of_step in steps:
        parts = [part for chosen in chosen_of_step for part in step.retreat.parts(chosen, lengths)]
        several |= len(parts) > 1
        for part in parts:
            size = padded_tokens([int(lengths[i]) for i in part], step.packed), sum(int(learned[i]) for i in part)
            best = max(best, (size, part), key=lambda candidate: candidate[0])
    return LongestBatch(tuple(rows[i] for i in best[1]), *best[0], several=several)
