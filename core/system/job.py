"""A worker that reports in a status file and takes commands from a control file, which one of its threads watches.

The files, their contents and the state after a crash are described with their folder: core/runs/folder and
core/export/jobs. Commands are received even while the main thread is deep inside a library.
"""

from __future__ import annotations

import threading
import time
import traceback
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import BaseModel

POLL_S = 0.15  # interval of writing progress and of reading commands

Status = TypeVar("Status", bound=BaseModel)


class Job(ABC, Generic[Status]):
    """Context manager around the worker's life; the only writer of its status file."""

    def __init__(self, status: Status):
        """Begin with this status and prepare the thread that writes it and looks for commands; it starts with the
        block."""
        self._status = status
        self._unwritten = False  # whether the status has changes that are not written yet
        self._guard = threading.RLock()
        self._writing = threading.Lock()  # acquired inside of _guard, never around it
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    @abstractmethod
    def _write(self, status: Status) -> None:
        """Write the status file, complete or not at all."""

    @abstractmethod
    def _poll(self, now: float) -> None:
        """Look for commands, every POLL_S. now: monotonic seconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watch thread and wait for it. Changes by `_progress` that it has not written yet stay unwritten."""
        self._over.set()
        self._thread.join()

    @property
    def status(self) -> Status:
        return self._status

    def _put(self, **changes: object) -> None:
        """Write the status with these changes, then keep it. Raises OSError, with the old one kept, if the disk
        refuses."""
        with self._guard, self._writing:
            status = self._status.model_copy(update=changes)
            self._write(status)
            self._status, self._unwritten = status, False

    def _progress(self, **changes: object) -> None:
        """Change the status; the watch thread writes it, and retries if the disk refuses, so that the main thread never
        waits."""
        with self._guard:
            self._status, self._unwritten = self._status.model_copy(update=changes), True

    def _write_pending(self) -> None:
        """Write the status if it has changed since the last write; after a failure it stays pending."""
        with self._writing:
            if not self._unwritten:
                return
            self._unwritten = False
            try:
                self._write(self._status)
            except OSError:
                self._unwritten = True

    def _watch(self) -> None:
        """Loop of a thread until the job is over: write what is pending, and poll; errors are printed and ignored."""
        while not self._over.wait(POLL_S):
            try:
                self._write_pending()
                self._poll(time.monotonic())
            except Exception:  # noqa: BLE001 - a full disk or a damaged file must not end the watch
                traceback.print_exc()
