"""The queue: the runs that wait in the app, in `<workspace>/line.json`.

    {"v": 1, "runs": [{"run": id, "not_before": seconds, "now": false}, ...], "hold": {...}, "game": {...},
    "ignore_game": false,
     "sleep_at": seconds, "said": sentence, "app": {"pid": 1, "started": seconds}}

A run is in the queue because its own state.json says that it waits and its run.json that the app is to start it. This
file says no more than the order, from when on, and what the queue waits for, so one that is missing or damaged loses no
run: what it does not name stands at the end, in the order in which it was queued. Everybody who changes it (page,
command, supervisor) does so through `Queue`, which holds line.lock from reading to replacing. Times are seconds since
1970: a PC that slept has not missed them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import psutil
from filelock import FileLock, Timeout
from pydantic import Field

from core import files
from core.errors import BusyError, RecipeError, RunError
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.values import Frozen
from core.workspace.folder import Workspace

LOCK_S = 5.0
Seconds = Annotated[float, Field(ge=0, lt=4e9)]  # since 1970; what lies outside came from no clock
TIME = re.compile(r"([01]?\d|2[0-3])[:：.]([0-5]\d)")


class QueuedRun(Frozen):
    """One run's place. now: the person pressed Start or Go on while nothing was at work, so a hold does not keep it
    back."""

    run: str
    not_before: Seconds | None = None
    now: bool = False


class Hold(Frozen):
    """The queue waits for the person. run: the one that was paused or failed."""

    why: Literal["restart", "person", "paused", "failed"]
    since: Seconds
    run: str | None = None


class Game(Frozen):
    """Game mode keeps the device free. run: the one it paused and will let go on; until: when, where that is known."""

    why: Message
    since: Seconds
    run: str | None = None
    until: Seconds | None = None


class App(Frozen):
    """The process whose supervisor works the queue off."""

    pid: int
    started: Seconds


class Order(Frozen):
    """line.json. ignore_game: the person let a run go on all the same, until nobody wants the device any more."""

    v: int = 1
    runs: tuple[QueuedRun, ...] = ()
    hold: Hold | None = None
    game: Game | None = None
    ignore_game: bool = False
    sleep_at: Seconds | None = None
    said: Message | None = None
    app: App | None = None

    def but(self, **changes: Any) -> Order:
        return self.model_copy(update=changes)

    @property
    def app_is_open(self) -> bool:
        """Whether the app that last worked this queue off still lives."""
        try:
            return self.app is not None and abs(psutil.Process(self.app.pid).create_time() - self.app.started) < 2
        except psutil.Error:
            return False


def arranged(order: Order, waiting: Sequence[str]) -> tuple[QueuedRun, ...]:
    """Those that wait, in their order. waiting: their ids, the longest waiting first."""
    there = set(waiting)
    named = tuple(entry for entry in order.runs if entry.run in there)
    known = {entry.run for entry in named}
    return named + tuple(QueuedRun(run=run) for run in waiting if run not in known)


def first(order: Order, waiting: Sequence[str], now: float) -> str | None:
    """The run whose turn it is, were the device free; None while the queue waits for the person, for game mode, or for
    a time.

    A run whose time has not come does not keep back those behind it. One that was to start at a set time does so
    although the app was restarted meanwhile, because that was said.
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


def time_of_day(said: str | None, now: float) -> float | None:
    """ "23:00" as the next moment at which clocks here show it; None for nothing. Raises RecipeError for anything
    else."""
    if said is None or not said.strip():
        return None
    found = TIME.fullmatch(said.strip())
    if found is None:
        raise RecipeError("queue.bad_time", found=said.strip()[:40])
    here = datetime.fromtimestamp(now)
    wanted = here.replace(hour=int(found[1]), minute=int(found[2]), second=0, microsecond=0)
    return (wanted if wanted > here else wanted + timedelta(days=1)).timestamp()


