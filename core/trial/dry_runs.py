"""Dry runs for the app and the commands, one at a time, in a process that stays warm. No torch here.

`look` returns at once with the known state of a question, and starts its dry run if there is none. Callers look again
now and then: a question without a look for PATIENCE_S is outdated, and gives way to the next. Results are kept by
question. The process ends after IDLE_S without a question, and before a run starts.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from core.files import JsonObject
from core.memory.arithmetic import Estimate
from core.memory.setup import Setup
from core.messages import Message, msg
from core.runs.folder import RunFolder
from core.system.devices import NO_CARD
from core.system.lines import Child
from core.values import Frozen

LIMIT_S = 120.0  # for one answer, the start of the process with its imports included
PATIENCE_S = 3.0  # two ticks of a page's clock
IDLE_S = 600.0
KEPT = 500  # answers
OF_ITS_OWN = {**NO_CARD, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # its environment
END_S = 0.5  # politely; then it is killed
FEW_CORES = 4  # of fewer, a run on a card needs them too


@dataclass(frozen=True)
class DryRunState:
    """The state of a question. answer: its dry run. why: the reason why there is none. Both None: the dry run is under
    way."""

    answer: DryRun | None = None
    why: Message | None = None

    @property
    def is_counting(self) -> bool:
        return self.answer is None and self.why is None


class DryRuns:
    """Starts dry runs and keeps their results. running: returns the run at work, or None."""

    def __init__(
        self, running: Callable[[], RunFolder | None] = lambda: None, idle_s: float = IDLE_S, limit_s: float = LIMIT_S
    ):
        self._running, self._idle_s, self._limit_s = running, idle_s, limit_s
        self._changed = threading.Condition()  # guards everything below
        self._results: dict[str, DryRunState] = {}
        # each with the time of its last look, in the order of their first
        self._requested: dict[str, tuple[Question, float]] = {}
        self._worker: Child | None = None
        self._at_work: tuple[int, str] | None = None  # number and key
        self._number = 0
        self._clock: threading.Timer | None = None

    def look(self, question: Question) -> DryRunState:
        """Return the result of question, the reason why it has none, or a state without either, and start its dry run
        if it is not known. While a run uses the processor, the worker is ended instead. Never waits."""
        if why := obstacle(question.setup):
            return DryRunState(why=why)
        key = question.key
        with self._changed:
            if known := self._results.get(key):
                return known
        if takes_processor(self._running()):
            self.rest()
            return DryRunState(why=msg("dry_run.run_at_work"))
        with self._changed:
            self._requested[key] = question, time.monotonic()
            return self._start_newest() or DryRunState()

    def wait(self, question: Question) -> DryRunState:
        """Wait, at most limit_s, for the result of question, or the reason why there is none; for commands."""
        end = time.monotonic() + self._limit_s
        while (state := self.look(question)).is_counting and time.monotonic() < end:
            with self._changed:
                self._changed.wait_for(lambda: question.key in self._results, PATIENCE_S / 3)
        return DryRunState(why=self._too_slow_message()) if state.is_counting else state

    def rest(self) -> None:
        """End the process: a run is about to start, or the app ends. An unfinished dry run starts anew at the next
        look."""
        with self._changed:
            worker, self._worker, self._at_work = self._worker, None, None
            self._requested.clear()
            self._set_clock(None)
        if worker is not None:
            worker.end(END_S)

    # ---- the process ----------------------------------------------------------------------------------------------
    def _start_newest(self) -> DryRunState | None:
        """Send the worker, started if needed, the newest question that was looked at within PATIENCE_S, unless it is at
        work on such a one. Returns the result if the worker cannot be started, else None."""
        now = time.monotonic()
        self._requested = {key: each for key, each in self._requested.items() if now - each[1] < PATIENCE_S}
        if not self._requested or (self._at_work and self._at_work[1] in self._requested):
            return None
        if self._worker is None or self._worker.process.poll() is not None:
            try:
                self._worker = worker = Child("core.trial.dry_run_worker", environment=OF_ITS_OWN)
            except OSError as error:
                return DryRunState(why=msg("dry_run.failed", reason=error.strerror or str(error)))
            worker.listen(lambda line: self._receive(worker, line), lambda code: self._ended(worker, code))
        key, (question, _) = list(self._requested.items())[-1]
        self._number += 1
        self._at_work = self._number, key
        self._set_clock(self._limit_s, self._too_slow)
        self._worker.send(id=self._number, question=question.model_dump(mode="json"))
        return None

    def _receive(self, worker: Child, line: JsonObject) -> None:
        """Keep the worker's answer to one request: a result, or why there is none."""
        answer = line.get("answer")
        state = (
            DryRunState(DryRun.model_validate(answer))
            if answer
            else DryRunState(why=Message.model_validate(line["why"]))
        )
        with self._changed:
            self._store(worker, line["id"], state)

    def _ended(self, worker: Child, code: int) -> None:
        with self._changed:
            if self._worker is worker:
                self._store(worker, self._number, DryRunState(why=msg("dry_run.failed", reason=f"exit status {code}")))
            if self._worker is worker:  # and not yet the next one, for a question that waited
                self._worker = None

    def _store(self, worker: Child, number: int, state: DryRunState) -> None:
        """Keep the result of dry run `number`, if it is the one at work, wake the waiting commands, and start the
        newest one requested."""
        if self._worker is not worker or not self._at_work or self._at_work[0] != number:
            return
        key, self._at_work = self._at_work[1], None
        self._requested.pop(key, None)
        self._results = dict(list((self._results | {key: state}).items())[-KEPT:])
        self._set_clock(self._idle_s, self._idle)
        self._start_newest()
        self._changed.notify_all()

    def _too_slow(self, number: int) -> None:
        """End the worker if it is still at request `number`, and keep that message as its result."""
        with self._changed:
            if self._worker is None or not self._at_work or self._at_work[0] != number:
                return
            worker, key = self._worker, self._at_work[1]
            self._results[key] = DryRunState(why=self._too_slow_message())
            self._worker = self._at_work = None
            self._requested.pop(key, None)
            self._changed.notify_all()
        worker.end(END_S)

    def _too_slow_message(self) -> Message:
        return msg("dry_run.too_slow", seconds=round(self._limit_s))

    def _idle(self, number: int) -> None:
        """End the worker if no dry run came after this one."""
        with self._changed:
            if self._number != number or self._at_work:
                return
        self.rest()

    def _set_clock(self, seconds: float | None, then: Callable[[int], None] = lambda number: None) -> None:
        """Replace the timer: after so many seconds call then with the current request's number. None: no timer."""
        if self._clock is not None:
            self._clock.cancel()
        self._clock = None
        if seconds is not None:
            self._clock = threading.Timer(seconds, then, [self._number])
            self._clock.daemon = True
            self._clock.start()


