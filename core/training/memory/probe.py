"""Computes the longest batch of the data once before the first step, to measure its memory, and discards it.

One forward and backward of the largest micro-batch, with memory reserved for optimizer states and gradients; the
largest batch of an evaluation; and sample answers. The measurement replaces the estimate, goes into the workspace's
record (core/memory/record) and corrects the next estimate. A run that does not fit first saves memory as it would later
(core/engine/out_of_memory); if that is not enough it ends here, with advice on what would fit. RNG states, gradients
and adapter are restored: a run has the same results with and without it, bit for bit. A resumed run is probed again:
free memory may have changed. Imports torch: workers only.
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import psutil
import torch

from core.advice import stopped
from core.advice.stopped import Stopped
from core.engine.device import card_of
from core.engine.step import LongestBatch, Step
from core.engine.variants.layers import stop_inside_layers
from core.errors import DoesNotFitError
from core.files import is_out_of_memory
from core.memory import arithmetic, budget
from core.memory.arithmetic import (
    estimate,
    most_kept_layers,
)
from core.memory.record import MemoryRecord, Rig
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.runs.run_json import MemoryFacts, RunFacts
from core.runs.spill import SpillWatch, memory_now
from core.system import gpu
from core.system.gpu import Card
from core.system.machine import SPILLING_SYSTEMS, this_machine
from core.system.processes import ResidentPeak, limit_of_process
from core.training.trainer import Ahead
from core.values import GIB
from core.workspace.folder import Workspace

STATE_BYTES = {"adamw_torch": 8.0, None: 8.0}  # of optimizer states per trainable parameter; 8-bit: 2.03
TOLERANCE = 1.01  # a GPU that reports more than this in use has spilled to RAM
LARGEST_CONTEXT = GIB  # docs/memory.md, 1.6: 141 MiB to 0.6 GiB


class _OverLimitError(Exception):
    """More memory is in use than available, noticed between two layers."""


@dataclass(frozen=True)
class Measured:
    """Bytes of a measurement. total: of the process on a CPU; on a GPU this process's memory there, including its CUDA
    context. card_used: of all programs. seconds: of the batch."""

    total: int
    allocated: int | None = None
    reserved: int | None = None
    card_used: int | None = None
    context: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Recorded:
    """The measurement that the record has. context: bytes that torch does not count."""

    rig: Rig
    arithmetic_gib: float
    measured_gib: float
    context: int


class Probe:
    """Measures the longest batch. Create it before torch uses the GPU, so that it can read what other programs hold
    there; call it with the coming computations of the run."""

    def __init__(self, run: RunFolder, workspace: Workspace, recipe: Recipe, shape: ModelShape | None):
        self._run, self._workspace, self._recipe, self._shape = run, workspace, recipe, shape
        self._machine, self._context = this_machine(), 0
        self._recorded: _Recorded | None = None

    def __call__(self, ahead: Ahead) -> None:
        """Compute the longest batch once and measure its memory; while it does not fit, take the next way to save
        memory (such as smaller micro-batches) and try again.

        First as many layers as the GPU's free memory allows are left without gradient checkpointing, which makes them
        faster. Raises DoesNotFitError if no way to save memory is left.
        """
        self._exempt_layers(ahead.step, ahead.longest())
        while refusal := self._try(ahead):
            if not ahead.reduce_memory(ahead.longest().rows):
                raise refusal

    def _exempt_layers(self, step: Step, longest: LongestBatch) -> None:
        """Leave as many layers without gradient checkpointing as fit into the GPU's memory by the estimate; each then
        needs no second forward. The decision is logged.

        Does nothing on the CPU, without gradient checkpointing, with offloading, or if the model's shape or the free
        memory is unknown. If the measurement fails later, these layers are checkpointed again.
        """
        card, rig = self._card_and_rig(step.on_card)
        limit, retreat = self._limit(card, step.on_card), step.retreat
        room = step.on_card and not retreat.offloads and not self._recipe.train.offload_layers
        if not (room and self._shape and limit and retreat.checkpointing):
            return
        factor = self._predict(step, longest, rig)["factor"]
        retreat.uncheckpointed_layers = most_kept_layers(self._shape, self._setup(step, longest), limit / GIB, factor)
        if retreat.kept_layers:
            step.save_memory()
            facts = {"kept": retreat.kept_layers, "layers": self._shape.num_hidden_layers}
            self._run.log_event("decision", message=msg("probe.kept_layers", **facts))

    def measure_context(self) -> None:
        """Measure CUDA's own bytes on the GPU, which torch does not count: the increase by NVML's count when the
        context and cuBLAS are created.

        Call it before the model is loaded, so that other programs change it less. The kernels of the first step are
        loaded when they are called: `_on_card` adds their bytes.
        """
        card = card_of(self._machine)
        torch.cuda.current_blas_handle()
        torch.cuda.synchronize()
        self._add_to_context(card.used_bytes if card else None)

    def _add_to_context(self, before: int | None) -> None:
        """Add the growth, since `before` was read, of the bytes that NVML counts and torch does not."""
        now = self._beside_torch()
        if before is not None and now is not None:
            self._context = min(LARGEST_CONTEXT, self._context + max(0, now - before))

    def _beside_torch(self) -> int | None:
        """Return the bytes on the GPU that torch does not count: CUDA's own, and those of other programs. None if NVML
        has no answer."""
        card = card_of(self._machine)
        now = gpu.newest(card) if card else None
        return None if now is None or now.used_bytes is None else now.used_bytes - torch.cuda.memory_reserved()

    def require_ram(self) -> None:
        """Raise DoesNotFitError if the RAM free for this process is too small for loading a base that is offloaded or
        sharded: the system would kill this process without an error."""
        if not ((self._recipe.train.offload_layers or self._recipe.train.fsdp) and self._shape):
            return
        needed = arithmetic.ram_to_offload_gib(self._shape, Setup.from_recipe(self._recipe, "card"))
        limits = (psutil.virtual_memory().available, limit_of_process())
        free = min(limit for limit in limits if limit is not None) / GIB
        if needed > free:
            raise DoesNotFitError(
                "fsdp.no_ram" if self._recipe.train.fsdp else "offload.no_ram", needed=needed, free=free
            )

    def watch(self, reporter: Reporter, on_card: bool) -> SpillWatch:
        """Return the watch for memory that overflows during the following training: the GPU's into RAM, or RAM to disk.
        on_card: it trains on the GPU, with or without offloaded layers."""
        card, rig = self._card_and_rig(on_card)
        where = rig.system if on_card and rig else "unknown" if on_card else "cpu"
        return SpillWatch(reporter, where, partial(memory_now, card, torch.cuda.memory_reserved if on_card else None))

    def _card_and_rig(self, on_card: bool) -> tuple[Card | None, Rig | None]:
        """Return the GPU in use, None on a CPU, and the PC's data for records; both None for a GPU unknown to the
        driver."""
        card = card_of(self._machine) if on_card else None
        return card, Rig.from_machine(self._machine, card) if card or not on_card else None

    def _try(self, ahead: Ahead) -> DoesNotFitError | None:
        """Measure the longest batch with the current settings, write the numbers to run.json and to the workspace's
        record of measurements; return the error that it does not fit, or None.

        It does not fit if memory ran out, or if it took more than the limit. Where a full GPU raises an error instead
        of using RAM (Linux), the limit counts only if the run has one of its own.
        """
        on_card = ahead.step.on_card
        card, rig = self._card_and_rig(on_card)
        longest = ahead.longest()
        limit = self._limit(card, on_card)
        predicted = self._predict(ahead.step, longest, rig)
        planned = {
            "planned_gib": self._run.facts().planned.estimate.on_card_gib,
            "limit_gib": limit / GIB if limit else None,
        }
        batch = {"rows": len(longest.rows), "tokens": longest.tokens, "learned": longest.trained_tokens}
        facts = planned | predicted | batch
        if measured := self._measure(ahead, longest, limit):
            parts = {"allocated": measured.allocated, "reserved": measured.reserved, "card_used": measured.card_used}
            facts |= {f"{name}_gib": size / GIB for name, size in parts.items() if size is not None} | {
                "seconds": measured.seconds
            }
        facts["measured_gib"] = measured.total / GIB if measured else None
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in facts.items()}
        self._run.add_facts(RunFacts(memory=MemoryFacts.model_validate(rounded)))
        if measured and rig and predicted:
            self._recorded = _Recorded(rig, predicted["arithmetic_gib"], measured.total / GIB, measured.context)
            self._add_to_memory_record(rig, predicted["arithmetic_gib"], measured.total / GIB)
        # On Linux a full GPU raises an error; on Windows the driver uses RAM instead, and only the count shows it.
        counts = not on_card or rig is None or rig.system in SPILLING_SYSTEMS or self._run.facts().memory_limit_gib
        if measured is None or (
            limit is not None and counts and measured.total > limit * (TOLERANCE if on_card else 1)
        ):
            return self._refusal(ahead, longest, measured, limit)
        self._log_measurement(facts)
        return None

    def finish(self) -> None:
        """Write the run's peak memory to run.json and to the workspace's record if it is above what the longest batch
        took before the first step, as it can be on a CPU. Does nothing if nothing was measured; a full disk is ignored.
        Called however the run ended."""
        if self._recorded is None:
            return
        facts = self._run.facts()
        peak_gib = (facts.peak_memory_bytes + self._recorded.context) / GIB if facts.peak_memory_bytes else 0.0
        if peak_gib <= self._recorded.measured_gib:
            return
        if facts.memory:
            with suppress(OSError):
                self._run.add_facts(RunFacts(memory=facts.memory.model_copy(update={"peak_gib": round(peak_gib, 4)})))
        self._add_to_memory_record(self._recorded.rig, self._recorded.arithmetic_gib, peak_gib)

    # ---- the memory available -------------------------------------------------------------------------------------
    def _limit(self, card: Card | None, on_card: bool) -> int | None:
        """Return the bytes that this process may use in all, on the GPU or of RAM; None if unknown. memory_limit_gib of
        run.json lowers it."""
        run_limit = self._run.facts().memory_limit_gib
        limits = [int(run_limit * GIB) if run_limit else None]
        if on_card:
            # Subtract what others held before this process used the GPU.
            limits.append(card.free_bytes if card else None)
        else:
            mine = psutil.Process().memory_info().rss
            limits += [psutil.virtual_memory().available + mine, limit_of_process()]
        return min((limit for limit in limits if limit is not None), default=None)

    # ---- the estimate ---------------------------------------------------------------------------------------------
    def _predict(self, step: Step, longest: LongestBatch, rig: Rig | None) -> dict[str, float]:
        """Return the estimate for the measured batch: arithmetic_gib as computed, factor, the correction learned from
        earlier runs (1.0 without any), predicted_gib as their product, and runs, the number of these runs. {} if the
        model's shape is unknown."""
        if self._shape is None:
            return {}
        method = self._recipe.adapter.method
        arithmetic = estimate(self._shape, self._setup(step, longest)).on_card_gib
        known = (
            MemoryRecord(self._workspace).corrections(rig, self._recipe.model.id).for_method(method) if rig else None
        )
        correction = {"factor": known.factor, "runs": known.runs} if known else {"factor": 1.0, "runs": 0}
        return {"arithmetic_gib": arithmetic, "predicted_gib": arithmetic * correction["factor"], **correction}

    def _setup(self, step: Step, longest: LongestBatch) -> Setup:
        """Return the estimate's setup for the measured batch, with the step's present memory settings: rows of the mean
        length, or, packed, one row of all tokens."""
        together = 1 if step.packed else len(longest.rows)
        card = self._card_and_rig(step.on_card)[0] if step.packed else None
        return Setup.from_recipe(
            self._recipe,
            "card" if step.on_card else "cpu",
            card.capability if card else None,
            per_device_train_batch_size=together,
            max_length=max(1, -(-longest.tokens // together)),
            supervised_tokens=-(-longest.trained_tokens // together),
            gradient_checkpointing=step.retreat.checkpointing,
            base_bytes=4 if step.dtype == torch.float32 else 2,
            accumulates=longest.several,
            offloads=step.retreat.offloads,
            kept_layers=step.retreat.kept_layers,
        )

    # ---- the measurement ------------------------------------------------------------------------------------------
    def _measure(self, ahead: Ahead, longest: LongestBatch, limit: int | None) -> Measured | None:
        """Return the measurement of the longest batch; None if it ran out of memory or above the limit, after undoing
        the unfinished step. Stop and Pause take effect meanwhile."""
        measure = self._on_card if ahead.step.on_card else self._on_processor
        try:
            return measure(ahead, longest, limit)
        except _OverLimitError:
            return None
        except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # the traceback holds the tensors
            ahead.step.discard_unfinished()
            return None

    def _on_processor(self, ahead: Ahead, longest: LongestBatch, limit: int | None) -> Measured:
        """Rehearse the longest batch and return the process's peak RAM and the seconds. Raises _OverLimitError, also
        inside the batch, once limit bytes are exceeded."""
        with ResidentPeak(limit) as peak:

            def raise_over_limit() -> None:
                """Raise _OverLimitError once this process has used more RAM than the limit."""
                if peak.is_over:
                    raise _OverLimitError

            with stop_inside_layers(ahead.step.tuned, raise_over_limit):
                seconds = self._rehearse(ahead, longest)
            raise_over_limit()
        return Measured(peak.bytes, seconds=seconds)

    def _on_card(self, ahead: Ahead, longest: LongestBatch, limit: int | None) -> Measured:
        """Rehearse the longest batch and return torch's peak plus everything beside it on the GPU, and the seconds."""
        # Empty the cache of loading and earlier tries: otherwise the peak would include it.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = self._beside_torch()
        try:
            seconds = self._rehearse(ahead, longest)
            torch.cuda.synchronize()
        finally:
            self._add_to_context(before)
        free, total = torch.cuda.mem_get_info()
        most = torch.cuda.max_memory_reserved()
        return Measured(
            most + self._context, torch.cuda.max_memory_allocated(), most, total - free, self._context, seconds
        )

    def _rehearse(self, ahead: Ahead, longest: LongestBatch) -> float:
        """Compute the longest batch, with memory held for the optimizer's states, then whatever else a run computes;
        return the seconds of the batch."""
        started = time.perf_counter()
        with self._room_for_state(ahead.step):
            ahead.step.rehearse(longest)
        seconds = time.perf_counter() - started
        for rehearse in ahead.rehearsals:
            rehearse()
        return seconds

    @contextmanager
    def _room_for_state(self, step: Step) -> Iterator[None]:
        """Context manager: hold as much memory as the optimizer will take for its states in the first step; a resumed
        run has them already."""
        count = sum(p.numel() for p in step.parameters)
        bytes_each = STATE_BYTES.get(self._recipe.train.optim, 2.03)
        size = 0 if step.optimizer.state else int(count * bytes_each)
        held = torch.ones(size, dtype=torch.uint8, device=step.device)
        try:
            yield
        finally:
            del held

    # ---- the record, messages and advice --------------------------------------------------------------------------
    def _add_to_memory_record(self, rig: Rig, arithmetic_gib: float, measured_gib: float) -> None:
        """Add the measurement to the workspace's record; a full disk is ignored."""
        model, method = self._recipe.model.id, self._recipe.adapter.method
        try:
            MemoryRecord(self._workspace).add(self._run.id, rig, model, method, arithmetic_gib, measured_gib)
        except OSError:  # a full disk: the run reports it where it matters
            traceback.print_exc()

    def _log_measurement(self, facts: Mapping[str, object]) -> None:
        """Log the measurement as an event, with the prediction if there is one."""
        key = "probe.measured" if "predicted_gib" in facts else "probe.measured_alone"
        numbers = {name: facts[f"{name}_gib"] for name in ("predicted", "measured") if f"{name}_gib" in facts}
        self._run.log_event("memory", message=msg(key, **numbers, rows=facts["rows"], tokens=facts["tokens"]))

    def _refusal(
        self, ahead: Ahead, longest: LongestBatch, measured: Measured | None, limit: int | None
    ) -> DoesNotFitError:
        """Return the error for a batch that does not fit, with advice. measured: None if memory ran out. limit: bytes,
        None if unknown."""
        needed, most = measured.total / GIB if measured else None, limit / GIB if limit is not None else None
        advice = self._advice(ahead, longest, measured, most)
        return stopped.refusal(needed, most, advice, rows=len(longest.rows), tokens=longest.tokens)

    def advice_when_full(self, ahead: Ahead) -> Message:
        """Return advice on what to change so that the run fits, for a run in training that has no way left to save
        memory. The memory that is free now counts, as other programs may use more than at the start. Nothing is
        measured."""
        on_card = ahead.step.on_card
        card = card_of(this_machine()) if on_card else None
        limit = self._limit(card, on_card)
        if limit is not None and card is not None:
            limit += torch.cuda.memory_reserved()  # free memory of a GPU is in addition to this process's
        return self._advice(ahead, ahead.longest(), None, limit / GIB if limit else None)

    def _advice(self, ahead: Ahead, longest: LongestBatch, measured: Measured | None, limit: float | None) -> Message:
        """Return what to change so that the run fits, with numbers if shape and limit (GiB) are known. measured: None
        if the batch ran out of memory, or was not tried."""
        this = None
        if self._shape is not None and limit is not None:
            step, size = ahead.step, self._recipe.row_length if ahead.step.packed else 1
            card, budget_of = self._card_and_rig(step.on_card)[0], budget.of_machine if step.on_card else budget.of_cpu
            has = budget.of_card(card, self._machine.ram_free_bytes) if card else budget_of(self._machine)
            planned = self._run.facts().planned.budget  # whose further cards are hidden from this process
            equal = {"equal_cards": planned.equal_cards, "equal_free_gib": min(limit, planned.equal_free_gib or 0.0)}
            this = Stopped(
                self._shape, self._recipe, self._setup(step, longest), step.retreat.at_once // size, ahead.train,
                has.model_copy(update={"free_gib": limit} | equal), measured.total / GIB if measured else limit,
                measured is not None,
            )  # fmt: skip
        return stopped.advice(this, ahead.step.on_card)
