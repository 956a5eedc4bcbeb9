"""The process that fetches one model: `python -m core.hub.fetch_worker`. To stop it, it is killed.

In lines (core.system.lines). In: {repo, revision, wanted, endpoint, cache}, then {go} to each question; for a part of a
data set also {part}, its name in the list of downloads. Out:
  waiting {}                 another process fetches this model into this cache
  config {config: folder}    a question: config.json lies there; nothing large is fetched before {go}
  room {missing, of}         a question: bytes that the disk is to take, and those of all files
  done {done, total, unit}   bytes or rows, some times a second
  folder {folder}            whole; of a data set with {files, commit, licence}
  refused {refused: Message}
  bug {bug, where}           the kind of an error and the lines of ours it came from, without its words: they may hold
                             signed addresses

It ends when whoever started it is gone. It alone holds the lock of the model, so what a kill leaves is free at once.
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
from typing import TYPE_CHECKING, Any

from filelock import Timeout
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import WeakFileLock, disable_progress_bars

from core.errors import GarageError
from core.hub.answers import HubRequest, Interrupted, NotAHub, sentence
from core.hub.cached import CachedRepo
from core.hub.sets.name import PAGES, PartName
from core.hub.transfer import Transfer
from core.system.lines import ToParent
from core.system.processes import leave

if TYPE_CHECKING:
    from core.hub.sets.transfer import SetTransfer

TELL_S = 0.2
STEP = 256 << 10  # bytes of one write; what a line that breaks over and over must at least bring in one go


class FetchWorker:
    """The process without its being one. say: a line out; go: returns once the last question is answered."""

    def __init__(self, asked: dict[str, Any], say: Callable[..., None], go: Callable[[], Any]):
        self._asked, self._say = asked, say
        part = PartName.parse(asked.get("part", ""))
        self._cached = CachedRepo(asked["repo"], Path(asked["cache"]), "dataset" if part else "model")
        self.set: SetTransfer | None = None

        def accept(folder: Path) -> None:
            say(config=str(folder))
            go()

        def room(missing: int, total: int) -> None:
            say(missing=missing, of=total)
            go()

        if part:
            from core.hub.sets.transfer import SetTransfer  # with `datasets`, which a model needs not

            self.transfer: Transfer = (set := SetTransfer(self._cached, part, asked["endpoint"], room))
            self.set = set
        else:
            self.transfer = Transfer(self._cached, asked["wanted"], asked["endpoint"], accept, room)

    def run(self) -> None:
        ended = threading.Event()
        teller = threading.Thread(target=self._tell, args=(ended,), name="hub-teller", daemon=True)
        teller.start()
        try:
            said: dict[str, Any] = {"folder": str(self._whole())} | (self.set.told if self.set else {})
        except GarageError as error:
            said = {"refused": error.message.model_dump()}
        except (NotAHub, Interrupted, HTTPError, OSError) as error:
            transfer, asked = self.transfer, self._asked
            where = HubRequest(
                asked["repo"], asked["endpoint"], asked["revision"], self._cached.cache, transfer.done, transfer.total,
                PAGES if self.set else "",
            )  # fmt: skip
            said = {"refused": sentence(error, where).message.model_dump()}
        finally:
            ended.set()
            teller.join()
        self._say(done=self.transfer.done, total=self.transfer.total, unit=self.transfer.unit, **said)

    def _whole(self) -> Path:
        lock = self._cached.lock
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with WeakFileLock(lock, timeout=TELL_S):
                return self.transfer.fetch(self._asked["revision"])
        except Timeout:
            self._say(waiting=True)
        with WeakFileLock(lock):
            snapshot = self._cached.snapshot(self._asked["wanted"])
            if snapshot is not None and self._cached.is_whole(snapshot):  # somebody else's download, while we waited
                return snapshot
            return self.transfer.fetch(self._asked["revision"])

    def _tell(self, ended: threading.Event) -> None:
        told = None
        while not ended.wait(TELL_S):
            now = (self.transfer.done, self.transfer.total)
            if self.transfer.total and now != told:
                self._say(done=now[0], total=now[1], unit=self.transfer.unit)
                told = now


def main() -> None:
    heard: Queue[dict[str, Any]] = Queue()
    parent = ToParent()
    parent.listen(heard.put, lambda: os._exit(1))

    def tell_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        parent.say(
            bug=kind.__name__, where=[f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace)]
        )
        leave(1)

    sys.excepthook = tell_bug
    disable_progress_bars()
    constants.DOWNLOAD_CHUNK_SIZE = STEP
    asked = heard.get()
    if "part" in asked:
        from core.hub.sets import library

        library.settle(Path(asked["cache"]) / "library")
    FetchWorker(asked, parent.say, heard.get).run()
    leave(0)


if __name__ == "__main__":
    main()
