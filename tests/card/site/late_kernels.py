"""Kernels that run late (NULLCARD_DEFER=kernels): what the numbers layer computes waits in its stream's queue until
the stream, an event after it or the device is waited for, or a copy of the same stream needs it. A copy happens at
once, as on a card whose copy engine is quicker than its kernels: one that overwrites what a kernel still has to
read is seen in the numbers.

The queues are here; null/runtime.c calls `_on_call` where the runtime's documentation says that something must have
happened.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
import traceback
from collections import defaultdict, deque
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import _disable_current_modes

library = ctypes.CDLL(None)
library.nullcard_queue.restype = ctypes.c_uint64
library.nullcard_queue.argtypes = [ctypes.c_void_p]
library.nullcard_break.argtypes = [ctypes.c_char_p]
RUN, RUN_ALL, WAIT, IS_WAITING = range(4)
EVERYTHING = 2**64 - 1

_queues: dict[int, deque[tuple[int, Callable[[], object]]]] = defaultdict(deque)  # by stream: position and work
_lock = threading.RLock()


def add(stream: int, work: Callable[[], object]) -> None:
    with _lock:
        _queues[stream].append((library.nullcard_queue(stream), work))


def run(stream: int, last: int = EVERYTHING) -> None:
    """Do the work of a stream up to this position, in its order."""
    with _lock:
        queue = _queues[stream]
        while queue and queue[0][0] <= last:
            _, work = queue.popleft()
            work()


def _call(what: int, stream: int | None, other: int | None, position: int) -> int:
    stream, other = stream or 0, other or 0
    if what == RUN_ALL:
        for each in list(_queues):
            run(each)
    elif what == RUN:
        run(stream, position)
    with _lock:
        if what == WAIT and _is_waiting(other, position):
            add(stream, lambda: run(other, position))
        return int(what == IS_WAITING and _is_waiting(stream, position))


def _is_waiting(stream: int, position: int) -> bool:
    return bool(_queues[stream]) and _queues[stream][0][0] <= position


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)
def _on_call(what: int, stream: int | None, other: int | None, position: int) -> int:
    """The runtime's call, from any thread, perhaps inside an operator. An error is the card's: every later call
    fails by it."""
    try:
        with _disable_current_modes(), torch.no_grad():
            return _call(what, stream, other, position)
    except BaseException as error:  # noqa: BLE001 - a callback has nobody to raise it to
        traceback.print_exc()
        library.nullcard_break(str(error).encode())
        return 0


def install() -> None:
    library.nullcard_late(_on_call)
    atexit.register(library.nullcard_late, None)
