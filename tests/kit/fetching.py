"""The download of a model without its process: the same worker on a thread, for tests that start none.

    monkeypatch.setattr(download, "Child", Here)

How a killed process behaves is tested in tests/process/test_fetching.py: here `end` only stops the transfer.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.hub import download, fetch_worker, transfer
from core.hub.fetch_worker import FetchWorker
from tests.kit.hub import CHUNK

here_holds_its_file = pytest.mark.skipif(
    os.name == "nt", reason="the thread of these tests has it open; a process is killed"
)


class Here:
    def __init__(self, module: str):
        self._told: queue.Queue[dict[str, Any]] = queue.Queue()
        self._worker: FetchWorker | None = None
        self._hear: Callable[[dict[str, Any]], None] = lambda line: None
        self._ended: Callable[[int], None] = lambda code: None

    def listen(self, hear: Callable[[Any], None], ended: Callable[[int], None]) -> None:
        self._hear, self._ended = hear, ended

    def send(self, **values: Any) -> None:
        if self._worker is not None:
            self._told.put(values)
            return
        self._worker = FetchWorker(values, lambda **line: self._hear(line), self._answer)
        threading.Thread(target=self._run, args=(self._worker,), name="hub-download", daemon=True).start()

    def _answer(self) -> dict[str, Any]:
        """Return the next answer; after `end` the thread stops where it asks, as a killed process does."""
        answer = self._told.get()
        if not answer:
            raise transfer.TransferStopped
        return answer

    def _run(self, worker: FetchWorker) -> None:
        with suppress(transfer.TransferStopped):
            worker.run()
        self._ended(0)

    def end(self, wait_s: float) -> None:
        if self._worker is not None:
            self._worker.transfer.leave()
            self._told.put({})  # to questions that nobody answers any more


def fetch_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the downloads' process by Here, in steps of CHUNK as the hub of the tests sends them, without waits
    between two tries. It holds no model's lock, which a killed process frees at once and a stalled thread does not."""
    monkeypatch.setattr(download, "Child", Here)
    monkeypatch.setattr(fetch_worker, "WeakFileLock", lambda *_, **__: nullcontext())
    monkeypatch.setattr(transfer, "RETRY_WAIT_S", 0.01)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", CHUNK)
    quick = SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.file_download.time", quick)


def incomplete(cache: Path) -> int:
    """Return the bytes of the largest unfinished file; one that gets its name meanwhile is skipped."""
    sizes = [0]
    for path in cache.rglob("*.incomplete"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)
