"""A step on several ranks: its micro-batches are divided among them, and one all-reduce gives each the sum of all
gradients, with which each updates its own adapter. Imports torch: workers only.

The loss of a step is a mean over its trained tokens, so each rank divides by the count of the whole step, and the sum
equals that of one process except for the order of additions. Rank 0 decides everything: it sends the rows, the learning
rate and the verdict, and after it has gone back, or was resumed, its adapter and optimizer states. An evaluation is
divided too, some batches at a time; the results are added in the order of one process.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.device_mesh import DeviceMesh

from core.data.labels import Encoded
from core.engine import optimizer
from core.engine.batches import Batch
from core.engine.device import Compute, States, card_of
from core.engine.step import Rows, Step, StepResult
from core.engine.variants.preference import SUMS
from core.files import JsonObject, is_out_of_memory
from core.messages import msg
from core.recipe import Recipe
from core.runs.ended import Failed
from core.system.machine import this_machine
from core.training.ranks.group import Ranks
from core.training.ranks.meeting import RankError
from core.training.ranks.use import UseOfRank

if TYPE_CHECKING:
    from peft import PeftModel

    from core.engine.variants.fsdp import Sharded

EVALUATED_AT_ONCE = 4  # evaluation batches per rank, so that ranks seldom wait for each other
EXTRA = 2 + len(SUMS)  # loss, pairs, their metrics; then for each rank which micro-batch ran out of memory, from 1


class SharedStep(Step):
    """The step of every rank: the trainer calls rank 0's, which sends orders to the others (`follow`)."""

    ranks: Ranks
    sharded: Sharded | None = None
    stops_inside = False
    _in_use: UseOfRank
    _is_alike = False  # whether the others have this adapter and its optimizer states
    _order: dict[str, Any]

    @classmethod
    def on(
        cls, ranks: Ranks, base: str, tuned: PeftModel, recipe: Recipe, compute: Compute, pad_token_id: int
    ) -> SharedStep:
        """Create the step of this rank, the base sharded if the recipe says so, once all have the same base. base: its
        fingerprint. Raises RunError where ranks differ."""
        sharded = None
        if recipe.train.fsdp:
            from core.engine.variants.fsdp import shard

            mesh = DeviceMesh(compute.device.type, range(ranks.size))
            lead = None if ranks.rank else lambda layer: ranks.order("gather", layer=layer)
            sharded = shard(tuned, compute.device, mesh, lead)
            ranks.report_decision(sharded.message)
            ranks.take_part_in_exchanges(ranks.size - ranks.rank)
        step = cls.from_recipe(tuned, recipe, compute, pad_token_id)
        assert isinstance(step, cls)
        step.ranks, step.sharded = ranks, sharded
        step._in_use = UseOfRank.of_this_process(step.on_card, card_of(this_machine()) if step.on_card else None)
        ranks.agree(base)
        return step

    # ---- rank 0 ---------------------------------------------------------------------------------------------------
    def begin(self, seed: int) -> None:
        """Prepare this rank for the first step of an attempt: random state, memory settings and fused layers, as
        `Step.begin`; every rank calls it. From then on rank 0 announces each gathering of a sharded layer, except in
        passes that all ranks compute together."""
        super().begin(seed)
        if self.sharded:
            self.sharded.together = False

    def restore(self, weights: dict[str, torch.Tensor], states: States) -> None:
        """Restore as `Step.restore`; the next order sends adapter and optimizer states to the others."""
        super().restore(weights, states)
        self._is_alike = False

    def discard_unfinished(self) -> None:
        """Undo what an unfinished step has changed on this rank (gradients, loss scaler, random state), as
        `Step.discard_unfinished`. With the next order rank 0 sends adapter and optimizer states to the other ranks
        again."""
        super().discard_unfinished()
        self._is_alike = False

    def reset_to_start(self) -> None:
        """Restore adapter, optimizer and random state from before the first step, as `Step.reset_to_start`. With the
        next order rank 0 sends adapter and optimizer states to the other ranks again."""
        super().reset_to_start()
        self._is_alike = False

    def compute(
        self, parts: Sequence[Rows], learning_rate: float, check: Callable[[], None] = lambda: None
    ) -> StepResult:
        """Compute a step as `Step.compute`, with the largest micro-batches halved until their number is a multiple of
        the ranks or each has one row; KTO's are not halved."""
        # KTO's loss depends on all rows of a micro-batch (engine/variants/preference): not divided, it equals that of
        # one rank.
        is_of_batch = self.criterion and self.criterion.objective == "kto"
        self._order = {"learning_rate": learning_rate}
        return super().compute(
            parts if is_of_batch else halved(parts, self.ranks.size, self.tokens), learning_rate, check
        )

    def backward_step(self, parts: Sequence[Rows], batches: Sequence[Batch], check: Callable[[], None]) -> torch.Tensor:
        """Compute forward and backward of the micro-batches on all ranks, and return the summed loss. check is called
        once, before. If a rank ran out of memory, `computing` is set to the rows that failed, and this rank's error, or
        MemoryError for another's, is raised."""
        dealt, divisor = deal([self.tokens(rows) for rows in parts], self.ranks.size), self.loss_divisor(batches)
        check()  # from here on all ranks compute: a Stop meanwhile takes effect at the step's end
        self._order |= {"divisor": divisor, "seed": int(torch.randint(2**31, ()))}
        self._order_all("step", parts, dealt)
        rows, own = [parts[number] for number in dealt[0]], [batches[number] for number in dealt[0]]
        sums, failure = self._share(rows, own, divisor, max(map(len, dealt)))
        for rank, at in enumerate(sums[EXTRA:].int().tolist()):
            if at:
                self.computing = parts[dealt[rank][at - 1]]
                raise failure or MemoryError(f"rank {rank}")
        self._pair_sums, self._pairs = sums[2:EXTRA], int(sums[1])
        return sums[0]

    def apply(self, is_good: bool, is_first: bool = False) -> None:
        """Apply or discard the update as `Step.apply`, on every rank by rank 0's order."""
        if self.ranks.rank == 0:
            self.ranks.order("apply", is_good=is_good)
        super().apply(is_good, is_first)

    def note_finished(self) -> None:
        """Mark the step as done, as `Step.note_finished`, and publish this rank's use."""
        super().note_finished()
        self.ranks.publish_use(self._in_use.read())

    def evaluate_batches(self, batches: Iterator[Rows], check: Callable[[], None]) -> Iterator[tuple[int, float, int]]:
        """Yield (number of rows, summed loss, trained tokens) of each batch, computed by all ranks. If a rank ran out
        of memory, `computing` is set to the rows and this rank's error, or MemoryError for another's, is raised."""
        while some := list(islice(batches, EVALUATED_AT_ONCE * self.ranks.size)):
            check()
            dealt = deal([self.tokens(rows) for rows in some], self.ranks.size)
            self._order = {}
            self._order_all("measure", some, dealt)
            results, failure = self._evaluate_share(some, dealt)
            for rows, (_, _, is_failed) in zip(some, results, strict=True):
                if is_failed:
                    self.computing = rows
                    raise failure or MemoryError(f"{len(rows)} rows")
            for rows, (loss, count, _) in zip(some, results, strict=True):
                yield len(rows), loss, int(count)

    def _order_all(self, name: str, parts: Sequence[Rows], dealt: list[list[int]]) -> None:
        """Send the order `name` with parts, the indices of them dealt to each rank, memory settings and loss scaler;
        adapter and optimizer states too if the others lack them."""
        rows = [[vars(row) for row in part] for part in parts]
        states = None if self._is_alike else {"optimizer": self.optimizer.state_dict()}
        self.ranks.order(
            name, **self._order, parts=rows, dealt=dealt, states=states, taken=self.retreat.reductions,
            room_for=self.retreat.uncheckpointed_layers, scaler=self.scaler.state_dict(),
        )  # fmt: skip
        if states:
            self.ranks.share([parameter.detach() for parameter in self.parameters])
        self._is_alike = True

    # ---- every rank -----------------------------------------------------------------------------------------------
    def _share(
        self, rows: Sequence[Rows], own: Sequence[Batch], divisor: tuple[float, float], passes: int
    ) -> tuple[torch.Tensor, Exception | None]:
        """Compute forward and backward of this rank's part; afterwards the gradients of every rank are the sums of all.
        own: rows as batches. divisor: of the whole step. passes: the most micro-batches of any rank.

        Returns the sums of the loss, the pairs, their metrics, and which micro-batch of each rank ran out of memory,
        from 1; and this rank's out-of-memory error.
        """
        extra, failure, at = torch.zeros(EXTRA + self.ranks.size), None, 0

        def note_rows(number: int) -> None:
            """Note the number of this rank's micro-batch that is being computed, so that the one that ran out of memory
            is known afterwards, and set `computing` to its rows."""
            nonlocal at
            at, self.computing = number, rows[number]

        started = time.perf_counter()
        with self._together(passes, trains=True):
            try:
                extra[0] = self.backward(own, note_rows, divisor=divisor)
            except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
                failure, extra[EXTRA + self.ranks.rank] = self._out_of_memory(error), at + 1
        extra[1], extra[2:EXTRA] = self._pairs, self._pair_sums
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return self.ranks.all_reduce(gradients, extra, seconds=time.perf_counter() - started), failure

    def _evaluate_share(
        self, some: Sequence[Rows], dealt: list[list[int]]
    ) -> tuple[list[list[float]], Exception | None]:
        """Evaluate the batches of `some` that are dealt to this rank (indices by rank). Returns (loss, count, 1 if it
        ran out of memory) of every batch of all ranks; and this rank's error."""
        results, failure = torch.zeros(len(some) + 1, max(3, 1 + len(SUMS)), dtype=torch.float64), None
        started, sums, pairs = time.perf_counter(), self._pair_sums, self._pairs
        self._pair_sums, self._pairs = torch.zeros_like(sums), 0
        with self._together(max(map(len, dealt)), trains=False):
            for number in dealt[self.ranks.rank]:
                try:
                    results[number, :2] = torch.tensor(
                        self.evaluate_batch(some[number], compares=True), dtype=results.dtype
                    )
                except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
                    failure, results[number, 2] = self._out_of_memory(error), 1
                    break
        results[-1, 0], results[-1, 1 : 1 + len(SUMS)] = self._pairs, self._pair_sums
        results = self.ranks.all_reduce([], results.flatten(), seconds=time.perf_counter() - started).view_as(results)
        self._pair_sums, self._pairs = sums + results[-1, 1 : 1 + len(SUMS)].to(sums), pairs + int(results[-1, 0])
        return results[:-1, :3].tolist(), failure

    def _out_of_memory(self, error: Exception) -> Exception:
        """Return error if memory ran out, without the tensors in its traceback; raise it otherwise."""
        if not is_out_of_memory(error):
            raise error
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
        return error

    @contextmanager
    def _together(self, passes: int, trains: bool) -> Iterator[None]:
        """Context manager of this rank's part, for a sharded base: afterwards this rank has joined the gathers of
        `passes` micro-batches, its own included, so that the ranks are in sync. trains: with backward.

        Raises RankError if this rank has no memory even for a layer, since the others would wait for it in vain, and if
        one is gone.
        """
        if not self.sharded:
            yield
            return
        try:
            self.sharded.begin()
            yield
            self.sharded.complete(passes, trains)
        except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
            if is_out_of_memory(error):
                reason = Failed.from_error(error, Path()).message
                facts = {"rank": self.ranks.rank, "ranks": self.ranks.size, "reason": reason}
                raise RankError("ranks.failed", msg("ranks.fewer"), **facts) from error
            with self.ranks.rank_errors():
                raise

    # ---- the other ranks ------------------------------------------------------------------------------------------
    def follow(self) -> None:
        """Compute what rank 0 orders, until the run is over. Raises torch's error if rank 0 is gone."""
        while (order := self.ranks.receive())["name"] != "end":
            getattr(self, f"_on_{order.pop('name')}")(**order)
            self.ranks.publish_use(self._in_use.read())

    def _on_gather(self, layer: int) -> None:
        """Take part in gathering a sharded layer, which rank 0 announced."""
        assert self.sharded
        self.sharded.repeat(layer)

    def _on_step(self, learning_rate: float, divisor: Sequence[float], seed: int, **order: Any) -> None:
        """Compute this rank's part of a step that rank 0 ordered. If no rank ran out of memory, clip the summed
        gradients, for rank 0's next order to apply or discard them; if this rank did, undo the unfinished step."""
        parts, dealt = self._prepare(**order)
        self.tuned.train()
        optimizer.set_learning_rate(self.optimizer, learning_rate)
        torch.manual_seed(seed + self.ranks.rank)
        rows = [parts[number] for number in dealt[self.ranks.rank]]
        batches = [self.batch(each) for each in rows]
        sums, failure = self._share(rows, batches, (divisor[0], divisor[1]), max(map(len, dealt)))
        if failure:
            self.discard_unfinished()
        elif not sums[EXTRA:].any():
            self.clip()

    def _on_apply(self, is_good: bool) -> None:
        """Apply the update of the last step on this rank, or discard it if is_good is False, as rank 0 ordered."""
        self.apply(is_good)

    def _on_measure(self, **order: Any) -> None:
        """Evaluate this rank's batches of those that rank 0 dealt, and undo what is unfinished if memory runs out."""
        parts, dealt = self._prepare(**order)
        self.tuned.eval()
        _, failure = self._evaluate_share(parts, dealt)
        if failure:
            self.discard_unfinished()

    def _prepare(
        self,
        parts: Sequence[Sequence[JsonObject]],
        dealt: list[list[int]],
        states: Mapping[str, JsonObject] | None,
        taken: list[str],
        room_for: int,
        scaler: JsonObject,
    ) -> tuple[list[list[Encoded]], list[list[int]]]:
        """Clear gradients, take over rank 0's memory settings and scaler, and, if sent, its optimizer states and
        adapter; return the parts as Encoded rows, and dealt."""
        self.optimizer.zero_grad(set_to_none=True)
        if [self.retreat.reductions, self.retreat.uncheckpointed_layers] != [taken, room_for]:
            self.retreat.reductions, self.retreat.uncheckpointed_layers = taken, room_for
            self.save_memory()
        self.scaler = self._new_scaler()
        self.scaler.load_state_dict(scaler)
        if states:
            self.optimizer.load_state_dict(states["optimizer"])
            self.ranks.share([parameter.detach() for parameter in self.parameters])
        self.reset_pair_metrics()
        return [[Encoded(**row) for row in rows] for rows in parts], dealt


def halved(parts: Sequence[Rows], ranks: int, tokens: Callable[[Rows], int]) -> list[Rows]:
    """Halve the largest part (by tokens) until the number of parts is a multiple of ranks, as far as there are parts of
    several rows. A pair is one row."""
    pieces = [*parts]
    while len(pieces) % ranks:
        largest = max((rows for rows in pieces if len(rows) > 1), key=tokens, default=None)
        if largest is None:
            break
        at = next(number for number, rows in enumerate(pieces) if rows is largest)
        pieces[at : at + 1] = [largest[0::2], largest[1::2]]  # alternating: they are sorted by length
    return pieces


def deal(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Return indices of sizes for each rank: the largest first, each to the rank with the smallest sum so far."""
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    tokens_of = [0] * ranks
    for number in sorted(range(len(sizes)), key=lambda each: -sizes[each]):
        least = tokens_of.index(min(tokens_of))
        dealt[least].append(number)
        tokens_of[least] += sizes[number]
    return dealt
