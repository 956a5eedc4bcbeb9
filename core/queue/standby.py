"""The standby: a process that imports torch and the libraries while a page is open, and becomes the next run's worker.
No torch here.

Importing the libraries takes half of the time from Start to the first step on a small model. The standby has no model,
no context on a GPU and no lease, and writes nothing (core/training/standby). It starts once a page has been open for
OPEN_S and nothing trains or is being timed, and ends with the app, with the last page, after IDLE_S without input, and
if RAM is short. A run that needs another environment, other cores or another folder gets a new process, and so does one
that starts before the standby is ready.
"""

from __future__ import annotations

import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

import psutil

from core.files import JsonObject
from core.runs import process as run_process
from core.runs.folder import RunFolder
from core.system import devices
from core.system.lines import Child
from core.system.machine import Machine
from core.system.processes import worker_environment
from core.workspace import preferences
from core.workspace.folder import Workspace

log = logging.getLogger("lora_garage.standby")

LOOK_S = 0.5
OPEN_S = 5.0  # a page is open before the standby starts, after the first paint and plan
CLOSED_S = 150.0  # without a signal of a page: browsers allow hidden pages one a minute
IDLE_S = 1800.0  # as for the chat
MIN_FREE_TO_BEGIN, MIN_FREE_TO_KEEP = 2 << 30, 1 << 30  # bytes of available RAM, not counting the standby's
END_S = 0.5  # it has nothing to save


@dataclass(frozen=True)
class StartConditions:
    """The conditions under which a process was started, as far as libraries and threads depend on them."""

    environment: dict[str, str]
    cores: frozenset[int]

    @classmethod
    def now(cls, device_environment: dict[str, str]) -> StartConditions:
        """The conditions of a process started now. device_environment: from core/runs/process."""
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        return cls(worker_environment() | device_environment, frozenset(cores))


class StandbyProcess:
    """One standby process. mark: a word of its command line, by which it is recognized as its run's worker."""

    def __init__(self, workspace: Workspace, device_environment: dict[str, str]):
        """Start the process, its early output in a temporary file, and collect what it reports."""
        self.mark, self.start_conditions, self.device_environment = (
            uuid4().hex,
            StartConditions.now(device_environment),
            device_environment,
        )
        self.report: JsonObject = {}
        self._root = workspace.root
        # Output of imports belongs to the run's train.log, and to no file before there is a run.
        with tempfile.TemporaryFile() as early_log:
            self._child = Child(
                "core.training.standby.standby_worker",
                self.mark,
                log=early_log,
                cwd=self._root,
                environment=device_environment,
            )
        self._child.listen(self.report.update, lambda code: None)

    @property
    def held_bytes(self) -> int | None:
        """RAM that would be free without it; None until it is ready."""
        return self.report.get("ready")

    @property
    def pid(self) -> int | None:
        """The worker's own process id, which on Windows is not the started process's; None until it is ready."""
        return self.report.get("pid")

    @property
    def is_over(self) -> bool:
        return self._child.process.poll() is not None

    def become(self, run: RunFolder) -> subprocess.Popen[bytes]:
        """Make it the worker of run, which no longer ends with the app."""
        order = {"log": str(run.path / "train.log"), "arguments": ["--workspace", str(self._root), run.id]}
        self._child.send(**order)
        self._child.close()
        return self._child.process

    def end(self) -> None:
        self._child.end(END_S)


