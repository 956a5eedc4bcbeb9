"""How fast this PC trains: from its own earlier runs, else roughly from a one-second measurement. No torch here.

The measurement (core/pace_probe) runs in a child process and is kept in cache/pace.json, by processor or card and version
of torch.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from core import atomic, lease
from core.budget import best_card
from core.child import own_group, worker_environment
from core.errors import BusyError, GarageError
from core.hardware import Machine, look
from core.run_folder import RunFolder
from core.runs import Runs
from core.states import State
from core.text import Text, text
from core.workspace import Workspace

LEAST_STEPS = 5
PROBE_LIMIT_S = 120  # a first import of torch from a slow disk takes a minute
# A real step's operations a second over the stand-in's. Starter model, LoRA, Intel Xeon (2 cores, AMX), torch 2.13, 2026-11-25:
# 0.51 (rows of 58 tokens) and 0.65 (256) as wall time of whole runs with AMX; as processor time of steps on one thread 0.64
# to 0.75 with AMX, 0.85 to 0.90 with AVX512_BF16 alone, 0.82 to 0.89 in float32 with AVX2. Not measured on any card.
SHARE = 0.65


class Pace(BaseModel):
    """tokens_per_second: all tokens of the rows, padding aside, measuring and saving included."""

    model_config = ConfigDict(frozen=True)

    tokens_per_second: float
    source: Text


def seconds(tokens: float, pace: Pace) -> float:
    """How long so many tokens take; loading the model and the libraries is not in it."""
    return tokens / pace.tokens_per_second


# ---- from runs --------------------------------------------------------------------------------------------------------


def from_runs(runs: Runs, model_id: str, method: str, on_card: bool | None = None) -> Pace | None:
    """Of the newest ended run of this base model and method, or None. on_card: only of one that trained there, or only not."""
    for run in runs.list():
        if run.status().state in (State.COMPLETED, State.STOPPED) and _is_alike(run, model_id, method, on_card):
            measured = _tokens_per_second(run)
            if measured is not None:
                return Pace(tokens_per_second=measured, source=text("pace.from_run", run=run.name))
    return None


def _is_alike(run: RunFolder, model_id: str, method: str, on_card: bool | None) -> bool:
    if on_card is not None and (run.facts().get("device") != "cpu") != on_card:
        return False
    try:
        recipe = run.recipe()
    except GarageError:
        return False
    return (recipe.model.id, recipe.adapter.method) == (model_id, method)


def _tokens_per_second(run: RunFolder) -> float | None:
    """Between the ends of the first and the last step of the last attempt; the first step, which warms up, does not count."""
    lines = [line for line in run.all_metrics() if line.get("kind") == "train"]
    lines = [line for line in lines if line.get("attempt") == lines[-1].get("attempt")]
    if len(lines) < LEAST_STEPS:
        return None
    try:
        tokens = lines[-1]["tokens_seen"] - lines[0]["tokens_seen"]
        elapsed_s = lines[-1]["time"] - lines[0]["time"]
    except (KeyError, TypeError):
        return None
    return tokens / elapsed_s if tokens > 0 and elapsed_s > 0 else None


# ---- from a measurement -----------------------------------------------------------------------------------------------


def from_probe(tflops: float, params: float, gradient_checkpointing: bool) -> Pace:
    """Good to a factor of two on a processor. params: of the whole base.

    A frozen base costs 2 operations a parameter and token forward and 2 backward; checkpointing goes forward twice.
    """
    operations = (6 if gradient_checkpointing else 4) * params
    return Pace(tokens_per_second=tflops * 1e12 * SHARE / operations, source=text("pace.rough"))


class Probe:
    """The speed of a stand-in training step on this PC, measured once for each processor or card and version of torch."""

    def __init__(self, workspace: Workspace, machine: Callable[[], Machine] = look):
        self._workspace, self._machine = workspace, machine
        self._measuring = threading.Lock()
        self._failed = False

    def measured(self) -> float | None:
        """TFLOP/s as measured before; None where nothing was yet. Reads a file, never waits."""
        return self._kept().get(self._key())

    @property
    def busy(self) -> bool:
        """Whether a measurement is under way."""
        return self._measuring.locked()

    def begin(self) -> None:
        """Measure in the background where it is not known yet. Returns at once; may be called again and again."""
        if not self._failed and not self._measuring.locked():
            threading.Thread(target=self.measure, name="pace", daemon=True).start()

    def measure(self) -> float | None:
        """TFLOP/s, known or measured now (some seconds). None while something else computes, or where the child fails."""
        if (known := self.measured()) is not None:
            return known
        if not self._measuring.acquire(blocking=False):
            return None
        try:
            return self._measure_now()
        finally:
            self._measuring.release()

    def _measure_now(self) -> float | None:
        # The lease is not kept meanwhile: a run that is started now must not wait for a number that nobody asked for.
        if not self._device_is_free():
            return None
        tflops = run_child()
        self._failed = tflops is None
        if tflops is None or not self._device_is_free():
            return None
        with contextlib.suppress(OSError):
            atomic.replace_json(self._file, self._kept() | {self._key(): tflops})
        return tflops

    def _device_is_free(self) -> bool:
        try:
            with lease.hold(self._workspace, text("pace.lease")):
                return True
        except BusyError:
            return False

    @property
    def _file(self) -> Path:
        return self._workspace.cache / "pace.json"

    def _kept(self) -> dict[str, float]:
        kept = atomic.read_json(self._file)
        return kept if isinstance(kept, dict) else {}

    def _key(self) -> str:
        machine = self._machine()
        card = best_card(machine)
        try:
            torch = version("torch")
        except PackageNotFoundError:
            torch = "none"
        return f"{(card and card.name) or machine.cpu}, torch {torch}"


def run_child() -> float | None:
    """One measurement, or None where torch cannot be loaded or took too long."""
    command = [sys.executable, "-m", "core.pace_probe"]
    try:
        child = subprocess.run(command, env=worker_environment(), capture_output=True, timeout=PROBE_LIMIT_S, **own_group())
        answer = json.loads(child.stdout.splitlines()[-1])
        return float(answer["tflops"])
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError, KeyError, TypeError):
        return None
