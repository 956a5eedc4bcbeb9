"""The standby process: `python -m core.training.standby.standby_worker MARK`. It imports the libraries beforehand and
becomes the worker of the next run (core/queue/standby manages it). Until then it holds nothing else and writes nothing.

In, one line (core.system.lines): {log: the run's train.log, arguments: of core.training.worker}; from then on it is
only that worker. Out: pid and ready, the bytes freed by its end, or failed, a text. It exits if its stdin closes before
that line. MARK distinguishes it from others.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
from contextlib import suppress

import psutil

from core.files import JsonObject
from core.system import cores, devices
from core.system.lines import ToParent
from core.system.processes import exit_now, keep_freed_memory

COPIED_AT_ONCE = 1 << 16  # bytes


def main() -> int:
    """Import a worker's libraries, report readiness and memory to the parent, wait for its order, then write to the
    run's log and be that worker; return its exit status, 1 if the imports fail. Exits when the parent ends first."""
    parent, orders, is_taken = ToParent(), queue.SimpleQueue[JsonObject](), threading.Event()

    def hear(order: JsonObject) -> None:
        is_taken.set()
        orders.put(order)

    parent.listen(hear, lambda: None if is_taken.is_set() else os._exit(0))
    cores.stand_back()
    keep_freed_memory()
    try:
        from core.training import worker

        worker.read_libraries()
        from core.engine import base_model  # noqa: F401

        with suppress(ImportError):
            import pandas  # noqa: F401 - pyarrow reads it with the first rows that become numpy's
    except Exception as error:  # noqa: BLE001 - a worker started anew reports it in its run
        parent.send(failed=f"{type(error).__name__}: {error}")
        return 1
    if is_on_a_card():
        parent.send(failed="reading the libraries took memory of a card")
        return 1
    gc.collect()
    gc.freeze()
    parent.send(pid=os.getpid(), ready=held_bytes())
    order = orders.get()
    parent.close()
    take_over(order["log"])
    sys.argv = ["core.training.worker", *order["arguments"]]
    return worker.main()


def held_bytes() -> int:
    """Return the memory that this process's end would free: bytes that no other process shares; on Windows its private
    bytes, or its resident memory if the system does not report them (Wine)."""
    process = psutil.Process()
    try:
        return process.memory_full_info().uss
    except (OSError, psutil.Error):
        memory = process.memory_info()
        return getattr(memory, "private", 0) or memory.rss  # Wine reports 0


def is_on_a_card() -> bool:
    """True if NVML lists this process among those that use a GPU. A container may have other process ids."""
    return any(holder.pid == os.getpid() for card in devices.read_cards().cards for holder in card.holders or ())


def take_over(log: str) -> None:
    """Append this process's output so far (file descriptor 2) to log, then write both outputs there, like a worker
    started with it."""
    with open(log, "ab") as file:
        os.lseek(2, 0, os.SEEK_SET)
        while output := os.read(2, COPIED_AT_ONCE):
            file.write(output)
        file.flush()
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


if __name__ == "__main__":
    exit_now(main())
