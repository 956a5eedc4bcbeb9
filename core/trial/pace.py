"""Training speed on this PC: from its earlier runs, otherwise from timing a step of the plan for a second. No torch
here.

The measurement (core/trial/pace_probe) runs in a child process and is stored in cache/pace.json, by step, processor or
card, and version of torch.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from core import files
from core.data.preview import Counts
from core.data.validation_split import SMALLEST_SPLIT
from core.errors import GarageError
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.runs.time_left import EVALUATION_SHARE
from core.system import devices
from core.system.machine import Machine, this_machine
from core.system.processes import kill_tree, own_group, worker_environment
from core.values import Frozen
from core.workspace import lease
from core.workspace.folder import Workspace

MIN_STEPS = 5
PROBE_LIMIT_S = 120  # a first import of torch from a slow disk takes a minute
MAX_TOKENS = 2048  # of the step that is timed; longer ones take as long a token, but for attention
KEPT = 100  # measurements in the file
REST_S = 2.0  # a plan that stands so long is not being chosen any more
ABANDONED_S = 15.0  # seven looks of a page that is open
QUIET_S = 10.0  # until the program that needed the device has the lease
LOOK_S = 0.1


class Pace(Frozen):
    """The speed of a run. tokens_per_second: all tokens of the rows without padding; time for measuring and saving
    included."""

    tokens_per_second: float
    source: Message


def seconds(tokens: float, pace: Pace) -> float:
    """Return the time for so many tokens; loading the model and the libraries is not included."""
    return tokens / pace.tokens_per_second


def planned_tokens(recipe: Recipe, steps: int, counts: Counts) -> float:
    """Return the tokens that so many steps read, after max_length has cut or split long rows. counts: of the
    dataset."""
    train = recipe.train
    examples = steps * train.per_device_train_batch_size * train.gradient_accumulation_steps
    return examples * counts.tokens / max(1, counts.pieces)


def measuring_share(recipe: Recipe, steps: int, counts: Counts, rows: int, own: int | None = None) -> float:
    """Return the time of the evaluations as a share of the steps' time; 0 if none is made.

    rows: of the dataset; own: those that it keeps for validation itself.
    """
    if not steps or (own is None and rows < SMALLEST_SPLIT):
        return 0.0
    times = 1 + (steps // recipe.train.eval_steps if recipe.train.eval_steps else 5)
    tokens = counts.tokens * (recipe.data.eval_fraction if own is None else own / max(1, rows))
    return EVALUATION_SHARE * times * tokens / max(1.0, planned_tokens(recipe, steps, counts))


# ---- from runs -----------------------------------------------------------------------------------


def from_runs(runs: Runs, recipe: Recipe, on_card: bool | None = None, device: str | None = None) -> Pace | None:
    """Return the pace of the newest completed or stopped run with recipe's base model and kind of adapter, or None.
    on_card: only of a run that trained on a GPU (True) or not (False). device: not of a run known to have trained on
    another GPU."""
    for run in runs.list():
        if run.status().state in (State.COMPLETED, State.STOPPED) and _is_alike(run, recipe, on_card, device):
            measured = tokens_per_second(run)
            if measured is not None:
                return Pace(tokens_per_second=measured, source=msg("pace.from_run", run=run.name))
    return None


def _is_alike(run: RunFolder, recipe: Recipe, on_card: bool | None, device: str | None) -> bool:
    """Return whether the run has the base model and kind of adapter of recipe, and its device fits on_card and
    device."""
    facts = run.facts()
    if on_card is not None and (facts.device != "cpu") != on_card:
        return False
    if on_card and device and facts.device_uuid not in (None, device):
        return False
    try:
        other = run.recipe()
    except GarageError:
        return False
    return _kind(other) == _kind(recipe)


def _kind(recipe: Recipe) -> tuple[str | int, ...]:
    """Return the settings that a step's time depends on most."""
    adapter, train = recipe.adapter, recipe.train
    kind = recipe.model.id, adapter.method, adapter.load_in_8bit, adapter.use_dora, adapter.trains_experts
    return *kind, train.ranks, train.fsdp, train.offload_layers, bool(recipe.rewards)


def tokens_per_second(run: RunFolder) -> float | None:
    """Return tokens per second between the ends of the first and the last step of the last attempt; None for fewer than
    MIN_STEPS steps; the first step, a warm-up, is left out."""
    lines = [line for line in run.all_metrics() if line.get("kind") == "train"]
    lines = [line for line in lines if line.get("attempt") == lines[-1].get("attempt")]
    if len(lines) < MIN_STEPS:
        return None
    try:
        tokens = lines[-1]["tokens_seen"] - lines[0]["tokens_seen"]
        elapsed_s = lines[-1]["time"] - lines[0]["time"]
    except (KeyError, TypeError):
        return None
    return tokens / elapsed_s if tokens > 0 and elapsed_s > 0 else None


