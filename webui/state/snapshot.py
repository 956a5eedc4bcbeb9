"""The state of the workspace at one moment, shared by all pages that read it within the same half second.

Pages show a function of a Snapshot and of nothing else, so a reload, a second tab, a phone and a restarted server show
the same.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from core import files
from core.chat.client import ChatClient, ChatState
from core.errors import ChatError, GarageError
from core.export.exports import Exports
from core.export.records import ExportRequest, ExportResult, ExportStatus
from core.files import JsonObject
from core.hub.downloads import Download, Downloads
from core.messages import Message, msg
from core.queue.queue import Order, Queue, QueuedRun, arranged, first
from core.recipe import Recipe
from core.runs import time_left
from core.runs.all import Runs
from core.runs.cards import evaluated, tested
from core.runs.ended import LeftRun, left_run
from core.runs.folder import RunFolder, Status
from core.runs.kept.freeing import spare_bytes
from core.runs.kept.label import Label
from core.runs.measure import measure, measures
from core.runs.run_json import RunFacts
from core.runs.states import ACTIVE, BUSY, TERMINAL, State
from webui.state.making import MakingProgress, Makings

FRESH_S = 0.5
LOG_LINES = 40
KEPT_EVENTS = 8  # runs
COURSE_POINTS = 32  # of a run's loss in the list
COURSE_BYTES = 2048  # long enough to hold a complete line of metrics.jsonl


@dataclass(frozen=True)
class RunRow:
    """A run in the list; its files are read again only when they have changed.

    last_measure, course: the loss of the newest step and at some steps. evaluated: the best validation loss, or the
    newest while the run is at work. is_reward: the three are rewards, in training by rewards. seconds: duration of the
    whole training, once it is over.
    """

    id: str
    name: str
    status: Status
    created: float
    method: str
    r: int
    model: str
    data: str
    last_measure: float | None
    bytes_used: int
    checkpoints: tuple[str, ...]
    launcher: str = ""
    evaluated: float | None = None
    is_reward: bool = False
    seconds: float | None = None
    course: tuple[float, ...] = ()
    label: Label = Label()
    right: tuple[int, int] | None = None  # answers of its evaluation, and the questions
    lost: int = 0  # tests of its base that an earlier run passed and this one does not
    spare_bytes: int = 0  # part of bytes_used: checkpoints that nothing can resume from

    @property
    def was_dropped(self) -> bool:
        """True if the run was removed from the queue before it ever began."""
        return self.status.state == State.STOPPED and self.status.stage == "waiting"

    @property
    def can_chat(self) -> bool:
        """True if the run has an adapter or a checkpoint, and is not at work."""
        return self.status.state not in BUSY and (self.status.has_adapter or bool(self.checkpoints))


@dataclass(frozen=True)
class RunView:
    """The contents of a run's page. recipe is None if recipe.yaml cannot be read. waits_for: "export" or "making" for a
    queued run while such work of this app uses the device; else ""."""

    row: RunRow
    folder: str
    recipe: Recipe | None
    facts: RunFacts
    events: Sequence[JsonObject]
    log_tail: str
    waits_for: str = ""


@dataclass(frozen=True)
class QueueView:
    """The queue of core/queue/queue with the rows of its waiting runs, in order. The run whose turn it is now is
    Snapshot.busy, not in here."""

    order: Order = Order()
    waiting: tuple[tuple[RunRow, QueuedRun], ...] = ()

    def name_of(self, rows: Sequence[RunRow], run_id: str | None) -> str:
        """Return the run's name; "?" if it is not among rows."""
        return next((row.name for row in rows if row.id == run_id), "?")


@dataclass(frozen=True)
class Snapshot:
    """The whole workspace at one moment.

    busy: the run at work, or about to start. shown: the run of the Train page: busy, else the one that the queue waits
    for, else the newest that has begun. making: rows that a model of this PC writes from a document, now or next.
    """

    rows: tuple[RunRow, ...]
    busy: RunRow | None
    shown: RunView | None
    chat: ChatState
    queue: QueueView = QueueView()
    making: MakingProgress | None = None
    downloads: tuple[Download, ...] = ()  # oldest request first
    left: tuple[LeftRun, ...] = ()  # runs that ended unexpectedly, newest first

    @property
    def has_waiting(self) -> bool:
        """True if a run, or rows from a document, wait behind the run at work."""
        return bool(self.queue.waiting) or (self.making is not None and self.making.stage == "waiting")

    @property
    def ended(self) -> RunRow | None:
        """The run that ended last after the one at work was created, for a link to its result. None if nothing is at
        work, or no run has ended since. Runs that were removed from the queue before they began do not count."""
        rows = (row for row in self.rows if row.status.state in TERMINAL and not row.was_dropped)
        after = (row for row in rows if self.busy and row.status.since >= self.busy.created)
        return max(after, key=lambda row: row.status.since, default=None)

    @property
    def in_use(self) -> Message | None:
        """The work that uses the GPU or CPU, so that no model can be loaded for the chat; None while they are free."""
        if self.making and self.making.stage != "waiting":
            return msg("chat_page.making")
        return msg("chat_page.training", name=self.busy.name) if self.busy else None

    def followed(self, requested: object) -> tuple[str, bool]:
        """Return the id of the run that a page polls, and whether it is at work.

        requested: from a browser, so it may be any JSON: a run id, or "" for the run that the Train page shows. The id
        is "" for anything that cannot be one.
        """
        run_id = self.shown.row.id if requested == "" and self.shown else requested
        at_work = any(row.id == run_id and row.status.state in BUSY for row in self.rows)
        return (run_id if isinstance(run_id, str) else ""), at_work


