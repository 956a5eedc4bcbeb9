"""Memory while training, as `gpu` lines of metrics.jsonl and one fact of run.json; the chart draws the lines.

memory_bytes        what torch's allocator holds on the GPU (without the driver's own context, 0.3 to 0.6 GiB);
                    on the CPU the resident memory of the process
memory_total_bytes  of the GPU, or of the PC
peak_memory_bytes   (run.json) the largest memory_bytes; on a GPU the allocator's own peak, which includes spikes within
                    a step

Each query takes some ten microseconds, one every two seconds. Values that cannot be read are left out; no error here
ends a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts

EVERY_S = 2.0
Query = Callable[[], int | None]


class MemoryUse:
    """Records the memory in use. on_card: the run computes on the first CUDA GPU. clock: in seconds, replaced in
    tests."""

    def __init__(self, reporter: Reporter, on_card: bool, clock: Callable[[], float] = time.monotonic):
        """Choose what is measured. On the GPU: the bytes that torch has reserved, their peak, and the GPU's size; else:
        this process's RAM, without a peak, and the PC's RAM."""
        self._reporter, self._clock = reporter, clock
        queries: tuple[Query, Query, Query] = (
            lambda: psutil.Process().memory_info().rss,
            lambda: None,
            lambda: psutil.virtual_memory().total,
        )
        if on_card:
            from torch import cuda

            queries = (
                lambda: cuda.memory_reserved(0),
                lambda: cuda.max_memory_reserved(0),
                lambda: cuda.mem_get_info(0)[1],
            )
        self._used, self._most, total = queries
        self._total = _read(total)
        self._noted_at: float | None = None
        self._peak: int | None = None

    def note(self, step: int, last: bool = False) -> None:
        """Write a line with the bytes in use and in all at the first and the last step, and between them at most one
        every EVERY_S; none while they are unknown. Call it after each step."""
        now = self._clock()
        if self._noted_at is not None and now - self._noted_at < EVERY_S and not last:
            return
        self._noted_at = now
        numbers = {"memory_bytes": self._note_use(), "memory_total_bytes": self._total}
        if numbers["memory_bytes"] is not None:
            self._reporter.metrics("gpu", step, **{name: value for name, value in numbers.items() if value is not None})

    def keep_peak(self) -> None:
        """Write the peak to run.json, however the run ended. A full disk is ignored: the error that ended the run is
        reported."""
        self._note_use()
        peak = max((value for value in (self._peak, _read(self._most)) if value is not None), default=None)
        if peak is not None:
            with suppress(OSError):
                self._reporter.run.add_facts(RunFacts(peak_memory_bytes=peak))

    def _note_use(self) -> int | None:
        """Return the bytes in use, None if unreadable, and keep their peak."""
        used = _read(self._used)
        self._peak = max((value for value in (self._peak, used) if value is not None), default=None)
        return used


def _read(query: Query) -> int | None:
    """Return query(), or None if it fails."""
    try:
        return query()
    except (psutil.Error, OSError, RuntimeError):  # torch raises RuntimeError if the driver fails
        return None