class Standby:
    """Starts, keeps and ends the standby process. The supervisor's thread calls look, take_for and close; pages call
    note_page from any thread."""

    def __init__(
        self,
        workspace: Workspace,
        machine: Callable[[], Machine],
        is_timing: Callable[[], bool] = lambda: False,
        # no call to the GPU, which would keep it awake
        free_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available,
        steady: Callable[[], float] = time.monotonic,
    ):
        """Start nothing yet. machine: returns the newest state of the PC; is_timing: whether a step is being timed,
        which needs the whole PC; free_bytes: returns available RAM; steady: a monotonic clock."""
        self._workspace, self._machine, self._is_timing, self._free_bytes = workspace, machine, is_timing, free_bytes
        self._steady = steady
        self._guard = threading.Lock()
        self._waiting: StandbyProcess | None = None
        self._has_failed = False
        self._looked_at = self._opened_at = self._seen_at = self._touched_at = float("-inf")

    def note_page(self, touched: bool = False) -> None:
        """Record that a page is open (again, if none was for CLOSED_S); touched: the user has just done something on
        it."""
        now = self._steady()
        if now - self._seen_at > CLOSED_S:
            self._opened_at = now
        self._seen_at = now
        if touched:
            self._touched_at = now

    @property
    def held_bytes(self) -> int | None:
        """RAM of the standby; None without one."""
        waiting = self._waiting
        return waiting.held_bytes if waiting else None

    def machine_for_run(self, machine: Machine) -> Machine:
        """The PC's state for the next run, which gets the standby's RAM: it becomes that run, or ends for it."""
        held, free = self.held_bytes, machine.ram_free_bytes
        return machine.model_copy(update={"ram_free_bytes": free + held}) if held and free is not None else machine

    def look(self, is_free: Callable[[], bool]) -> None:
        """Every LOOK_S, start the standby once a page is open for OPEN_S and RAM allows it, or end it if it is not
        needed or does not fit any more. One that ended by itself is not started again. is_free: whether nothing trains,
        and game mode is not active."""
        now = self._steady()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        with self._guard:
            waiting = self._waiting
            if waiting and waiting.is_over:
                log.warning(
                    "the standby ended: %s; no other is started",
                    waiting.report.get("failed", "without a reason"),
                )
                self._waiting, self._has_failed = None, True
            elif waiting and not (self._is_needed(is_free, now) and self._still_fits(waiting)):
                self._end()
            elif (
                waiting is None
                and not self._has_failed
                and now - self._opened_at >= OPEN_S
                and self._is_needed(is_free, now)
            ):
                if not self._is_timing() and self._free_bytes() >= MIN_FREE_TO_BEGIN:
                    self._begin()

    def _begin(self) -> None:
        """Start the standby process on the card of the next run. After a failure none is started again."""
        nvidia = self._machine().nvidia
        try:
            self._waiting = StandbyProcess(
                self._workspace, devices.environment_of(devices.nearest(None, nvidia), nvidia)
            )
        except OSError as error:
            log.warning("the standby could not be started: %s", error)
            self._has_failed = True

    def _is_needed(self, is_free: Callable[[], bool], now: float) -> bool:
        """Return whether a page is open and in use, is_free() holds, and the person wants a process kept ready."""
        is_open = now - self._seen_at < CLOSED_S and now - self._touched_at < IDLE_S
        return is_open and is_free() and preferences.read(self._workspace).keep_ready

    def _still_fits(self, waiting: StandbyProcess) -> bool:
        """Return whether the process may stay: there is RAM, its conditions still hold, and no step is timed while it
        loads."""
        if waiting.held_bytes is None and self._is_timing():
            return False
        return self._free_bytes() >= MIN_FREE_TO_KEEP and waiting.start_conditions == StartConditions.now(
            waiting.device_environment
        )

    def take_for(self, run: RunFolder) -> StandbyProcess | None:
        """Return the ready standby, if it was started under run's conditions, and forget it; any other is ended, and
        None returned."""
        with self._guard:
            waiting = self._waiting
            if waiting and waiting.held_bytes is not None and not waiting.is_over:
                if waiting.start_conditions == StartConditions.now(run_process.environment(run)):
                    self._waiting = None
                    return waiting
            self._end()
        return None

    def close(self) -> None:
        """End the standby, and start no other."""
        with self._guard:
            self._has_failed = True  # the supervisor may call look once more
            self._end()

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.end()
