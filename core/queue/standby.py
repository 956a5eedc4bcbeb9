"""The standby: a process that imports torch and the libraries while a page is open, and becomes the next run's worker.
No torch here.

Reading the libraries is half of the time from Start to the first step on a small model. The standby has no model, no
context on a card and no lease, and has written nothing (core/training/standby). It is started once a page has been open
for OPEN_S and nothing trains or is timed, and ends with the app, as the page is closed, after IDLE_S without a touch of
it, and where RAM is short. A run that would be started otherwise than it was (another environment, other cores, another
folder) is started anew, and so is one that begins before it is ready.
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
from typing import Any
from uuid import uuid4

import psutil

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
OPEN_S = 5.0  # of a page, before it is begun: the first paint and the first plan come first
CLOSED_S = 150.0  # without a beat of a page: a browser lets one that is hidden beat once a minute
IDLE_S = 1800.0  # as the chat's
LEAST_TO_BEGIN, LEAST_TO_KEEP = 2 << 30, 1 << 30  # bytes of RAM that programs can still get, what waits apart
END_S = 0.5  # it has nothing to put away


@dataclass(frozen=True)
class Circumstances:
    """What libraries and threads take from how a process is started."""

    environment: dict[str, str]
    cores: frozenset[int]

    @classmethod
    def now(cls, of_device: dict[str, str]) -> Circumstances:
        """of_device: as core/runs/process gives it."""
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        return cls(worker_environment() | of_device, frozenset(cores))


class Waiting:
    """One such process. mark: a word of its command line, by which it is known as the worker of its run."""

    def __init__(self, workspace: Workspace, of_device: dict[str, str]):
        self.mark, self.given, self.of_device = uuid4().hex, Circumstances.now(of_device), of_device
        self.said: dict[str, Any] = {}
        self._root = workspace.root
        # What libraries say as they are read belongs into the run's train.log, and into no file before there is one.
        with tempfile.TemporaryFile() as unsaid:
            self._child = Child(
                "core.training.standby.standby_worker", self.mark, log=unsaid, cwd=self._root, environment=of_device
            )
        self._child.listen(self.said.update, lambda code: None)

    @property
    def held_bytes(self) -> int | None:
        """What would be free without it; None until it is ready."""
        return self.said.get("ready")

    @property
    def pid(self) -> int | None:
        """Of the process itself, which on Windows is not the one that was started; None until it is ready."""
        return self.said.get("pid")

    @property
    def is_over(self) -> bool:
        return self._child.process.poll() is not None

    def become(self, run: RunFolder) -> subprocess.Popen[bytes]:
        """The worker of run, which from then on depends on nobody."""
        order = {"log": str(run.path / "train.log"), "arguments": ["--workspace", str(self._root), run.id]}
        self._child.send(**order)
        self._child.close()
        return self._child.process

    def end(self) -> None:
        self._child.end(END_S)


class Standby:
    """The supervisor's thread looks, takes and closes; pages say that they are there, from any thread.

    machine: the newest; is_timing: whether a step is being timed, which must have the PC for itself; free_bytes: RAM
    that programs can still get.
    """

    def __init__(
        self,
        workspace: Workspace,
        machine: Callable[[], Machine],
        is_timing: Callable[[], bool] = lambda: False,
        # no card is asked, and kept awake by it
        free_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available,
        steady: Callable[[], float] = time.monotonic,
    ):
        self._workspace, self._machine, self._is_timing, self._free_bytes = workspace, machine, is_timing, free_bytes
        self._steady = steady
        self._guard = threading.Lock()
        self._waiting: Waiting | None = None
        self._has_failed = False
        self._looked_at = self._opened_at = self._seen_at = self._touched_at = float("-inf")

    def seen(self, touched: bool = False) -> None:
        """A page is open; touched: somebody has just done something on it."""
        now = self._steady()
        if now - self._seen_at > CLOSED_S:
            self._opened_at = now
        self._seen_at = now
        if touched:
            self._touched_at = now

    @property
    def held_bytes(self) -> int | None:
        """Of RAM; None where nothing waits."""
        waiting = self._waiting
        return waiting.held_bytes if waiting else None

    def for_a_run(self, machine: Machine) -> Machine:
        """machine as the next run has it: what waits becomes that run, or ends for it."""
        held, free = self.held_bytes, machine.ram_free_bytes
        return machine.model_copy(update={"ram_free_bytes": free + held}) if held and free is not None else machine

    def look(self, is_free: Callable[[], bool]) -> None:
        """Begin, keep or end it. is_free: whether nothing trains, and game mode keeps nothing quiet."""
        now = self._steady()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        with self._guard:
            waiting = self._waiting
            if waiting and waiting.is_over:
                log.warning(
                    "what was to wait for a run ended: %s; none is begun again",
                    waiting.said.get("failed", "without a word"),
                )
                self._waiting, self._has_failed = None, True
            elif waiting and not (self._is_wanted(is_free, now) and self._still_fits(waiting)):
                self._end()
            elif (
                waiting is None
                and not self._has_failed
                and now - self._opened_at >= OPEN_S
                and self._is_wanted(is_free, now)
            ):
                if not self._is_timing() and self._free_bytes() >= LEAST_TO_BEGIN:
                    self._begin()

    def _begin(self) -> None:
        nvidia = self._machine().nvidia
        try:
            self._waiting = Waiting(self._workspace, devices.environment_of(devices.nearest(None, nvidia), nvidia))
        except OSError as error:
            log.warning("nothing can wait for a run: %s", error)
            self._has_failed = True

    def _is_wanted(self, is_free: Callable[[], bool], now: float) -> bool:
        is_open = now - self._seen_at < CLOSED_S and now - self._touched_at < IDLE_S
        return is_open and is_free() and preferences.read(self._workspace).keep_ready

    def _still_fits(self, waiting: Waiting) -> bool:
        if waiting.held_bytes is None and self._is_timing():
            return False
        return self._free_bytes() >= LEAST_TO_KEEP and waiting.given == Circumstances.now(waiting.of_device)

    def fitting(self, run: RunFolder) -> Waiting | None:
        """What is ready to become the worker of run, and no more this one's; whatever else waits ends."""
        with self._guard:
            waiting = self._waiting
            if waiting and waiting.held_bytes is not None and not waiting.is_over:
                if waiting.given == Circumstances.now(run_process.environment(run)):
                    self._waiting = None
                    return waiting
            self._end()
        return None

    def close(self) -> None:
        with self._guard:
            self._has_failed = True  # the supervisor may look once more
            self._end()

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting:
            waiting.end()
