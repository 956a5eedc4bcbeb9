"""A process that exchanges lines: one JSON object per line, on stdin and stdout. Both ends.

It ends when its stdin closes: whoever started it is gone, or has no more use for it.
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
from typing import IO, Any

from core.system.processes import kill_tree, own_group, worker_environment


class Child:
    """The end of whoever starts it. Lines are written whole, from any thread."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: IO[bytes] | int = subprocess.DEVNULL,
        cwd: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ):
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

    def say(self, **values: Any) -> None:
        """A process that is gone takes nothing; `listen` tells of its end."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._in.write(json.dumps(values).encode("ascii") + b"\n")
            self._in.flush()

    def listen(self, hear: Callable[[Any], None], ended: Callable[[int], None]) -> None:
        """From a thread of its own: what each line says, then the exit status."""

        def read() -> None:
            _each_line(self._out, hear)
            code = self.process.wait()
            self._out.close()
            self.close()
            ended(code)

        threading.Thread(target=read, name="lines", daemon=True).start()

    def end(self, wait_s: float) -> None:
        """Politely, then by force; what it held is free when this returns."""
        self.close()
        try:
            self.process.wait(wait_s)
        except subprocess.TimeoutExpired:
            kill_tree(self.process.pid)
            self.process.wait()

    def close(self) -> None:
        """Nothing more is said to it."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self._in.close()


class ToParent:
    """The end of the process that was started. To be made before any import that is slow.

    From then on descriptor 0 is the null device and descriptor 1 is stderr, so that a library may ask for the one and
    print to the other.
    """

    def __init__(self) -> None:
        self._source = _stdin_laid_aside()
        self._output = os.fdopen(os.dup(1), "w", encoding="ascii", newline="\n")
        os.dup2(2, 1)

    def say(self, **values: Any) -> None:
        self._output.write(json.dumps(values) + "\n")
        self._output.flush()

    def close(self) -> None:
        """Nothing more is said to whoever started it."""
        self._output.close()

    def listen(self, hear: Callable[[Any], None], gone: Callable[[], None]) -> None:
        """From a thread of its own: what each line says, then that no more will come."""

        def read() -> None:
            _each_line(self._source, hear)
            gone()

        threading.Thread(target=read, name="lines", daemon=True).start()


def end_with_parent() -> None:
    """For a process that is told nothing: it ends when its stdin does, at whatever it is, since whoever started it is
    gone."""
    source = _stdin_laid_aside()

    def wait() -> None:
        source.read()
        os._exit(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _stdin_laid_aside() -> IO[bytes]:
    """The pipe, in whose place descriptor 0 is the null device. On Windows it must not be the pipe: the runtime of
    numpy's Fortran library asks for the standard handles when it is loaded, and waits for the pending read of the
    thread that listens there (numpy issue 24290)."""
    source = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return source


def _each_line(source: IO[bytes], hear: Callable[[Any], None]) -> None:
    for line in source:
        try:
            value = json.loads(line)
        except ValueError:  # half a line: the other end died while it wrote
            continue
        hear(value)