class Snapshots:
    """Takes the snapshots of the workspace that all pages are drawn from, and reads what is shown of one run; files are
    read again only when they have changed."""

    def __init__(
        self,
        runs: Runs,
        chat: ChatClient,
        exports: Exports,
        downloads: Downloads | None = None,
        makings: Makings | None = None,
    ):
        """Begin with nothing read."""
        self._runs, self._chat, self._exports, self._downloads = runs, chat, exports, downloads
        self._makings = makings
        self._queue = Queue(runs.workspace)
        self._guard = threading.Lock()
        self._taken_at = float("-inf")
        self._moment: Snapshot | None = None
        self._rows: dict[str, tuple[tuple[object, ...], RunRow]] = {}
        self._events: dict[str, tuple[tuple[int, ...], list[JsonObject]]] = {}

    def now(self, fresh: bool = False) -> Snapshot:
        """Return the newest snapshot, at most FRESH_S old. fresh: take a new one, so that the effect of a button is
        seen at once."""
        with self._guard:
            if fresh or self._moment is None or time.monotonic() - self._taken_at > FRESH_S:
                self._moment = self._take()
                self._taken_at = time.monotonic()
            return self._moment

    def refuse_while_in_use(self) -> None:
        """Raise ChatError while a run trains or is about to start, or rows are written: they need the device."""
        if in_use := self.now(fresh=True).in_use:
            raise ChatError(in_use)

    def view(self, run_id: str | None) -> RunView | None:
        """Return all that is shown of a run; None if there is no such run, or it cannot be read."""
        try:
            run = self._runs.get(run_id or "")
            with self._guard:
                return self._view(run, self._row(run))
        except (GarageError, OSError, TypeError):
            return None

    def exports(self, run_id: str) -> tuple[Sequence[ExportResult], Sequence[tuple[ExportRequest, ExportStatus]]]:
        """Return the finished exports of a run, and the requests without a finished export, each with its newest
        attempt."""
        return self._exports.list(run_id), self._exports.attempts(run_id)

    def _take(self) -> Snapshot:
        """Read the state of all runs, queue, chat and downloads, and choose the run to show: the one at work, one that
        waits to go on, or the newest."""
        runs_by_id = {}
        for run in self._runs.list():
            with suppress(OSError):  # deleted meanwhile
                runs_by_id[run.id] = run, self._row(run)
        rows = [row for _, row in runs_by_id.values()]
        self._rows = {row.id: self._rows[row.id] for row in rows}
        order = self._queue.read()
        queued = sorted((row for row in rows if row.status.state == State.QUEUED), key=lambda row: row.status.since)
        waiting = {row.id: row for row in queued if row.launcher == "app"}
        turn = first(order, list(waiting), time.time())
        active = (
            row
            for row in rows
            if row.status.state in ACTIVE or (row.status.state == State.QUEUED and row.id not in waiting)
        )
        busy = next(active, None) or waiting.get(turn or "")
        behind = tuple((waiting[e.run], e) for e in arranged(order, list(waiting)) if waiting[e.run] is not busy)
        awaited = {pause.run for pause in (order.game, order.hold) if pause}
        chosen = (
            busy
            or next((row for row in rows if row.id in awaited), None)
            or next((row for row in rows if not (row.id in waiting or row.was_dropped or row.label.archived)), None)
        )
        view = self._view(*runs_by_id[chosen.id]) if chosen else None
        left = tuple(left_run for run, row in runs_by_id.values() if (left_run := self._left(run, row)))
        downloads = tuple(self._downloads.rows()) if self._downloads else ()
        making = self._makings.queued() if self._makings else None
        return Snapshot(tuple(rows), busy, view, self._chat.state(), QueueView(order, behind), making, downloads, left)

    def _left(self, run: RunFolder, row: RunRow) -> LeftRun | None:
        """Return the run as one that the page offers to resume: it was interrupted, or paused because the app closed.
        None for any other run, and for one that a person has dismissed or that was deleted."""
        try:
            return left_run(run, row.status)
        except OSError:
            return None

    def _row(self, run: RunFolder) -> RunRow:
        """Return the run's row, read again only if one of its files has changed."""
        # The stamps come first, so that a file that changes meanwhile is read again next time.
        stamps = [
            files.stamp(run.path / name)
            for name in ("state.json", "label.json", "metrics.jsonl", "checkpoints", evaluated.FILE, tested.FILE)
        ]
        status = self._runs.status(run)
        stamp, cached = (*stamps, status.state), self._rows.get(run.id)
        if cached is None or cached[0] != stamp:
            cached = (stamp, _read_row(run, status))
            self._rows[run.id] = cached
        return cached[1]

    def _view(self, run: RunFolder, row: RunRow) -> RunView:
        """Read all that a run's page shows, from its folder and row.

        recipe: None if it cannot be read. log_tail: the last LOG_LINES lines if the run failed or was interrupted, else
        "". waits_for: "export" or "making" while such work keeps a queued run waiting, else "".
        """
        try:
            recipe = run.recipe()
        except GarageError:
            recipe = None
        log = run.log_tail(LOG_LINES) if row.status.state in (State.FAILED, State.INTERRUPTED) else ""
        waits_for = ""
        if row.status.state == State.QUEUED:
            is_making = self._makings is not None and self._makings.is_at_work()
            waits_for = "export" if self._exports.has_live_worker() else "making" if is_making else ""
        return RunView(row, str(run.path), recipe, run.facts(), self._events_of(run), log, waits_for)

    def _events_of(self, run: RunFolder) -> list[JsonObject]:
        """Return the events of a run. The file is read again only when it has changed."""
        stamp = files.stamp(run.path / "events.jsonl")
        cached = self._events.get(run.id)
        if cached is None or cached[0] != stamp:
            if cached is None and len(self._events) >= KEPT_EVENTS:
                self._events.pop(next(iter(self._events)))
            cached = self._events[run.id] = (stamp, run.events())
        return cached[1]


