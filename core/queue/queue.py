"""The queue: the runs that wait in the app, in `<workspace>/line.json`.

    {"v": 1, "runs": [{"run": id, "not_before": seconds, "now": false}, ...], "hold": {...}, "game": {...},
    "ignore_game": false, "app": {"pid": 1, "started": seconds}}

A run is in the queue because its own state.json says that it waits and its run.json that the app is to start it. This
file holds only the order, the start times, and the reasons for which the queue waits, so that a missing or damaged one
loses no run: runs that it does not name are at the end, in the order in which they were queued. Every change (page,
command, supervisor) goes through `Queue`, which holds line.lock from reading to replacing. Times are seconds since
1970, so that they also pass while the PC sleeps.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Literal

import psutil
from filelock import FileLock, Timeout
from pydantic import Field

from core import files
from core.errors import BusyError, RecipeError, RunError
from core.files import JsonObject
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.values import Frozen
from core.workspace.folder import Workspace

LOCK_S = 5.0
Seconds = Annotated[float, Field(ge=0, lt=4e9)]  # since 1970; values outside are no valid times
TIME = re.compile(r"([01]?\d|2[0-3])[:：.]([0-5]\d)")


class QueuedRun(Frozen):
    """One run's place. now: the user started or resumed it while nothing was running, so a hold does not delay it."""

    run: str
    not_before: Seconds | None = None
    now: bool = False


class Hold(Frozen):
    """The queue waits for the user. run: the one that was paused."""

    why: Literal["restart", "person", "paused"]
    since: Seconds
    run: str | None = None


class Game(Frozen):
    """Game mode keeps the device free. run: the one that it paused and will resume; until: when, if known."""

    why: Message
    since: Seconds
    run: str | None = None
    until: Seconds | None = None


class App(Frozen):
    """The process whose supervisor works on the queue."""

    pid: int
    started: Seconds


class Order(Frozen):
    """The contents of line.json. ignore_game: the user let a run go on in spite of game mode, until no program needs
    the device."""

    v: int = 1
    runs: tuple[QueuedRun, ...] = ()
    hold: Hold | None = None
    game: Game | None = None
    ignore_game: bool = False
    app: App | None = None

    def with_changes(self, **changes: object) -> Order:
        """Return a copy of the order with these fields replaced; nothing is written to the file."""
        return self.model_copy(update=changes)

    @property
    def app_is_open(self) -> bool:
        """Return whether the app that last worked on this queue is still running, by its pid and start time."""
        try:
            return self.app is not None and abs(psutil.Process(self.app.pid).create_time() - self.app.started) < 2
        except psutil.Error:
            return False


def arranged(order: Order, waiting: Sequence[str]) -> tuple[QueuedRun, ...]:
    """Return the waiting runs in their order: as order.runs has them, then those that it lacks. waiting: their ids, the
    longest waiting first."""
    waiting_ids = set(waiting)
    named = tuple(entry for entry in order.runs if entry.run in waiting_ids)
    named_ids = {entry.run for entry in named}
    return named + tuple(QueuedRun(run=run) for run in waiting if run not in named_ids)


def first(order: Order, waiting: Sequence[str], now: float) -> str | None:
    """Return the id of the run whose turn it is if the device is free; None while game mode holds the queue, the queue
    waits for the user, or no run is due.

    A run marked `now` comes first, even during a hold. A run whose time has not come does not delay those behind it.
    After a restart of the app, a run starts during the hold only if its set time lies after the restart, because the
    user chose that time.
    """
    if order.game:
        return None
    entries = arranged(order, waiting)
    if at_once := next((entry.run for entry in entries if entry.now), None):
        return at_once
    due = [entry for entry in entries if entry.not_before is None or entry.not_before <= now]
    if order.hold:
        due = [
            e
            for e in due
            if order.hold.why == "restart" and e.not_before is not None and e.not_before > order.hold.since
        ]
    return next((entry.run for entry in due), None)


def time_of_day(text: str | None, now: float) -> float | None:
    """Return the next moment, in seconds since 1970, of a local time such as "23:00"; None for an empty text. Raises
    RecipeError for anything else."""
    if text is None or not text.strip():
        return None
    match = TIME.fullmatch(text.strip())
    if match is None:
        raise RecipeError("queue.bad_time", found=text.strip()[:40])
    local_now = datetime.fromtimestamp(now)
    moment = local_now.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
    return (moment if moment > local_now else moment + timedelta(days=1)).timestamp()