class Queue:
    """Reads and changes line.json. Each change raises BusyError where another process keeps its lock, RunError where
    the file cannot be written; both leave it as it was."""

    def __init__(self, workspace: Workspace):
        self.path = workspace.root / "line.json"
        self._lock = FileLock(workspace.root / "line.lock")

    def read(self) -> Order:
        return files.read_model(Order, self.path) or Order()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the body runs nobody else adds, moves or takes out."""
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
        with self.locked():
            try:
                old = files.read_model(Order, self.path, to_change=True) or Order()
                if (new := make(old)) != old:
                    files.replace(self.path, new.model_dump_json(indent=1) + "\n")
            except OSError as error:
                raise RunError("queue.cannot_write", file=self.path, reason=error.strerror or str(error)) from error
            return new

    def put(self, **changes: Any) -> Order:
        return self.change(lambda order: order.but(**changes))

    # ---- places ---------------------------------------------------------------------------------------------------
    def add(
        self,
        run_id: str,
        waiting: Sequence[str],
        not_before: float | None = None,
        now: bool = False,
        front: bool = False,
    ) -> Order:
        """At the end, or in front. A hold of a queue in which nobody waits holds nobody, so it ends."""

        def added(order: Order) -> Order:
            others = tuple(entry for entry in arranged(order, waiting) if entry.run != run_id)
            entry = QueuedRun(run=run_id, not_before=not_before, now=now)
            runs = (entry, *others) if front or now else (*others, entry)
            return order.but(runs=runs, hold=order.hold if others else None, sleep_at=None, said=None)

        return self.change(added)

    def forget(self, run_id: str) -> Order:
        return self.change(lambda order: order.but(runs=tuple(entry for entry in order.runs if entry.run != run_id)))

    def move(self, run_id: str, way: int, waiting: Sequence[str]) -> Order:
        """way: -1 towards the front, 1 towards the end; at either end nothing happens."""

        def moved(order: Order) -> Order:
            entries = list(arranged(order, waiting))
            place = next((i for i, entry in enumerate(entries) if entry.run == run_id), None)
            if place is None:
                raise RunError("queue.not_in_queue", run=run_id)
            entries.insert(min(max(0, place + way), len(entries) - 1), entries.pop(place))
            return order.but(runs=tuple(entries))

        return self.change(moved)

    def set_time(self, run_id: str, not_before: float | None, waiting: Sequence[str]) -> Order:
        """None: as soon as its turn comes."""

        def timed(order: Order) -> Order:
            if run_id not in waiting:
                raise RunError("queue.not_in_queue", run=run_id)
            entries = arranged(order, waiting)
            at = {"not_before": not_before, "now": False}
            return order.but(
                runs=tuple(entry.model_copy(update=at) if entry.run == run_id else entry for entry in entries)
            )

        return self.change(timed)


Action = Literal["list", "up", "down", "remove", "at", "go", "hold"]


def listing(space: Workspace) -> dict[str, Any]:
    """What `queue --json` prints: the runs in their order, and what the queue waits for (null: for its turn only)."""
    runs, order = Runs(space), Queue(space).read()
    rows = [
        {"place": place, "run": entry.run, "name": runs.get(entry.run).name, "not_before": entry.not_before}
        for place, entry in enumerate(arranged(order, [run.id for run in runs.waiting()]), 1)
    ]
    hold = order.hold.model_dump(mode="json") if order.hold else None
    game = order.game.model_dump(mode="json") if order.game else None
    return {"runs": rows, "hold": hold, "game": game, "sleep_at": order.sleep_at, "app_is_open": order.app_is_open}


def sentences(space: Workspace) -> list[Message]:
    """The same for people."""
    found, order, said = listing(space), Queue(space).read(), []
    for row in found["runs"]:
        at = row["not_before"] or 0.0
        when = (
            msg("queue.not_before", time=time.strftime("%m-%d %H:%M", time.localtime(at))) if at > time.time() else ""
        )
        said.append(msg("queue.place", **(row | {"when": when})))
    said = said or [msg("queue.empty")]
    if order.hold and found["runs"]:
        said.append(msg(f"queue.held_{order.hold.why}", run=order.hold.run or ""))
    if order.game:
        said.append(order.game.why)
    if found["runs"] and not order.app_is_open:
        said.append(msg("queue.no_app"))
    return said


def act(space: Workspace, action: Action, name: str | None, at: str | None) -> list[Message]:
    """Raises RunError for a run that does not wait, RecipeError for a time that is none."""
    queue = Queue(space)
    if action == "go":
        queue.put(hold=None)
        return [msg("queue.goes_on")]
    if action == "hold":
        queue.put(hold=Hold(why="person", since=time.time()))
        return [msg("queue.is_held")]
    if action == "list":
        return sentences(space)
    run, waiting = _waiting_run(space, action, name)
    if action == "remove":
        run.request("stop")
        if not queue.read().app_is_open:  # nobody else would carry it out before the app is opened again
            Runs(space).drop(run)
        queue.forget(run.id)
        return [msg("queue.taken_out", name=run.name)]
    if action == "at":
        if at is None:
            raise RunError("queue.needs_time")
        queue.set_time(run.id, None if at == "now" else time_of_day(at, time.time()), waiting)
    else:
        queue.move(run.id, -1 if action == "up" else 1, waiting)
    return sentences(space)


def _waiting_run(space: Workspace, action: str, name: str | None) -> tuple[RunFolder, list[str]]:
    runs = Runs(space)
    waiting = [run.id for run in runs.waiting()]
    if name is None:
        raise RunError("queue.needs_run", action=action)
    run = runs.find(name)
    if run.id not in waiting:
        raise RunError("queue.not_in_queue", run=run.id)
    return run, waiting


def create(space: Workspace, recipe: Recipe, facts: RunFacts, at: str | None) -> tuple[RunFolder, Message]:
    """A run at the end of the queue, for the app to train."""
    runs, queue, not_before = Runs(space), Queue(space), time_of_day(at, time.time())
    with queue.locked():  # the app must not see it before its time is written
        waiting = [other.id for other in runs.waiting()]
        run = runs.create(recipe, "app", facts)
        queue.add(run.id, waiting, not_before)
    return run, msg("queue.added", name=run.name, place=len(waiting) + 1)