# ---- from a measurement --------------------------------------------------------------------------


class StandIn(Frozen):
    """A step that stands for a plan's and can be timed in a second: one or two layers as wide as the model's, with rows
    as long as the data's, and the plan's method.

    Widths are named as in config.json. learned: tokens of a row that the loss counts. device: the plan's
    (core/system/devices).
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_hidden_layers: int  # of the model; the measured time is scaled to them
    rows: int
    length: int
    learned: int
    r: int
    four_bit: bool
    gradient_checkpointing: bool
    eight_bit: bool = False
    use_dora: bool = False
    device: str | None = None

    @classmethod
    def from_plan(
        cls, shape: ModelShape, setup: Setup, length: float, learned_share: float, device: str | None = None
    ) -> StandIn:
        """Create the stand-in. length: tokens of a usual row; learned_share: of its tokens. Both are rounded to powers
        of two, so that an edit that hardly matters needs no new measurement."""
        row = min(MAX_TOKENS, 2 ** math.ceil(math.log2(max(16.0, length))))
        return cls(
            hidden_size=shape.hidden_size,
            intermediate_size=shape.active_width,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_key_value_heads,
            head_dim=shape.head_dim,
            vocab_size=shape.vocab_size,
            num_hidden_layers=shape.num_hidden_layers,
            rows=max(1, min(setup.per_device_train_batch_size, MAX_TOKENS // row)),
            length=row,
            learned=max(1, round(row * 2 ** round(math.log2(min(1.0, max(0.1, learned_share)))))),
            r=setup.r,
            four_bit=setup.base_bits == 4,
            gradient_checkpointing=setup.gradient_checkpointing,
            eight_bit=setup.base_bits == 8,
            use_dora=setup.use_dora,
            device=device,
        )


def with_bus(seconds: float, pace: Pace, bus_seconds: float | None) -> float:
    """Return the seconds of a run whose layers are copied to the GPU beside the computation: those of the slower of
    both. bus_seconds: of the copies; None: no copies. An earlier run's pace includes them already."""
    return seconds if bus_seconds is None or pace.source.key == "pace.from_run" else max(seconds, bus_seconds)


def from_step(tokens_per_second: float, measuring: float = 0.0) -> Pace:
    """Return the pace from a timed step. measuring: the time of evaluations as a share of the steps' time."""
    return Pace(tokens_per_second=tokens_per_second / (1 + measuring), source=msg("pace.rough"))