class Queue:
    """Reads and changes line.json.

    Each change raises BusyError if another process keeps its lock, RunError if the file cannot be written; both leave
    it as it was.
    """

    def __init__(self, workspace: Workspace):
        self.path = workspace.root / "line.json"
        self._lock = FileLock(workspace.root / "line.lock")

    def read(self) -> Order:
        """Return the queue's order; an empty one if its file is missing or unreadable."""
        return files.read_model(Order, self.path) or Order()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, so that no other process changes the queue during the block. Raises BusyError, RunError."""
        try:
            self._lock.acquire(timeout=LOCK_S, poll_interval=0.02)
        except Timeout:
            raise BusyError("queue.locked") from None
        except OSError as error:
            raise RunError("queue.cannot_write", file=self.path, reason=error.strerror or str(error)) from error
        try:
            yield
        finally:
            self._lock.release()

    def change(self, make: Callable[[Order], Order]) -> Order:
        """Write the order that make returns for the stored one, under the lock, and return it; an equal one is not
        written. Raises BusyError, RunError, and what make raises."""
        with self.locked():
            try:
                old = files.read_model(Order, self.path, for_update=True) or Order()
                if (new := make(old)) != old:
                    files.replace(self.path, new.model_dump_json(indent=1) + "\n")
            except OSError as error:
                raise RunError("queue.cannot_write", file=self.path, reason=error.strerror or str(error)) from error
            return new

    def put(self, **changes: object) -> Order:
        """Change these fields of the order, and return it. Raises BusyError, RunError."""
        return self.change(lambda order: order.with_changes(**changes))

    # ---- places ---------------------------------------------------------------------------------------------------
    def add(
        self,
        run_id: str,
        waiting: Sequence[str],
        not_before: float | None = None,
        now: bool = False,
        front: bool = False,
    ) -> Order:
        """Add a run, or move it, to the end of the queue, or to its front; return the new order.

        now: the run goes to the front and starts in spite of a hold, though not during game mode. not_before: seconds
        since 1970. The hold ends if no other run waits.
        """

        def with_run(order: Order) -> Order:
            """Return the order with the run at its place, and without a hold if no other run waits."""
            others = tuple(entry for entry in arranged(order, waiting) if entry.run != run_id)
            entry = QueuedRun(run=run_id, not_before=not_before, now=now)
            runs = (entry, *others) if front or now else (*others, entry)
            return order.with_changes(runs=runs, hold=order.hold if others else None)

        return self.change(with_run)

    def forget(self, run_id: str) -> Order:
        """Remove a run from the queue, if it is there, and return the order. Raises BusyError, RunError."""
        return self.change(
            lambda order: order.with_changes(runs=tuple(entry for entry in order.runs if entry.run != run_id))
        )

    def move(self, run_id: str, way: int, waiting: Sequence[str]) -> Order:
        """Move a run by one place and return the new order. way: -1 towards the front, 1 towards the end; at either end
        nothing happens. Raises RunError for a run that does not wait."""

        def with_moved_run(order: Order) -> Order:
            """Return the order with the run moved by one place; at the front or the end it stays. Raises RunError for a
            run that does not wait."""
            entries = list(arranged(order, waiting))
            place = next((i for i, entry in enumerate(entries) if entry.run == run_id), None)
            if place is None:
                raise RunError("queue.not_in_queue", run=run_id)
            entries.insert(min(max(0, place + way), len(entries) - 1), entries.pop(place))
            return order.with_changes(runs=tuple(entries))

        return self.change(with_moved_run)

    def set_time(self, run_id: str, not_before: float | None, waiting: Sequence[str]) -> Order:
        """Set when a run may start, in seconds since 1970; None: as soon as its turn comes. Returns the new order.
        Raises RunError for a run that does not wait."""

        def with_start_time(order: Order) -> Order:
            """Return the order with the run's earliest start time set, and without its mark to start at once. Raises
            RunError for a run that does not wait."""
            if run_id not in waiting:
                raise RunError("queue.not_in_queue", run=run_id)
            entries = arranged(order, waiting)
            at = {"not_before": not_before, "now": False}
            return order.with_changes(
                runs=tuple(entry.model_copy(update=at) if entry.run == run_id else entry for entry in entries)
            )

        return self.change(with_start_time)


Action = Literal["list", "up", "down", "remove", "at", "go", "hold"]


def listing(space: Workspace) -> JsonObject:
    """Return the object that `queue --json` prints: the runs in their order, the reasons for which the queue waits,
    `hold` and `game` (null: none), and whether the app is open."""
    runs, order = Runs(space), Queue(space).read()
    rows = [
        {"place": place, "run": entry.run, "name": runs.get(entry.run).name, "not_before": entry.not_before}
        for place, entry in enumerate(arranged(order, [run.id for run in runs.waiting()]), 1)
    ]
    hold = order.hold.model_dump(mode="json") if order.hold else None
    game = order.game.model_dump(mode="json") if order.game else None
    return {"runs": rows, "hold": hold, "game": game, "app_is_open": order.app_is_open}


def describe(space: Workspace) -> list[Message]:
    """Return the queue as messages for the command line: each waiting run with its place and a later start time, or
    that the queue is empty; why it waits for the user or game mode; and that the app is closed, if runs wait for it."""
    state, order, messages = listing(space), Queue(space).read(), []
    for row in state["runs"]:
        at = row["not_before"] or 0.0
        when = (
            msg("queue.not_before", time=time.strftime("%m-%d %H:%M", time.localtime(at))) if at > time.time() else ""
        )
        messages.append(msg("queue.place", **(row | {"when": when})))
    messages = messages or [msg("queue.empty")]
    if order.hold and state["runs"]:
        messages.append(msg(f"queue.held_{order.hold.why}", run=order.hold.run or ""))
    if order.game:
        messages.append(order.game.why)
    if state["runs"] and not order.app_is_open:
        messages.append(msg("queue.no_app"))
    return messages


def act(space: Workspace, action: Action, name: str | None, at: str | None) -> list[Message]:
    """Carry out an action of the `queue` command and return the messages to print.

    go: end the hold, so that waiting runs start; hold: start no more runs until then; list: describe the queue; remove:
    take the run out of the queue as stopped; up, down: move it by one place; at: let it start no earlier than the time
    of day `at`, or, for "now", as soon as its turn comes. Raises RunError for a run that does not wait, or a missing
    run or time, RecipeError for an invalid time.
    """
    queue = Queue(space)
    if action == "go":
        queue.put(hold=None)
        return [msg("queue.goes_on")]
    if action == "hold":
        queue.put(hold=Hold(why="person", since=time.time()))
        return [msg("queue.is_held")]
    if action == "list":
        return describe(space)
    run, waiting = _waiting_run(space, action, name)
    if action == "remove":
        run.request("stop")
        if not queue.read().app_is_open:  # otherwise it would wait until the app is opened again
            Runs(space).drop(run)
        queue.forget(run.id)
        return [msg("queue.taken_out", name=run.name)]
    if action == "at":
        if at is None:
            raise RunError("queue.needs_time")
        queue.set_time(run.id, None if at == "now" else time_of_day(at, time.time()), waiting)
    else:
        queue.move(run.id, -1 if action == "up" else 1, waiting)
    return describe(space)


def _waiting_run(space: Workspace, action: str, name: str | None) -> tuple[RunFolder, list[str]]:
    """Return the named run and the ids of all waiting runs, the longest waiting first. Raises RunError without a name,
    or if it does not wait."""
    runs = Runs(space)
    waiting = [run.id for run in runs.waiting()]
    if name is None:
        raise RunError("queue.needs_run", action=action)
    run = runs.find(name)
    if run.id not in waiting:
        raise RunError("queue.not_in_queue", run=run.id)
    return run, waiting


def create(space: Workspace, recipe: Recipe, facts: RunFacts, at: str | None) -> tuple[RunFolder, Message]:
    """Create a run at the end of the queue, for the app to train, not before the time of day `at`; return it and a
    message with its place. Raises RecipeError for an invalid time, BusyError, RunError."""
    runs, queue, not_before = Runs(space), Queue(space), time_of_day(at, time.time())
    with queue.locked():  # the app must not see it before its time is written
        waiting = [other.id for other in runs.waiting()]
        run = runs.create(recipe, "app", facts)
        queue.add(run.id, waiting, not_before)
    return run, msg("queue.added", name=run.name, place=len(waiting) + 1)
