"""Memory while training, as `gpu` lines of metrics.jsonl and one fact of run.json; the chart draws the lines.

memory_bytes        what torch's allocator holds on the GPU (without the driver's own context, 0.3 to 0.6 GiB);
                    on the CPU the resident memory of the process
memory_total_bytes  of the GPU, or of the PC
peak_memory_bytes   (run.json) the largest memory_bytes; on a GPU the allocator's own peak, which includes spikes within
                    a step

Each query takes some ten microseconds, one every two seconds. What cannot be read is left out; nothing here ends a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import psutil

from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts

EVERY_S = 2.0
Ask = Callable[[], int | None]


class MemoryUse:
    """on_card: whether the run computes on the first CUDA GPU. clock: in seconds, replaced in tests."""

    def __init__(self, reporter: Reporter, on_card: bool, clock: Callable[[], float] = time.monotonic):
        self._reporter, self._clock = reporter, clock
        asks: tuple[Ask, Ask, Ask]
        asks = (lambda: psutil.Process().memory_info().rss, lambda: None, lambda: psutil.virtual_memory().total)
        if on_card:
            from torch import cuda

            asks = (
                lambda: cuda.memory_reserved(0),
                lambda: cuda.max_memory_reserved(0),
                lambda: cuda.mem_get_info(0)[1],
            )
        self._used: Ask
        self._most: Ask
        self._used, self._most, total = asks
        self._total = _known(total)
        self._looked_at: float | None = None
        self._peak: int | None = None

    def note(self, step: int, last: bool = False) -> None:
        """Call it after each step; writes a line at the first, at the last, and at most one every EVERY_S."""
        now = self._clock()
        if self._looked_at is not None and now - self._looked_at < EVERY_S and not last:
            return
        self._looked_at = now
        numbers = {"memory_bytes": self._look(), "memory_total_bytes": self._total}
        if numbers["memory_bytes"] is not None:
            self._reporter.metrics("gpu", step, **{name: value for name, value in numbers.items() if value is not None})

    def keep_peak(self) -> None:
        """However the run ended; a full disk is ignored here, because whatever ended the run reports it."""
        self._look()
        peak = max((value for value in (self._peak, _known(self._most)) if value is not None), default=None)
        if peak is not None:
            with suppress(OSError):
                self._reporter.run.add_facts(RunFacts(peak_memory_bytes=peak))

    def _look(self) -> int | None:
        used = _known(self._used)
        self._peak = max((value for value in (self._peak, used) if value is not None), default=None)
        return used


def _known(ask: Ask) -> int | None:
    try:
        return ask()
    except (psutil.Error, OSError, RuntimeError):  # torch raises RuntimeError if the driver fails
        return None
