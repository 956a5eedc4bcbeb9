"""Run a reader in a separate process, because its library may use up the memory, crash, or never finish."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import IO

import psutil

from core import files
from core.data.reading.file_rows import Readable
from core.data.reading.zips import Member
from core.system.processes import kill_tree, own_group, worker_environment

MAX_MEMORY = 3 << 30  # bytes of the process; a table of 1,000,000 rows and 10 columns of numbers takes 0.3 GiB
LONGEST_SILENCE_S = 600  # seconds without output; a workbook of 2 GiB takes a few minutes
LOOK_S = 0.05


def listen(
    module: str,
    path: Readable,
    *arguments: str,
    errors: int | None = subprocess.DEVNULL,
    waiting: Callable[[], None] | None = None,
) -> Generator[object]:
    """Start `python -m module path arguments` and yield each JSON value that it writes to stdout, one a line. Yields
    {"error": "memory" | "slow" | "broken"} last if it grew above MAX_MEMORY, was silent for LONGEST_SILENCE_S, or
    failed. Closing the iterator ends the process. errors: where its stderr goes; None: to the stderr of this process.
    waiting: called each LOOK_S seconds without output, and may raise; meant for a process of few lines."""
    location = (
        (os.path.abspath(str(path.archive)), path.name)
        if isinstance(path, Member)
        else (os.path.abspath(str(path)), "")
    )
    process = subprocess.Popen(
        [sys.executable, "-m", module, *location, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=worker_environment(),
        **own_group(),
    )
    assert process.stdout
    watch = _Watch(process)
    try:
        for line in _lines(process.stdout, waiting) if waiting else process.stdout:
            watch.last_output_s = time.monotonic()
            if line.endswith(b"\n"):  # an incomplete line: the process died
                yield json.loads(line)
        if watch.ended_it:
            yield {"error": watch.ended_it}
        elif process.wait():
            yield {"error": "broken"}
    finally:
        watch.done.set()
        kill_tree(process.pid)
        process.wait()
        process.stdout.close()


def _lines(stdout: IO[bytes], waiting: Callable[[], None]) -> Iterator[bytes]:
    """Yield lines of a pipe as they arrive, calling waiting each LOOK_S seconds without one. A thread reads them:
    Windows has no way to poll a pipe."""
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        """Put each line of the pipe into the queue, then b"" for its end."""
        with contextlib.suppress(ValueError):  # closed, by the caller
            for line in stdout:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, name="lines", daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=LOOK_S)
        except queue.Empty:
            waiting()
            continue
        if not line:
            return
        yield line


class _Watch:
    """Thread that ends a process which uses more than MAX_MEMORY or writes nothing for LONGEST_SILENCE_S."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process, self.done, self.ended_it, self.last_output_s = process, threading.Event(), "", time.monotonic()
        threading.Thread(target=self._look, name="reader", daemon=True).start()

    def _look(self) -> None:
        """Kill the process once it is too large or silent, and note which; ends when done is set."""
        with contextlib.suppress(psutil.Error):
            processes = [psutil.Process(self._process.pid)]
            while not self.done.wait(LOOK_S):
                if files.ON_WINDOWS and len(processes) == 1:
                    # a venv's python.exe is a small program that starts the interpreter
                    processes += processes[0].children()
                too_large = sum(each.memory_info().rss for each in processes) > MAX_MEMORY
                if too_large or time.monotonic() - self.last_output_s > LONGEST_SILENCE_S:
                    self.ended_it = "memory" if too_large else "slow"
                    kill_tree(self._process.pid)
                    return
