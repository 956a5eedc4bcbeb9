"""Making rows from documents on the page: one at a time, in a thread of the app. A model of this PC writes in a process
of its own, which takes its turn between the runs of the queue. Each finished passage is kept (core/chat/making), so
whoever stops it, closes the page or ends the app loses none; the next press goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from core.chat.client import ChatClient, ChatTarget
from core.chat.comparison import Contestant
from core.chat.contest import chat_target, ensure_loaded
from core.chat.endpoint import Endpoint
from core.chat.making.making import Making
from core.chat.making.passages import Passage, blocks_of, passages_of
from core.chat.making.rows import MakingOrder, Result
from core.chat.making.writers import LocalWriter, RowWriter, ServerWriter
from core.chat.memory_check import needed_bytes
from core.data.store import DatasetStore
from core.errors import ChatError, GarageError
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.library import Models
from core.queue.queue import Queue
from core.queue.turns import OtherWork
from core.values import GIB
from core.workspace.folder import Workspace

GAME_LOOK_S = 2.0  # between two looks whether a game is over
TURN_LOOK_S = 0.25  # between two looks whether its turn has come or it was stopped
MAX_DIVIDED = 5000  # paragraphs: those of a long book


@dataclass(frozen=True)
class MakingProgress:
    """The newest making of this app. title: of its rows; stage: "waiting" for its turn in the queue, since a time in
    seconds since 1970; "paused" for a game, with the model unloaded. total: 0 while the text is divided; error: why it
    ended before its last passage."""

    dataset: str = ""
    title: str = ""
    at_work: bool = False
    stage: Literal["dividing", "waiting", "loading", "writing", "paused"] = "dividing"
    since: float = 0.0
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    rows_an_hour: float | None = None
    error: Message | None = None


class Makings(OtherWork):
    """Writes rows of training data from documents by a model, one job at a time, in a thread. A making is such a job
    with its rows, in a folder of its own; MakingProgress tells how far the newest one is. chat: the process of a model
    of this PC that writes; make_room: called before it is loaded."""

    def __init__(
        self,
        workspace: Workspace,
        datasets: DatasetStore,
        chat: ChatClient,
        queue: Queue,
        make_room: Callable[[], None] = lambda: None,
    ):
        self._workspace, self._datasets, self._chat, self._queue = workspace, datasets, chat, queue
        self._make_room = make_room
        self._guard, self._stopped, self._turn = threading.Lock(), threading.Event(), threading.Event()
        self._progress = MakingProgress()
        self._divided: tuple[tuple[str, int], list[Passage]] = ("", 0), []

    def progress(self) -> MakingProgress:
        """Return the progress of the newest making of this app, also once it has ended, then with the error if there
        was one."""
        return self._progress

    def queued(self) -> MakingProgress | None:
        """Return the progress of a making by a model of this PC that waits for its turn or has it; None without one."""
        return self._progress if self.is_at_work() or self.waits_since() is not None else None

    def waits_since(self) -> float | None:
        """Return when the writing began to wait for its turn, seconds since 1970; None if it does not wait."""
        progress = self._progress
        return progress.since if progress.stage == "waiting" and progress.at_work and not self.is_at_work() else None

    def is_at_work(self) -> bool:
        """Return whether a model of this PC writes, or is about to be loaded or waits for a game to end."""
        return self._turn.is_set()

    def begin(self) -> None:
        """Let the writing that waits for its turn begin."""
        self._turn.set()

    def needed_gib(self, writer: str) -> float | None:
        """Return the memory, in GiB, that a model of this PC takes as it writes; None if it is unknown."""
        try:
            target = self._target(writer)
            shape = Models(self._workspace).shape(target.model_id, target.revision)
        except GarageError:
            return None
        setup = Setup(method="qlora" if target.four_bit else "lora", load_in_8bit=target.eight_bit)
        return needed_bytes(shape, setup) / GIB

    def newest(self, dataset: str) -> Making | None:
        """Return the newest making with this dataset among its documents; None without one."""
        makings = (
            one
            for one in Making.all_of(self._workspace)
            if dataset in [document for document, _ in one.order.documents]
        )
        return max(makings, key=lambda one: one.created, default=None)

    def divided(self, dataset: str) -> list[Passage] | None:
        """Return the passages of a dataset's documents, divided once per version; None for more than MAX_DIVIDED rows,
        which would hold up the page. Raises GarageError."""
        if (self._datasets.get(dataset).good_rows or 0) > MAX_DIVIDED:
            return None
        key = dataset, self._datasets.version(dataset)
        if self._divided[0] != key:
            self._divided = key, passages_of(blocks_of(self._datasets, dataset))
        return self._divided[1]

    def start(self, order: MakingOrder, endpoint: Endpoint | None, first: int | None = None) -> None:
        """Write the missing rows of an order, in a thread, and begin its progress. endpoint: the server whose model
        writes; None for a model of this PC. first: only of so many passages from the beginning. Raises ChatError while
        another one is at work."""
        with self._guard:
            if self._progress.at_work:
                raise ChatError("making_view.other_at_work")
            self._stopped.clear()
            self._progress = MakingProgress(order.documents[0][0], order.title, at_work=True)
        threading.Thread(target=self._work, args=(order, endpoint, first), name="making", daemon=True).start()

    def stop(self) -> None:
        """End the making before its next row, also while it waits or its model is loaded."""
        if self._progress.at_work:
            self._stopped.set()
            if self._chat.state().phase == "loading":
                self._chat.unload()
            else:
                self._chat.stop()

    def _work(self, order: MakingOrder, endpoint: Endpoint | None, first: int | None) -> None:
        """Write rows in the thread, and end the progress with the error, if any; a stop is none."""
        error: Message | None = msg("making_view.broken")
        try:
            self._write(order, endpoint, first)
            error = None
        except GarageError as refusal:
            error = None if self._stopped.is_set() else refusal.message
        finally:
            self._progress = replace(self._progress, at_work=False, error=error)

    def _write(self, order: MakingOrder, endpoint: Endpoint | None, first: int | None) -> None:
        """Divide the documents, open or create the making, and write its missing rows, noting the progress with the
        seconds left."""
        blocks = (block for document, _ in order.documents for block in blocks_of(self._datasets, document))
        making = Making.prepare(self._workspace, order, passages_of(blocks))
        total, now = len(making.passages()[:first]), list[Result]()
        done = sum(number < total for number in making.results())
        self._progress = replace(self._progress, done=done, total=total)
        with self._writer(order, endpoint) as writer:
            self._progress = replace(self._progress, stage="writing")
            for result in making.write(writer, self._stopped.is_set, first):
                now.append(result)
                seconds, rows = sum(one.seconds for one in now), sum(len(one.rows) for one in now)
                left = total - done - len(now)
                self._progress = replace(
                    self._progress,
                    done=done + len(now),
                    seconds_left=left * seconds / len(now),
                    rows_an_hour=3600 * rows / max(seconds, 0.001),
                )
                if isinstance(writer, LocalWriter) and left:
                    self._wait_for_game(writer)

    def _wait_for_game(self, writer: LocalWriter) -> None:
        """Unload the model while game mode holds the queue, then load it again; a stop ends the wait. Raises
        GarageError."""
        if self._queue.read().game is None:
            return
        self._chat.unload(msg("making_view.paused"))
        self._progress = replace(self._progress, stage="paused")
        while self._queue.read().game is not None:
            if self._stopped.wait(GAME_LOOK_S):
                return
        ensure_loaded(self._chat, writer.target)
        self._progress = replace(self._progress, stage="writing")

    @contextmanager
    def _writer(self, order: MakingOrder, endpoint: Endpoint | None) -> Iterator[RowWriter]:
        """Context manager: the model that writes; one of this PC once its turn has come, loaded until the end. Raises
        GarageError."""
        if endpoint is not None:
            yield ServerWriter(endpoint, self._stopped.is_set)
            return
        try:
            self._wait_for_turn()
            self._make_room()
            target = self._target(order.writer)
            ensure_loaded(self._chat, target)
            yield LocalWriter(self._chat, target, order.writer)
        finally:
            self._chat.unload()
            self._turn.clear()

    def _wait_for_turn(self) -> None:
        """Wait until the supervisor of the queue lets it begin. Raises ChatError if it is stopped."""
        self._progress = replace(self._progress, stage="waiting", since=time.time())
        while not self._turn.wait(TURN_LOOK_S) and not self._stopped.is_set():
            pass
        if self._stopped.is_set():
            raise ChatError("compare.stopped")
        self._progress = replace(self._progress, stage="loading")

    def _target(self, writer: str) -> ChatTarget:
        """Return a model of this PC by its choice on the page, "run:ID" or "base:MODEL". Raises GarageError."""
        kind, _, name = writer.partition(":")
        values = {"run": name} if kind == "run" else {"other": writer, "column": "base"}
        return chat_target(self._workspace, Contestant(label=writer, **values))
