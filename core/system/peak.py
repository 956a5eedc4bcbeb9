"""The most memory that this process had at once, watched by a thread. No torch; a look costs 20 microseconds.

For processors: torch counts a card's memory itself, the PC's it does not.
"""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

EVERY_S = 0.003  # a look costs half a percent of that; the work space of a layer lives for longer
# Less free RAM than this and the system is about to end programs, or to move them to disk.
LEAST_FREE_BYTES = 200 << 20


class ResidentPeak:
    """Use as a context manager. bytes: the most so far. is_over: whether it was more than limit_bytes, or the PC ran out."""

    def __init__(self, limit_bytes: int | None = None):
        self._process = psutil.Process()
        self._limit = limit_bytes
        self._over = threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak", daemon=True)
        self.bytes = 0
        self._look()

    def __enter__(self) -> ResidentPeak:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def _watch(self) -> None:
        looks = 0
        while not self._done.wait(EVERY_S):
            self._look()
            looks += 1
            if looks % 30 == 0 and psutil.virtual_memory().available < LEAST_FREE_BYTES:
                self._over.set()

    def _look(self) -> None:
        try:
            now = self._process.memory_info().rss
        except psutil.Error:
            return
        self.bytes = max(self.bytes, now)
        if self._limit is not None and now > self._limit:
            self._over.set()


def limit_of_process() -> int | None:
    """What the system lets this process have (ulimit -d, -v), None where it sets no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)
