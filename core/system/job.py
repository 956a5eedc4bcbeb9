"""A worker that reports in a status file and takes commands from a control file, which one of its threads watches.

Which files those are, what is in them and what a crash leaves of them is said where their folder is: core/runs/folder
and core/export/jobs. What is asked is heard here even while the main thread is deep inside a library.
"""

from __future__ import annotations

import threading
import time
import traceback
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Generic, Self, TypeVar

from pydantic import BaseModel

POLL_S = 0.15  # as often as progress is written, and what is asked looked for

Status = TypeVar("Status", bound=BaseModel)


class Job(ABC, Generic[Status]):
    """Use as a context manager around the worker's life; the only writer of its status file."""

    def __init__(self, status: Status):
        self._status = status
        self._untold = False  # what is in no file yet
        self._guard = threading.RLock()
        self._writing = threading.Lock()  # taken inside of _guard, never around it
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    @abstractmethod
    def _write(self, status: Status) -> None:
        """The status file, complete or not at all."""

    @abstractmethod
    def _look(self, now: float) -> None:
        """For what is asked, each POLL_S. now: monotonic seconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def status(self) -> Status:
        return self._status

    def _put(self, **changes: object) -> None:
        """Written before it is so. Raises OSError where the disk does not take it."""
        with self._guard, self._writing:
            status = self._status.model_copy(update=changes)
            self._write(status)
            self._status, self._untold = status, False

    def _progress(self, **changes: object) -> None:
        """Told by the watch thread: the main thread waits for no disk, and what a disk refuses is written again next
        time."""
        with self._guard:
            self._status, self._untold = self._status.model_copy(update=changes), True

    def _tell(self) -> None:
        with self._writing:
            if not self._untold:
                return
            self._untold = False
            try:
                self._write(self._status)
            except OSError:
                self._untold = True

    def _watch(self) -> None:
        while not self._over.wait(POLL_S):
            try:
                self._tell()
                self._look(time.monotonic())
            except Exception:  # noqa: BLE001 - a full disk or a damaged file must not end the watch: nothing would be heard again
                traceback.print_exc()
