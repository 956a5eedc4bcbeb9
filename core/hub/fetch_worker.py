"""The process that downloads one model: `python -m core.hub.fetch_worker`. It is stopped by killing it.

It exchanges lines (core.system.lines). In: {repo, revision, resolved, endpoint, cache}, then {go} for each question;
resolved: the revision or commit to download; for a part of a dataset also {part}, its name in the list of downloads;
for an adapter {adapter: true}. Out:
  waiting {}                 another process downloads this model into this cache
  config {config: folder}    a question: config.json is there; nothing large is downloaded before {go}
  room {missing, of}         a question: bytes that the disk has to take, and those of all files
  done {done, total, unit}   bytes or rows, some times a second
  folder {folder}            complete; for a dataset with {files, commit, licence}
  refused {refused: Message}
  bug {bug, where}           the type of an error and its lines in this app's code, without its text, which may hold
                             signed addresses

It ends when its parent is gone. It alone holds the model's lock, so that a kill frees it at once.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import Timeout
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import WeakFileLock, disable_progress_bars

from core.errors import GarageError
from core.files import JsonObject
from core.hub.cached import CachedRepo
from core.hub.hub_errors import HubRequest, Interrupted, NotAHub, hub_error
from core.hub.sets.name import PAGES, PartName
from core.hub.transfer import Transfer
from core.system.lines import ToParent
from core.system.processes import exit_now

if TYPE_CHECKING:
    from core.hub.sets.transfer import SetTransfer

TELL_S = 0.2
STEP = 256 << 10  # bytes of one write; the least that a connection which keeps breaking must bring each time


class FetchWorker:
    """The worker's logic, without the process. order: the first line; say: writes a line; go: waits for the answer to a
    question."""

    def __init__(self, order: JsonObject, say: Callable[..., None], go: Callable[[], object]):
        """Create the transfer of the order's model, or part of a dataset."""
        self._order, self._say = order, say
        part = PartName.parse(order.get("part", ""))
        self._cached = CachedRepo(order["repo"], Path(order["cache"]), "dataset" if part else "model")
        self.set: SetTransfer | None = None

        def send_config_and_wait(folder: Path) -> None:
            """Report the folder that holds config.json to the parent, and wait until it allows the download."""
            say(config=str(folder))
            go()

        def send_sizes_and_wait(missing: int, total: int) -> None:
            """Report the missing bytes and those of all files to the parent, and wait until it allows the download."""
            say(missing=missing, of=total)
            go()

        if part:
            from core.hub.sets.transfer import SetTransfer  # with `datasets`, which a model needs not

            self.transfer: Transfer = (set := SetTransfer(self._cached, part, order["endpoint"], send_sizes_and_wait))
            self.set = set
        else:
            self.transfer = Transfer(
                self._cached, order["resolved"], order["endpoint"], send_config_and_wait, send_sizes_and_wait
            )

    def run(self) -> None:
        """Download, with the progress reported by a thread, and send the result, or the refusal, as the last line."""
        ended = threading.Event()
        reporter = threading.Thread(target=self._report_progress, args=(ended,), name="hub-teller", daemon=True)
        reporter.start()
        try:
            result: JsonObject = {"folder": str(self._fetch_once())} | (self.set.result if self.set else {})
        except GarageError as error:
            result = {"refused": error.message.model_dump()}
        except (NotAHub, Interrupted, HTTPError, OSError) as error:
            transfer, order = self.transfer, self._order
            where = HubRequest(
                order["repo"], order["endpoint"], order["revision"], self._cached.cache, transfer.done, transfer.total,
                PAGES if self.set else "",
            )  # fmt: skip
            result = {"refused": hub_error(error, where).message.model_dump()}
        finally:
            ended.set()
            reporter.join()
        self._say(done=self.transfer.done, total=self.transfer.total, unit=self.transfer.unit, **result)

    def _fetch_once(self) -> Path:
        """Download under the model's lock and return the folder; after waiting for another process, which is reported,
        use its complete download."""
        if self._order.get("adapter"):  # into a cache of its own
            return self.transfer.fetch_adapter()
        lock = self._cached.lock
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with WeakFileLock(lock, timeout=TELL_S):
                return self.transfer.fetch(self._order["revision"])
        except Timeout:
            self._say(waiting=True)
        with WeakFileLock(lock):
            snapshot = self._cached.snapshot(self._order["resolved"])
            if snapshot is not None and self._cached.is_complete(snapshot):  # downloaded by another process meanwhile
                return snapshot
            return self.transfer.fetch(self._order["revision"])

    def _report_progress(self, ended: threading.Event) -> None:
        """Report bytes or rows done every TELL_S seconds if they changed, until ended is set."""
        last = None
        while not ended.wait(TELL_S):
            now = (self.transfer.done, self.transfer.total)
            if self.transfer.total and now != last:
                self._say(done=now[0], total=now[1], unit=self.transfer.unit)
                last = now


def main() -> None:
    """Carry out the order that the parent sends, and end the process; an unexpected error is reported with its places
    in the code."""
    messages: Queue[JsonObject] = Queue()
    parent = ToParent()
    parent.listen(messages.put, lambda: os._exit(1))

    def send_bug_and_exit(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Send the parent the type of an unexpected error and its lines in the code, without the error's text, and end
        the process with status 1."""
        parent.send(
            bug=kind.__name__, where=[f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace)]
        )
        exit_now(1)

    sys.excepthook = send_bug_and_exit
    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = STEP
    order = messages.get()
    if "part" in order:
        from core.hub.sets import library

        library.configure(Path(order["cache"]) / "library")
    FetchWorker(order, parent.send, messages.get).run()
    exit_now(0)


if __name__ == "__main__":
    main()
