"""A supervisor with clock, machine and workers that a test plays."""

from __future__ import annotations

import time

import pytest

from core.advice import plan
from core.queue.queue import Hold, Order, QueuedRun, arranged
from core.queue.supervisor import Supervisor
from core.queue.turns import OtherWork, Turns
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace

NOW = 1_000_000.0
HELD = Hold(why="restart", since=NOW - 100)


def order(*runs: str | QueuedRun, **changes: object) -> Order:
    return Order(runs=tuple(QueuedRun(run=run) if isinstance(run, str) else run for run in runs), **changes)


# ---- the supervisor, with workers that are scripted ----------------------------------------------
class FakeWorker:
    """A worker as the supervisor observes it: holds run.lock, writes states, obeys Stop and Pause."""

    pid = None

    def __init__(self, run: RunFolder):
        self.run, self.returncode = run, None
        self._lock = run.lock()
        self._lock.acquire(timeout=5)
        self._to(State.PREPARING)
        self._to(State.RUNNING)

    def _to(self, *states: State) -> None:
        for state in states:
            self.run.write_status(
                self.run.status().model_copy(update={"state": state, "since": time.time(), "pid": None})
            )

    def poll(self) -> int | None:
        asked = self.run.requested() if self.returncode is None else None
        if asked == "pause":
            self.end(State.PAUSING, State.PAUSED, code=4)
        elif asked:
            self.end(State.STOPPING, State.STOPPED, code=3)
        return self.returncode

    def end(self, *states: State, code: int = 0) -> None:
        self._to(*states)
        self._lock.release(force=True)
        self.returncode = code


class Rows(OtherWork):
    """Rows that are written from a document between the runs, by hand. since: when they were asked for."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.at_work = False

    def waits_since(self) -> float | None:
        return self.since

    def is_at_work(self) -> bool:
        return self.at_work

    def begin(self) -> None:
        self.since, self.at_work = None, True


class World:
    """A supervisor without its thread: look() does what the thread does four times a second."""

    def __init__(self, space: Workspace, monkeypatch: pytest.MonkeyPatch):
        self.space, self.workers = space, []
        self.programs: set[str] = set()
        self.exporting, self.rows = False, Rows()
        self.time = time.time()
        self._patch = monkeypatch
        self.open()

    def open(self) -> None:
        """Start the app, or start it again."""
        self._patch.setattr("core.queue.supervisor.spawn_worker", self._spawn)
        turns = Turns(
            self.space,
            programs=lambda: self.programs,
            clock=lambda: self.time,
            steady=lambda: self.time,
            exporting=lambda: self.exporting,
            other=self.rows,
        )
        self.supervisor = Supervisor(self.space, turns=turns)
        turns.app_started([run.id for run in self.supervisor.runs.waiting()])
        self.line = self.supervisor.queue

    def _spawn(self, workspace: Workspace, run: RunFolder) -> FakeWorker:
        self.workers.append(FakeWorker(run))
        return self.workers[-1]

    def submit(self, name: str, seed: int | None = None, **how: object) -> RunFolder:
        """Queue a run whose settings differ by name."""
        train = {"seed": ord(name[0]) if seed is None else seed}
        recipe = Recipe.parse({"name": name, "data": {"source": "sample:pirate_answers"}, "train": train})
        return self.supervisor.submit(plan.resolve(recipe, name, False), **how)

    def look(self, after_s: float = 0.0) -> str | None:
        """Look after_s later, and return the name of the run that is then training."""
        self.time += after_s
        for _ in range(3):  # one to see the end, one to begin the next, one more that must change nothing
            self.supervisor._look()
        return next((run.name for run in self.supervisor.runs.list() if run.status().state == State.RUNNING), None)

    def end(self, state: State = State.COMPLETED) -> None:
        worker = self.workers[-1]
        worker.end(state, code=0 if state == State.COMPLETED else 1)

    def waiting(self) -> list[str]:
        runs = self.supervisor.runs
        ids = [run.id for run in runs.waiting()]
        return [runs.get(entry.run).name for entry in arranged(self.line.read(), ids)]
