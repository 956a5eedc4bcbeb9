"""Before the first step: the longest batch that the data can make, computed once and thrown away, to see what it needs.

One forward and backward of a step's largest micro-batch, with room held for the optimizer's state and the gradients, and the
largest batch of an evaluation, and a frame of the film. What was measured replaces the estimate, goes into the workspace's record
(core/memory/record) and corrects the next one. A run that does not fit saves memory first, as it would later (core/engine/out_of_memory), and
ends here, with what would fit, where that is not enough. Random states, gradients and adapter are as
before: a run has the same numbers with and without it, bit for bit. Costs less than a step and an evaluation batch. A run that
goes on is probed as well: the memory of another day is another. Imports torch: workers only.
What was found stands in run.json (`MemoryFacts`).
"""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import torch

from core.advice import stopped
from core.advice.stopped import Stopped
from core.engine.device import card_of
from core.engine.step import LongestBatch, Step, stop_inside_layers
from core.engine.variants import kept_weights
from core.errors import DoesNotFitError
from core.files import is_out_of_memory
from core.memory import budget, offloading
from core.memory.arithmetic import estimate, has_room_to_keep_unpacked, kept_unpacked, most_kept_layers
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

STATE_BYTES = {"adamw_torch": 8.0, None: 8.0}  # of the optimizer, a trainable parameter; the 8-bit ones: 2.03
TOLERANCE = 1.01  # a card that reports more used than there is, spilled
LARGEST_CONTEXT = GIB  # docs/memory.md, 1.6: 141 MiB to 0.6 GiB


class _Over(Exception):
    """More than there is, seen between two layers."""


@dataclass(frozen=True)
class Measured:
    """Bytes. whole: of the process on a processor; on a card what this process has there, its CUDA context counted in."""

    whole: int
    allocated: int | None = None
    reserved: int | None = None
    card_used: int | None = None
    context: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Kept:
    """What went into the record; context: bytes that torch's own count leaves out."""

    rig: Rig
    arithmetic_gib: float
    measured_gib: float
    context: int


