"""How fast this PC trains: by its own earlier runs, otherwise by timing a step of the plan for a second. No torch here.

The measurement (core/trial/pace_probe) runs in a child process and is kept in cache/pace.json, by step, processor or
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

LEAST_STEPS = 5
PROBE_LIMIT_S = 120  # a first import of torch from a slow disk takes a minute
MOST_TOKENS = 2048  # of the step that is timed; longer ones take as long a token, but for attention
KEPT = 100  # measurements in the file
REST_S = 2.0  # a plan that stands so long is not being chosen any more
ABANDONED_S = 15.0  # seven looks of a page that is open
QUIET_S = 10.0  # until whoever needed the device has the lease
LOOK_S = 0.1


class Pace(Frozen):
    """tokens_per_second: all tokens of the rows, padding aside, measuring and saving included."""

    tokens_per_second: float
    source: Message


def seconds(tokens: float, pace: Pace) -> float:
    """How long so many tokens take; loading the model and the libraries is not in it."""
    return tokens / pace.tokens_per_second


def planned_tokens(recipe: Recipe, steps: int, counts: Counts) -> float:
    """Tokens that so many steps read, after what max_length does to long rows."""
    train = recipe.train
    examples = steps * train.per_device_train_batch_size * train.gradient_accumulation_steps
    return examples * counts.tokens / max(1, counts.pieces)


def measuring_share(recipe: Recipe, steps: int, counts: Counts, rows: int) -> float:
    """Time of the measurements on rows kept apart, as a share of the steps' own. rows: of the data set."""
    if rows < SMALLEST_SPLIT or not steps:
        return 0.0
    times = 1 + (steps // recipe.train.eval_steps if recipe.train.eval_steps else 5)
    tokens = counts.tokens * recipe.data.eval_fraction
    return EVALUATION_SHARE * times * tokens / max(1.0, planned_tokens(recipe, steps, counts))


# ---- from runs -----------------------------------------------------------------------------------


def from_runs(runs: Runs, wanted: Recipe, on_card: bool | None = None, device: str | None = None) -> Pace | None:
    """Of the newest ended run of wanted's base model and kind of adapter, or None. on_card: only of one that trained
    there, or only not; device: not of one that is known to have trained on another card."""
    for run in runs.list():
        if run.status().state in (State.COMPLETED, State.STOPPED) and _is_alike(run, wanted, on_card, device):
            measured = tokens_per_second(run)
            if measured is not None:
                return Pace(tokens_per_second=measured, source=msg("pace.from_run", run=run.name))
    return None


def _is_alike(run: RunFolder, wanted: Recipe, on_card: bool | None, device: str | None) -> bool:
    facts = run.facts()
    if on_card is not None and (facts.device != "cpu") != on_card:
        return False
    if on_card and device and facts.device_uuid not in (None, device):
        return False
    try:
        recipe = run.recipe()
    except GarageError:
        return False
    return _kind(recipe) == _kind(wanted)


def _kind(recipe: Recipe) -> tuple[str | int, ...]:
    """What a step's time depends on most."""
    adapter, train = recipe.adapter, recipe.train
    kind = recipe.model.id, adapter.method, adapter.load_in_8bit, adapter.use_dora, adapter.trains_experts
    return *kind, train.ranks, train.fsdp, train.offload_layers


def tokens_per_second(run: RunFolder) -> float | None:
    """Between the ends of the first and the last step of the last attempt; the first step, which warms up, does not
    count."""
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


# ---- from a measurement --------------------------------------------------------------------------


class StandIn(Frozen):
    """A step of a plan, small enough to be timed in a second: layers as wide as the model's own, two of them or one,
    with rows as long as the data's, and the plan's method. Widths are named as in config.json. learned: tokens of a row
    that the loss counts.
    device: the plan's (core/system/devices).
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    num_hidden_layers: int  # of the model; what is timed is scaled to them
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
    def of(
        cls, shape: ModelShape, setup: Setup, length: float, learned_share: float, device: str | None = None
    ) -> StandIn:
        """length: tokens of a usual row. Rounded, so that an edit that hardly matters needs no new measurement."""
        row = min(MOST_TOKENS, 2 ** math.ceil(math.log2(max(16.0, length))))
        return cls(
            hidden_size=shape.hidden_size,
            intermediate_size=shape.active_width,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_key_value_heads,
            head_dim=shape.head_dim,
            vocab_size=shape.vocab_size,
            num_hidden_layers=shape.num_hidden_layers,
            rows=max(1, min(setup.per_device_train_batch_size, MOST_TOKENS // row)),
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
    """seconds at pace, of a run whose layers are copied to the card beside the work: the longer of the two. An earlier
    run has had them."""
    return seconds if bus_seconds is None or pace.source.key == "pace.from_run" else max(seconds, bus_seconds)


def from_step(tokens_per_second: float, measuring: float = 0.0) -> Pace:
    """measuring: what measurements on rows kept apart take, as a share of the steps' time."""
    return Pace(tokens_per_second=tokens_per_second / (1 + measuring), source=msg("pace.rough"))


class PaceProbe:
    """How fast this PC computes a step of a plan, measured once for each such step, processor or card, and version of
    torch.

    A measurement ends, and is thrown away, when other settings are wanted instead, when nobody asks for it any more,
    and when a run, a chat or an export needs the device. machine, steady: the world, for tests to replace.
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
        self._wanted: tuple[StandIn, float] | None = None  # the step last asked for, and since when
        self._asked_at = self._quiet_until = float("-inf")
        self._follows: threading.Thread | None = None

    def look(self, step: StandIn) -> float | None:
        """Tokens a second, or None where they are not known yet and are measured in the background. Ask again and
        again."""
        known = self.measured(step)
        self._want(step) if known is not None else self.begin(step)
        return known

    def measured(self, step: StandIn) -> float | None:
        """Tokens a second as measured before; None where nothing was yet. Reads a file, never waits."""
        found = files.read_object(self._file).get(self._key(step))
        return found if isinstance(found, float) else None

    @property
    def busy(self) -> bool:
        """Whether a measurement is under way or about to begin."""
        return self._measuring.locked() or bool(self._follows and self._follows.is_alive())

    def begin(self, step: StandIn) -> None:
        """Measure in the background where it is not known yet, once no other step was asked for during rest_s: while
        somebody still chooses, each step would cost a core for seconds. Returns at once; may be called again and
        again."""
        if step in self._failed or self._steady() < self._quiet_until:
            return
        self._want(step)
        if not self.busy:
            self._follows = threading.Thread(target=self._follow, name="pace", daemon=True)
            self._follows.start()

    def rest(self) -> None:
        """Somebody is about to need the device: what is measured ends, and is gone when this returns."""
        self._quiet_until, self._wanted = self._steady() + QUIET_S, None
        with self._measuring:
            pass

    def _want(self, step: StandIn) -> None:
        self._asked_at = self._steady()
        if self._wanted is None or self._wanted[0] != step:
            self._wanted = step, self._asked_at

    def _is_wanted(self, step: StandIn) -> bool:
        if self._wanted is None:
            return False
        newest, since = self._wanted
        now = self._steady()
        return (newest == step or now - since < self._rest_s) and now - self._asked_at < ABANDONED_S

    def _follow(self) -> None:
        """Until the step that is wanted was tried."""
        tried: StandIn | None = None
        while (wanted := self._wanted) is not None and wanted[0] != tried:
            step, since = wanted
            if (rest := since + self._rest_s - self._steady()) > 0:
                time.sleep(min(rest, LOOK_S))
            else:
                self.measure(step, partial(self._is_wanted, step))
                tried = step

    def measure(self, step: StandIn, is_wanted: Callable[[], bool] = lambda: True) -> float | None:
        """Tokens a second, known or measured now (some seconds). None while something else computes, where the child
        fails, or once it is not wanted any more."""
        if (known := self.measured(step)) is not None:
            return known
        if not self._measuring.acquire(blocking=False):
            return None
        try:
            return self._measure_now(step, is_wanted)
        finally:
            self._measuring.release()

    def _measure_now(self, step: StandIn, is_wanted: Callable[[], bool]) -> float | None:
        ended = False

        def goes_on() -> bool:  # once it does not, the child is killed for it, whatever is so afterwards
            # The lease is not kept meanwhile: a run that is started now must not wait for a number that nobody asked
            # for.
            nonlocal ended
            ended = ended or not (is_wanted() and self._device_is_free())
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
            kept = list((files.read_object(self._file) | {self._key(step): speed}).items())
            files.replace_json(self._file, dict(kept[-KEPT:]))
        return speed

    def _device_is_free(self) -> bool:
        try:  # on a drive that became read-only nothing is measured that could not be kept
            return os.access(self._workspace.cache, os.W_OK) and not lease.is_held(self._workspace)
        except OSError:  # the lock cannot be looked at
            return False

    @property
    def _file(self) -> Path:
        return kept_in(self._workspace)

    def _key(self, step: StandIn) -> str:
        machine = self._machine()
        card = None if step.device == devices.CPU else devices.best_card(machine.nvidia)
        card = next((each for each in machine.nvidia.cards if step.device and each.uuid == step.device), card)
        return rig_named((card and card.name) or machine.cpu) + step.model_dump_json()


def kept_in(workspace: Workspace) -> Path:
    """Tokens a second by rig and step."""
    return workspace.cache / "pace.json"


def rig_named(device: str | None) -> str:
    """With what the key of a measurement on a processor or a card of that name begins."""
    build = devices.torch_build()
    return f"{device}, torch {(build and build.version) or 'none'}, "


def run_child(step: StandIn, environment: Mapping[str, str], goes_on: Callable[[], bool]) -> float | None:
    """One measurement in tokens a second, or None where torch cannot be loaded, took too long, or was ended. goes_on is
    asked each LOOK_S; once it is not so the process is killed."""
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
    with child.stdout as said:
        answer = said.read()  # a line or a few, which a pipe holds
    try:
        return float(json.loads(answer.splitlines()[-1])["tokens_per_second"])
    except (ValueError, IndexError, KeyError, TypeError):
        return None