def takes_processor(run: RunFolder | None) -> bool:
    """True if a dry run now would take the processor from a run at work."""
    if run is None:
        return False
    return run.facts().device in (None, "cpu") or (os.cpu_count() or 1) < FEW_CORES


class Question(Frozen):
    """A model and a setup to simulate. config: a model's config.json, or the known part of it."""

    model_config = ConfigDict(ser_json_inf_nan="constants")  # limits of Mamba's time steps

    config: JsonObject
    setup: Setup

    @property
    def key(self) -> str:
        return self.model_dump_json()


class DryRun(Frozen):
    """The result of a dry run. estimate: in the terms of core/memory/arithmetic. place, layer (from 1), operation: of
    the peak. layers_run: the number of layers in each simulation; one number: all of them."""

    estimate: Estimate
    place: Literal["forward", "head", "backward", "optimizer"]
    layer: int | None = None
    operation: str
    layers_run: tuple[int, ...]
    seconds: float

    @property
    def where(self) -> Message:
        """The place of the peak, as a message."""
        return msg(f"dry_run.at_{self.place}", layer=self.layer) if self.layer else msg(f"dry_run.at_{self.place}")


def obstacle(setup: Setup) -> Message | None:
    """Return why a setup has no dry run: it is on a CPU, in 8 bits, or not trained by this app; None if it has one."""
    if setup.device == "cpu":
        return msg("dry_run.on_processor")
    ours = setup.method != "full" and setup.base_bits != 8 and setup.loss in (None, "supervised")
    ours = ours and setup.attention == "sdpa" and setup.adapter_dtype == "fp32" and not setup.fp32_stream
    return None if ours else msg("dry_run.not_ours")