class Probe:
    """Make it before torch touches a card: what others hold there is read then. Call it with what a run is about to compute."""

    def __init__(self, run: RunFolder, workspace: Workspace, recipe: Recipe, shape: ModelShape | None):
        self._run, self._workspace, self._recipe, self._shape = run, workspace, recipe, shape
        self._machine, self._context = this_machine(), 0
        self._kept: _Kept | None = None
        self._unpacked: kept_weights.KeptWeights | None = None

    def __call__(self, ahead: Ahead) -> None:
        """Raises DoesNotFitError."""
        self._leave_layers(ahead.step, ahead.longest())
        while refusal := self._try(ahead):
            if not ahead.save_memory(ahead.longest().rows):
                raise refusal

    def _leave_layers(self, step: Step, longest: LongestBatch) -> None:
        """Where a card checkpoints, 4-bit weights stay unpacked for a layer's backward and as many layers are not checkpointed as it has
        room for, by the same arithmetic that planned the run: each layer saves its second forward. Whether they fit is then measured like
        all else; where not, all are checkpointed and unpacked anew."""
        limit, retreat = self._limit(self._where(step.on_card)[0], step.on_card), step.retreat
        room = step.on_card and retreat.checkpointing and not retreat.offloads and not self._recipe.train.offload_layers
        if not (room and self._shape and limit):
            return
        _, rig = self._where(step.on_card)
        factor = self._predict(step, longest, rig)["factor"]
        if not retreat.taken and has_room_to_keep_unpacked(self._shape, self._setup(step, longest), limit / GIB, factor):
            self._unpacked = kept_weights.keep(step)
        if self._unpacked and self._unpacked.is_on:
            size = kept_unpacked(self._shape, self._setup(step, longest)) / GIB
            self._run.log_event("decision", message=msg("probe.kept_unpacked", size=size))
        retreat.room_for = most_kept_layers(self._shape, self._setup(step, longest), limit / GIB, factor)
        if retreat.kept_layers:
            step.save_memory()
            facts = {"kept": retreat.kept_layers, "layers": self._shape.num_hidden_layers}
            self._run.log_event("decision", message=msg("probe.kept_layers", **facts))

    def measure_context(self) -> None:
        """Bytes of CUDA's own on the card, which torch does not count: what is used more there, by NVML's count, once the context and
        cuBLAS are made. Call it before the model is loaded; later, what other programs took meanwhile would be in it."""
        before = card_of(self._machine)
        torch.cuda.current_blas_handle()
        torch.cuda.synchronize()
        now = gpu.newest(before) if before else None
        if before and now and before.used_bytes is not None and now.used_bytes is not None:
            used = now.used_bytes - before.used_bytes - torch.cuda.memory_reserved()
            self._context = min(LARGEST_CONTEXT, max(0, used))

    def require_ram(self) -> None:
        """Raises DoesNotFitError where a base is loaded into RAM that is not there: the system would end this process without a word."""
        if not ((self._recipe.train.offload_layers or self._recipe.train.fsdp) and self._shape):
            return
        needed = offloading.ram_gib(self._shape, Setup.of(self._recipe, "card"))
        limits = (psutil.virtual_memory().available, limit_of_process())
        free = min(limit for limit in limits if limit is not None) / GIB
        if needed > free:
            raise DoesNotFitError("fsdp.no_ram" if self._recipe.train.fsdp else "offload.no_ram", needed=needed, free=free)

    def watch(self, reporter: Reporter, on_card: bool) -> SpillWatch:
        """For the training that comes after it."""
        card, rig = self._where(on_card)
        where = rig.system if on_card and rig else "unknown" if on_card else "cpu"
        return SpillWatch(reporter, where, partial(memory_now, card, torch.cuda.memory_reserved if on_card else None))

    def _where(self, on_card: bool) -> tuple[Card | None, Rig | None]:
        card = card_of(self._machine) if on_card else None
        return card, Rig.of(self._machine, card) if card or not on_card else None

    def _try(self, ahead: Ahead) -> DoesNotFitError | None:
        """The longest batch as it is computed now; why it does not fit, None where it does."""
        on_card = ahead.step.on_card
        card, rig = self._where(on_card)
        longest = ahead.longest()
        limit = self._limit(card, on_card)
        predicted = self._predict(ahead.step, longest, rig)
        planned = {"planned_gib": self._run.facts().planned.estimate.on_card_gib, "limit_gib": limit / GIB if limit else None}
        facts = planned | predicted | {"rows": len(longest.rows), "tokens": longest.tokens, "learned": longest.learned}
        if measured := self._measure(ahead, longest, limit):
            parts = {"allocated": measured.allocated, "reserved": measured.reserved, "card_used": measured.card_used}
            facts |= {f"{name}_gib": size / GIB for name, size in parts.items() if size is not None} | {"seconds": measured.seconds}
        facts["measured_gib"] = measured.whole / GIB if measured else None
        rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in facts.items()}
        self._run.add_facts(RunFacts(memory=MemoryFacts.model_validate(rounded)))
        if measured and rig and predicted:
            self._kept = _Kept(rig, predicted["arithmetic_gib"], measured.whole / GIB, measured.context)
            self._keep(rig, predicted["arithmetic_gib"], measured.whole / GIB)
        # A card on Linux says itself when it is full; on Windows it takes RAM instead, and only the count tells.
        counts = not on_card or rig is None or rig.system in SPILLING_SYSTEMS or self._run.facts().memory_limit_gib
        if measured is None or (limit is not None and counts and measured.whole > limit * (TOLERANCE if on_card else 1)):
            return self._refusal(ahead, longest, measured, limit)
        self._say(facts)
        return None

    def finish(self) -> None:
        """After the run, however it ended: where it needed more in the end than its longest batch did, that is what is kept. A
        processor's library keeps something for every new length that it meets, half a gigabyte in 80 packed steps of the starter.
        """
        if self._kept is None:
            return
        facts = self._run.facts()
        whole = (facts.peak_memory_bytes + self._kept.context) / GIB if facts.peak_memory_bytes else 0.0
        if whole <= self._kept.measured_gib:
            return
        if facts.memory:
            with suppress(OSError):
                self._run.add_facts(RunFacts(memory=facts.memory.model_copy(update={"peak_gib": round(whole, 4)})))
        self._keep(self._kept.rig, self._kept.arithmetic_gib, whole)

    # ---- what there is --------------------------------------------------------------------------------------------
    def _limit(self, card: Card | None, on_card: bool) -> int | None:
        """Bytes that this process may have in all; None where that is not known. memory_limit_gib of run.json makes it less."""
        given = self._run.facts().memory_limit_gib
        limits = [int(given * GIB) if given else None]
        if on_card:
            # What others held before this process came to the card is theirs.
            limits.append(card.free_bytes if card else None)
        else:
            mine = psutil.Process().memory_info().rss
            limits += [psutil.virtual_memory().available + mine, limit_of_process()]
        return min((limit for limit in limits if limit is not None), default=None)

    # ---- what was predicted ---------------------------------------------------------------------------------------
    def _predict(self, step: Step, longest: LongestBatch, rig: Rig | None) -> dict[str, Any]:
        """The arithmetic for the very batch that is measured, and the same as earlier runs correct it; {} without a shape."""
        if self._shape is None:
            return {}
        method = self._recipe.adapter.method
        arithmetic = estimate(self._shape, self._setup(step, longest)).on_card_gib
        known = MemoryRecord(self._workspace).corrections(rig, self._recipe.model.id).of(method) if rig else None
        correction = {"factor": known.factor, "runs": known.runs} if known else {"factor": 1.0, "runs": 0}
        return {"arithmetic_gib": arithmetic, "predicted_gib": arithmetic * correction["factor"], **correction}

    def _setup(self, step: Step, longest: LongestBatch) -> Setup:
        """As the arithmetic is asked: rows as wide as the widest, or, packed, one row of all tokens."""
        together = 1 if step.packed else len(longest.rows)
        return Setup.of(
            self._recipe,
            "card" if step.on_card else "cpu",
            micro_batch=together,
            max_length=max(1, -(-longest.tokens // together)),
            supervised_tokens=-(-longest.learned // together),
            gradient_checkpointing=step.retreat.checkpointing,
            base_bytes=4 if step.dtype == torch.float32 else 2,
            accumulates=longest.several,
            offloads=step.retreat.offloads,
            kept_layers=step.retreat.kept_layers,
            keeps_unpacked=bool(self._unpacked and self._unpacked.is_on),
        )

    # ---- what it is -----------------------------------------------------------------------------------------------
    def _measure(self, ahead: Ahead, longest: LongestBatch, limit: int | None) -> Measured | None:
        """None where the memory was not enough. Stop and Pause are heard meanwhile."""
        measure = self._on_card if ahead.step.on_card else self._on_processor
        try:
            return measure(ahead, longest, limit)
        except _Over:
            return None
        except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
            ahead.step.forget()
            return None

    def _on_processor(self, ahead: Ahead, longest: LongestBatch, limit: int | None) -> Measured:
        with ResidentPeak(limit) as peak:

            def check() -> None:
                if peak.is_over:
                    raise _Over

            with stop_inside_layers(ahead.step.tuned, check):
                seconds = self._rehearse(ahead, longest)
            check()
        return Measured(peak.bytes, seconds=seconds)

    def _on_card(self, ahead: Ahead, longest: LongestBatch, limit: int | None) -> Measured:
        # What an earlier try, or the loading, has left in the allocator would count as this one's: its peak begins at what is held now.
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        seconds = self._rehearse(ahead, longest)
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        most = torch.cuda.max_memory_reserved()
        return Measured(most + self._context, torch.cuda.max_memory_allocated(), most, total - free, self._context, seconds)

    def _rehearse(self, ahead: Ahead, longest: LongestBatch) -> float:
        started = time.perf_counter()
        with self._room_for_state(ahead.step):
            ahead.step.rehearse(longest)
        seconds = time.perf_counter() - started
        for rehearse in ahead.rehearsals:
            rehearse()
        return seconds

    @contextmanager
    def _room_for_state(self, step: Step) -> Iterator[None]:
        """Hold as much as the optimizer will, which makes its state in the first step only; a run that goes on has it."""
        count = sum(p.numel() for p in step.parameters)
        bytes_each = STATE_BYTES.get(self._recipe.train.optim, 2.03)
        size = 0 if step.optimizer.state else int(count * bytes_each)
        held = torch.ones(size, dtype=torch.uint8, device=step.device)
        try:
            yield
        finally:
            del held

    # ---- what follows ---------------------------------------------------------------------------------------------
    def _keep(self, rig: Rig, arithmetic_gib: float, measured_gib: float) -> None:
        model, method = self._recipe.model.id, self._recipe.adapter.method
        try:
            MemoryRecord(self._workspace).add(self._run.id, rig, model, method, arithmetic_gib, measured_gib)
        except OSError:  # a full disk: the run says so where it matters
            traceback.print_exc()

    def _say(self, facts: dict[str, Any]) -> None:
        key = "probe.measured" if "predicted_gib" in facts else "probe.measured_alone"
        numbers = {name: facts[f"{name}_gib"] for name in ("predicted", "measured") if f"{name}_gib" in facts}
        self._run.log_event("memory", message=msg(key, **numbers, rows=facts["rows"], tokens=facts["tokens"]))

    def _refusal(self, ahead: Ahead, longest: LongestBatch, measured: Measured | None, limit: int | None) -> DoesNotFitError:
        needed, most = measured.whole / GIB if measured else None, limit / GIB if limit is not None else None
        advice = self._advice(ahead, longest, measured, most)
        return stopped.refusal(needed, most, advice, rows=len(longest.rows), tokens=longest.tokens)

    def would_fit(self, ahead: Ahead) -> Message:
        """In the middle of a run that has no way left to save memory; others may hold more of it now than at the start."""
        on_card = ahead.step.on_card
        card = card_of(this_machine()) if on_card else None
        limit = self._limit(card, on_card)
        if limit is not None and card is not None:
            limit += torch.cuda.memory_reserved()  # what is free on a card is free beside this process
        return self._advice(ahead, ahead.longest(), None, limit / GIB if limit else None)

    def _advice(self, ahead: Ahead, longest: LongestBatch, measured: Measured | None, limit: float | None) -> Message:
        this = None
        if self._shape is not None and limit is not None:
            step, size = ahead.step, self._recipe.row_length if ahead.step.packed else 1
            card, here = self._where(step.on_card)[0], budget.of_machine if step.on_card else budget.of_cpu
            has = budget.of_card(card, self._machine.ram_free_bytes) if card else here(self._machine)
            this = Stopped(
                self._shape, self._recipe, self._setup(step, longest), step.retreat.at_once // size, ahead.train,
                has.model_copy(update={"free_gib": limit}), measured.whole / GIB if measured else limit, measured is not None,
            )  # fmt: skip
        return stopped.advice(this, ahead.step.on_card)