class PaceProbe:
    """Measures the speed of a plan's step, once for each step, processor or card, and version of torch.

    A measurement ends and is discarded when other settings are requested instead, when nobody requests it any more, and
    when a run, a chat or an export needs the device. machine, steady: replaced in tests.
    """

    def __init__(
        self,
        workspace: Workspace,
        machine: Callable[[], Machine] = this_machine,
        rest_s: float = REST_S,
        steady: Callable[[], float] = time.monotonic,
    ):
        self._workspace, self._machine, self._rest_s, self._steady = workspace, machine, rest_s, steady
        self._measuring = threading.Lock()
        self._failed: set[StandIn] = set()
        self._requested: tuple[StandIn, float] | None = None  # the step last requested, and since when
        self._requested_at = self._quiet_until = float("-inf")
        self._thread: threading.Thread | None = None

    def look(self, step: StandIn) -> float | None:
        """Return tokens per second, or None while they are not known and are measured in the background. Call it
        repeatedly."""
        known = self.measured(step)
        self._request(step) if known is not None else self.begin(step)
        return known

    def measured(self, step: StandIn) -> float | None:
        """Return tokens per second as measured before, or None. Reads a file, never waits."""
        speed = files.read_object(self._file).get(self._key(step))
        return speed if isinstance(speed, float) else None

    @property
    def busy(self) -> bool:
        """True if a measurement is under way or about to begin."""
        return self._measuring.locked() or bool(self._thread and self._thread.is_alive())

    def begin(self, step: StandIn) -> None:
        """Request a step, and measure it in a thread unless it failed before, once no other step was requested during
        rest_s: while a person still chooses, each step would cost a core for seconds. Returns at once; may be called
        repeatedly."""
        if step in self._failed or self._steady() < self._quiet_until:
            return
        self._request(step)
        if not self.busy:
            self._thread = threading.Thread(target=self._measure_requested, name="pace", daemon=True)
            self._thread.start()

    def rest(self) -> None:
        """End the measurement, because the device is needed; it is gone when this returns."""
        self._quiet_until, self._requested = self._steady() + QUIET_S, None
        with self._measuring:
            pass

    def _request(self, step: StandIn) -> None:
        """Note that the step is requested now, and since when no other was."""
        self._requested_at = self._steady()
        if self._requested is None or self._requested[0] != step:
            self._requested = step, self._requested_at

    def _is_requested(self, step: StandIn) -> bool:
        """Return whether the step is still requested, or another one for less than `_rest_s`."""
        if self._requested is None:
            return False
        newest, since = self._requested
        now = self._steady()
        return (newest == step or now - since < self._rest_s) and now - self._requested_at < ABANDONED_S

    def _measure_requested(self) -> None:
        """Measure the newest requested step once it has been the same for `_rest_s`, again until the last one requested
        was tried."""
        tried: StandIn | None = None
        while (request := self._requested) is not None and request[0] != tried:
            step, since = request
            if (rest := since + self._rest_s - self._steady()) > 0:
                time.sleep(min(rest, LOOK_S))
            else:
                self.measure(step, partial(self._is_requested, step))
                tried = step

    def measure(self, step: StandIn, is_requested: Callable[[], bool] = lambda: True) -> float | None:
        """Return the step's tokens per second, known or measured now (some seconds). None while something else
        computes, if the child fails, or once it is not requested any more."""
        if (known := self.measured(step)) is not None:
            return known
        if not self._measuring.acquire(blocking=False):
            return None
        try:
            return self._measure_now(step, is_requested)
        finally:
            self._measuring.release()

    def _measure_now(self, step: StandIn, is_requested: Callable[[], bool]) -> float | None:
        """Measure the step in a child process, store its tokens per second in the workspace and return them. None if it
        failed, or was stopped because is_requested() no longer held or something else needed the device."""
        ended = False

        def goes_on() -> bool:
            # Once False it stays False, because the child is killed then. The lease is not kept meanwhile: a run that
            # is started now must not wait for a measurement.
            nonlocal ended
            ended = ended or not (is_requested() and self._device_is_free())
            return not ended

        if not goes_on():
            return None
        speed = run_child(step, devices.environment_of(step.device, self._machine().nvidia), goes_on)
        if not goes_on():
            return None
        if speed is None:
            self._failed.add(step)
            return None
        with contextlib.suppress(OSError):
            speeds = list((files.read_object(self._file) | {self._key(step): speed}).items())
            files.replace_json(self._file, dict(speeds[-KEPT:]))
        return speed

    def _device_is_free(self) -> bool:
        """True if the device's lease is free and the cache can be written."""
        try:  # on a drive that became read-only nothing is measured that could not be kept
            return os.access(self._workspace.cache, os.W_OK) and not lease.is_held(self._workspace)
        except OSError:  # the lock cannot be looked at
            return False

    @property
    def _file(self) -> Path:
        return pace_file(self._workspace)

    def _key(self, step: StandIn) -> str:
        """Return the key of a step's speed in the file: processor or card, version of torch, then the step."""
        machine = self._machine()
        card = None if step.device == devices.CPU else devices.best_card(machine.nvidia)
        card = next((each for each in machine.nvidia.cards if step.device and each.uuid == step.device), card)
        return rig_prefix((card and card.name) or machine.cpu) + step.model_dump_json()


def pace_file(workspace: Workspace) -> Path:
    """Return the file of tokens per second by rig and step."""
    return workspace.cache / "pace.json"


def rig_prefix(device: str | None) -> str:
    """Return the beginning of a measurement's key, for a processor or a card of that name."""
    build = devices.torch_build()
    return f"{device}, torch {(build and build.version) or 'none'}, "


def run_child(step: StandIn, environment: Mapping[str, str], goes_on: Callable[[], bool]) -> float | None:
    """Run one measurement in a child process; return tokens per second, or None if torch cannot be loaded, took too
    long, or was ended. goes_on is called each LOOK_S; the process is killed once it returns False."""
    command = [sys.executable, "-m", "core.trial.pace_probe", step.model_dump_json()]
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**worker_environment(), **environment}, **own_group(),
        )  # fmt: skip
    except OSError:
        return None
    assert child.stdout
    deadline = time.monotonic() + PROBE_LIMIT_S
    while child.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_S)
        if child.poll() is None and (not goes_on() or time.monotonic() > deadline):
            kill_tree(child.pid)
            child.wait()
    with child.stdout as output:
        answer = output.read()  # a line or a few, which a pipe holds
    try:
        return float(json.loads(answer.splitlines()[-1])["tokens_per_second"])
    except (ValueError, IndexError, KeyError, TypeError):
        return None
