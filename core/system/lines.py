"""A child process that exchanges one JSON object per line on stdin and stdout. Both ends.

It ends when its stdin closes: its parent has ended, or does not need it any more.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

from core.files import JsonObject
from core.system.processes import kill_tree, own_group, worker_environment


class Child:
    """The parent's end. Lines are written as a whole, from any thread."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: IO[bytes] | int = subprocess.DEVNULL,
        cwd: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
        """Start `python -m module arguments` in its own process group, with pipes for lines and its errors in log."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=cwd,
            env={**worker_environment(), **environment},
            **own_group(),
        )
        assert self.process.stdin and self.process.stdout
        self._in, self._out = self.process.stdin, self.process.stdout
        self._writing = threading.Lock()

    def send(self, **values: object) -> None:
        """Send one object. Nothing happens if the process has ended; `listen` reports its end."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._in.write(json.dumps(values).encode("ascii") + b"\n")
            self._in.flush()

    def listen(self, hear: Callable[[JsonObject], None], ended: Callable[[int], None]) -> None:
        """Start a thread that calls hear for each line, then ended with the exit status."""

        def hear_until_end() -> None:
            """Pass each line on to hear; at the child's end close both pipes and call ended with its exit status."""
            _each_line(self._out, hear)
            code = self.process.wait()
            self._out.close()
            self.close()
            ended(code)

        threading.Thread(target=hear_until_end, name="lines", daemon=True).start()

    def end(self, wait_s: float) -> None:
        """Close stdin, wait at most wait_s, then kill the child and its descendants; its memory and locks are free when
        this returns."""
        self.close()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            self.process.wait()

    def close(self) -> None:
        """Close the child's stdin, also if the child has ended."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._in.close()


class ToParent:
    """The child's end, to be created before any slow import."""

    def __init__(self) -> None:
        """Take over stdin and stdout. From then on descriptor 0 is the null device and descriptor 1 is stderr, so that
        libraries may read the one and print to the other."""
        self._source = _take_stdin()
        self._output = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
        os.dup2(2, 1)

    def send(self, **values: object) -> None:
        """Write one object as a line to the parent. Raises OSError if the parent has gone, and ValueError after
        `close`."""
        self._output.write(json.dumps(values) + "\n")
        self._output.flush()

    def close(self) -> None:
        """Close the pipe to the parent."""
        self._output.close()

    def listen(self, hear: Callable[[JsonObject], None], gone: Callable[[], None]) -> None:
        """Start a thread that reads the parent's lines and calls hear with each, then gone after the last."""

        def hear_until_gone() -> None:
            """Pass each of the parent's lines on to hear, and call gone once the parent has closed the pipe."""
            _each_line(self._source, hear)
            gone()

        threading.Thread(target=hear_until_gone, name="lines", daemon=True).start()


def end_with_parent() -> None:
    """End this process as soon as its stdin closes, whatever it does: its parent has ended. For children without
    messages."""
    source = _take_stdin()

    def exit_after_parent() -> None:
        """Wait until the parent closes the pipe, and end this process at once with status 1."""
        source.read()
        os._exit(1)

    threading.Thread(target=exit_after_parent, name="parent", daemon=True).start()


def _take_stdin() -> IO[bytes]:
    """Return stdin and put the null device at descriptor 0.

    On Windows the pipe must not stay there: the runtime of numpy's Fortran library queries the standard handles on
    loading, and waits for the pending read of the thread that listens there (numpy issue 24290).
    """
    source = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return source


def _each_line(source: IO[bytes], hear: Callable[[JsonObject], None]) -> None:
    """Call hear with each line of JSON, and wait for more, until the source ends; a line that is no JSON is skipped."""
    for line in source:
        try:
            value = json.loads(line)
        except ValueError:  # half a line: the other end died while it wrote
            continue
        hear(value)