def _read_row(run: RunFolder, status: Status) -> RunRow:
    """Return a run's row of the table, read from its files; unknown values are "" or None."""
    recipe: Recipe | None
    try:
        recipe = run.recipe()
    except GarageError:
        recipe = None
    facts, newest = run.facts(), run.newest_metrics()
    return RunRow(
        id=run.id,
        name=run.name,
        status=status,
        created=facts.created,
        method=recipe.adapter.method if recipe else "",
        r=recipe.adapter.r if recipe else 0,
        model=recipe.model.id if recipe else "",
        data=(facts.data and facts.data.name) or (recipe.data.source if recipe else ""),
        is_reward=bool(recipe and recipe.rewards),
        last_measure=_last_or_none(measures(newest, "train")),
        bytes_used=_bytes(run.bytes_used),
        checkpoints=tuple(folder.name for folder in run.checkpoints()),
        launcher=facts.launcher,
        evaluated=_evaluated(run, facts, newest),
        seconds=time_left.training_seconds(facts, status),
        course=course(run),
        label=Label.from_run(run),
        spare_bytes=_bytes(lambda: spare_bytes(run)),
        right=evaluation.right if (evaluation := evaluated.read(run)) else None,
        lost=len(tests.lost) if (tests := tested.read(run)) else 0,
    )


def _last_or_none(values: Sequence[float]) -> float | None:
    return values[-1] if values else None


def _evaluated(run: RunFolder, facts: RunFacts, newest: Sequence[JsonObject]) -> float | None:
    """Return the best validation loss, or the held-out reward of the adapter that was kept; of a run at work the newest
    one; None without any."""
    if facts.best_eval_loss is not None:
        return facts.best_eval_loss
    if facts.best_reward is not None:
        return _last_or_none(measures(run.all_metrics(), "eval", facts.adapter_step))
    return _last_or_none(measures(newest, "eval"))


def course(run: RunFolder) -> tuple[float, ...]:
    """Return the loss (or reward) at up to COURSE_POINTS places spread evenly over metrics.jsonl, however long the file
    is; () without one."""
    values: dict[int, float] = {}
    try:
        with open(run.path / "metrics.jsonl", "rb") as file:
            size = file.seek(0, 2)
            for part in range(COURSE_POINTS):
                file.seek(part * max(0, size - COURSE_BYTES) // (COURSE_POINTS - 1))
                for line in file.read(COURSE_BYTES).split(b"\n"):
                    step, value = _step_and_measure(line)
                    if value is not None:
                        values[step] = value
                        break
    except OSError:
        return ()
    return tuple(float(f"{values[step]:.3g}") for step in sorted(values))


def _step_and_measure(line: bytes) -> tuple[int, float | None]:
    """Return the step and its loss (or reward) from a line of metrics.jsonl; (0, None) unless it is a complete line of
    a training step."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # RecursionError: ten thousand brackets
        return 0, None
    is_step = isinstance(record, dict) and record.get("kind") == "train" and isinstance(record.get("step"), int)
    return (record["step"], measure(record)) if is_step else (0, None)


def _bytes(count: Callable[[], int]) -> int:
    """Return count(); 0 if a file is deleted meanwhile."""
    try:
        return count()
    except OSError:  # a file was deleted while it was counted
        return 0
