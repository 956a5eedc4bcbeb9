"""Dry runs for the app and the commands, one at a time, in a process that stays warm. No torch here.

`look` returns at once with the known state of a question, and requests its dry run if there is none; the newest request
is the next. Results are kept by question. The process ends after IDLE_S without a question, and before a run starts.
"""

from __future__ import annotations

import os
import queue
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
        """Return whether the dry run is still under way: there is neither a result nor a reason why there is none."""
        return self.answer is None and self.why is None


class DryRuns:
    """Starts dry runs and keeps their results. running: returns the run at work, or None; no dry run starts while it
    needs the processor. idle_s: after which the process ends. limit_s: for one answer."""

    def __init__(
        self, running: Callable[[], RunFolder | None] = lambda: None, idle_s: float = IDLE_S, limit_s: float = LIMIT_S
    ):
        self._running, self._idle_s, self._limit_s = running, idle_s, limit_s
        self._changed = threading.Condition()  # guards everything below
        self._results: dict[str, DryRunState] = {}
        self._next: Question | None = None
        self._at_work = ""  # key of the question
        self._thread: threading.Thread | None = None
        self._worker: Child | None = None
        self._lines: queue.SimpleQueue[JsonObject] = queue.SimpleQueue()  # of the worker

    def look(self, question: Question) -> DryRunState:
        """Return at once what is known of a question: its result, the reason why it has none, or a state with neither
        while its dry run is under way or waits. An unknown one is requested; it replaces another question that still
        waits.

        While a training run needs the processor, no dry run starts, the process of dry runs is ended, and this is the
        reason returned.
        """
        if why := obstacle(question.setup):
            return DryRunState(why=why)
        with self._changed:
            if known := self._results.get(question.key):
                return known
        if takes_processor(self._running()):
            self.end_process()
            return DryRunState(why=msg("dry_run.run_at_work"))
        with self._changed:
            if question.key != self._at_work:
                self._next = question
            if self._thread is None:
                self._thread = threading.Thread(target=self._answer_all, name="dry-runs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return DryRunState()

    def wait(self, question: Question) -> DryRunState:
        """Wait, at most limit_s, for the result of question, or the reason why there is none; for commands."""
        end = time.monotonic() + self._limit_s
        while (state := self.look(question)).is_counting and time.monotonic() < end:
            with self._changed:
                self._changed.wait_for(lambda: question.key in self._results, 1.0)
        return DryRunState(why=self._too_slow_message()) if state.is_counting else state

    def end_process(self) -> None:
        """End the process: a run is about to start, or the app ends. An unfinished dry run starts anew at the next
        look."""
        with self._changed:
            worker, self._worker, self._next, self._at_work = self._worker, None, None, ""
        if worker is not None:
            worker.end(END_S)

    # ---- the thread -----------------------------------------------------------------------------------------------
    def _answer_all(self) -> None:
        """Loop of the thread until no question comes for IDLE_S: answer the newest question and keep its result."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None, self._idle_s)
                question, self._next = self._next, None
                if question is None:
                    self._thread = None
                    break
                self._at_work = question.key
            state = self._answer(question)
            with self._changed:
                self._at_work = ""
                if state is not None:
                    self._results = dict(list((self._results | {question.key: state}).items())[-KEPT:])
                self._changed.notify_all()
        self.end_process()

    def _answer(self, question: Question) -> DryRunState | None:
        """Let the worker, started if needed, answer a question; None if `end_process` ended it meanwhile."""
        with self._changed:  # or `end_process` would miss a worker that is just being started
            if not self._at_work:
                return None
            worker, lines = self._worker, self._lines
            if worker is None or worker.process.poll() is not None:
                try:
                    worker = Child("core.trial.dry_run_worker", environment=OF_ITS_OWN)
                except OSError as error:
                    return DryRunState(why=msg("dry_run.failed", reason=error.strerror or str(error)))
                lines = queue.SimpleQueue[JsonObject]()
                worker.listen(lines.put, lambda code: lines.put({"ended": code}))
                self._worker, self._lines = worker, lines
        worker.send(question=question.model_dump(mode="json"))
        try:
            line = lines.get(timeout=self._limit_s)
        except queue.Empty:
            self.end_process()
            return DryRunState(why=self._too_slow_message())
        if "answer" in line:
            return DryRunState(DryRun.model_validate(line["answer"]))
        if "why" in line:
            return DryRunState(why=Message.model_validate(line["why"]))
        with self._changed:
            was_rested, self._worker = self._worker is not worker, None
        return None if was_rested else DryRunState(why=msg("dry_run.failed", reason=f"exit status {line['ended']}"))

    def _too_slow_message(self) -> Message:
        """Return the message that a dry run got no answer within limit_s."""
        return msg("dry_run.too_slow", seconds=round(self._limit_s))


def takes_processor(run: RunFolder | None) -> bool:
    """Return whether a dry run now would slow down the training run at work: one on the CPU or of a device not known
    yet, or any on a PC with fewer than FEW_CORES. False if no run is at work (None)."""
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
        """Return the question as JSON text, the key under which its result is kept."""
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
