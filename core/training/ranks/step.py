"""A step on several ranks: micro-batches are divided among them, gradients are summed at rank 0, which alone updates
the adapter. Imports torch: workers only.

The loss of a step is a mean over its trained tokens, so each rank divides by the count of the whole step, and the sum
equals that of one process except for the order of additions. A rank keeps nothing between steps: it gets the weights
each time. So optimizer, RNG states, checkpoints and recovery are rank 0's, as in a run of one rank. An evaluation is
divided too, some batches at a time:
results come back in lines, and rank 0 adds them in the order of one process.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.data.labels import Encoded
from core.engine.batches import Batch
from core.engine.device import card_of
from core.engine.step import Numbers, Rows, Step
from core.engine.variants.preference import SUMS
from core.files import is_out_of_memory
from core.messages import msg
from core.runs.ended import Failed
from core.system.machine import this_machine
from core.training.ranks.group import RankGroup, mesh
from core.training.ranks.helpers import RankError, Ranks
from core.training.ranks.use import UseOfRank

if TYPE_CHECKING:
    from core.engine.variants.fsdp import Sharded

MEASURED_AT_ONCE = 4  # evaluation batches per rank, so that ranks seldom wait for each other
EXTRA = 2 + len(SUMS)  # loss, pairs, their metrics; then for each rank which micro-batch ran out of memory, from 1


class DealtStep(Step):
    """The step of rank 0."""

    ranks: Ranks
    sharded: Sharded | None = None
    _in_use: UseOfRank

    @classmethod
    def on(cls, ranks: Ranks, check: Callable[[], None], *arguments: Any) -> DealtStep:
        """arguments: of Step.of."""
        tuned, recipe, compute, _ = arguments
        sharded = None
        if recipe.train.fsdp:
            from core.engine.variants.fsdp import shard

            assert isinstance(ranks.meeting, Path)
            ranks.assemble(check)
            among = mesh(ranks.meeting, 0, ranks.size, compute.device.type)
            sharded = shard(tuned, compute.device, among, lambda work: ranks.wait(work, check))
            sharded.lead = ranks.gather
            ranks.decided(sharded.said)
            ranks.in_turn(check)
        step = cls.of(*arguments)
        assert isinstance(step, cls)
        step.ranks, step.sharded = ranks, sharded
        step._in_use = UseOfRank.here(step.on_card, card_of(this_machine()) if step.on_card else None)
        ranks.all_ready(sum(parameter.numel() for parameter in step.parameters), check)
        ranks.meet(lambda: RankGroup(ranks.meeting, 0, ranks.size, step.parameters, EXTRA + ranks.size, ranks.host))
        return step

    def begin(self, seed: int) -> None:
        super().begin(seed)  # as the others do
        if self.sharded:
            self.sharded.together = False

    def compute(self, parts: Sequence[Rows], learning_rate: float, check: Callable[[], None] = lambda: None) -> Numbers:
        # KTO's loss depends on the whole micro-batch (engine/variants/preference): kept whole, it equals that of one
        # rank.
        is_of_batch = self.preference and self.preference.objective == "kto"
        return super().compute(
            parts if is_of_batch else divided(parts, self.ranks.size, self.tokens), learning_rate, check
        )

    def summed(self, parts: Sequence[Rows], batches: Sequence[Batch], check: Callable[[], None]) -> torch.Tensor:
        dealt, whole = deal([self.tokens(rows) for rows in parts], self.ranks.size), self.whole(batches)
        passes = max(map(len, dealt))
        self.ranks.order(
            [[[vars(row) for row in parts[number]] for number in numbers] for numbers in dealt], passes=passes,
            whole=whole, taken=self.retreat.taken, room_for=self.retreat.room_for, scaler=self.scaler.state_dict(),
            seed=int(torch.randint(2**31, ())),
        )  # fmt: skip
        self.ranks.group.weights(lambda work: self.ranks.wait(work, check))
        started = time.perf_counter()
        rows, own = [parts[number] for number in dealt[0]], [batches[number] for number in dealt[0]]
        with self._together(passes):
            extra, failure = attempt(self, rows, own, whole, (0, self.ranks.size), check)
        took = time.perf_counter() - started
        sums = self.ranks.group.gradients(extra, lambda work: self.ranks.wait(work, check, took))
        for rank, at in enumerate(sums[EXTRA:].int().tolist()):
            if at:
                self.computing = parts[dealt[rank][at - 1]]
                raise failure or MemoryError(f"rank {rank}")
        self._told, self._pairs = sums[2:EXTRA], int(sums[1])
        return sums[0]

    @contextmanager
    def _together(self, passes: int, trains: bool = True) -> Iterator[None]:
        """As `shared`. Raises RankError where this rank has no memory even for a layer: the others would wait for it in
        vain."""
        try:
            with shared(self.sharded, passes, trains):
                yield
        except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
            if not is_out_of_memory(error):
                raise
            reason = Failed.of(error, Path()).message
            raise RankError("ranks.failed", msg("ranks.fewer"), rank=0, ranks=self.ranks.size, reason=reason) from error

    def finished(self) -> None:
        super().finished()
        if own := self._in_use.look():
            self.ranks.use[0] = own
            self.ranks.tell(tuple(used for _, used in sorted(self.ranks.use.items())))

    def measured(self, batches: Iterator[Rows], check: Callable[[], None]) -> Iterator[tuple[int, float, int]]:
        is_first = True
        while some := list(islice(batches, MEASURED_AT_ONCE * self.ranks.size)):
            dealt = deal([self.tokens(rows) for rows in some], self.ranks.size)
            self.ranks.order(
                [[[vars(row) for row in some[number]] for number in numbers] for numbers in dealt],
                passes=max(map(len, dealt)), measures=True, weights=is_first, taken=self.retreat.taken,
                room_for=self.retreat.room_for,
            )  # fmt: skip
            if is_first:
                self.ranks.group.weights(lambda work: self.ranks.wait(work, check))
            started, is_first = time.perf_counter(), False
            with self._together(max(map(len, dealt)), trains=False):
                own, failure = measured(self, [some[number] for number in dealt[0]], check)
            answers = self.ranks.answers(check, time.perf_counter() - started)
            found: dict[int, tuple[float, int]] = {}
            for rank, (numbers, each) in enumerate(
                zip(dealt, [own, *(answer["measured"] for answer in answers)], strict=True)
            ):
                if len(each) < len(numbers):
                    self.computing = some[numbers[len(each)]]
                    raise failure or MemoryError(f"rank {rank}")
                found |= dict(zip(numbers, each, strict=True))
            for answer in answers:
                self._told, self._pairs = (
                    self._told + torch.tensor(answer["told"]).to(self._told),
                    self._pairs + answer["pairs"],
                )
            for number, rows in enumerate(some):
                yield len(rows), *found[number]


@contextmanager
def shared(sharded: Sharded | None, passes: int, trains: bool = True) -> Iterator[None]:
    """Context of a rank's part of a step or evaluation, for a sharded base: afterwards the ranks are in sync."""
    if sharded:
        sharded.begin()
    yield
    if sharded:
        sharded.complete(passes, trains)


def measured(
    step: Step, parts: Sequence[Rows], check: Callable[[], None] = lambda: None
) -> tuple[list[tuple[float, int]], Exception | None]:
    """The results of `Step.measure` for a rank's batches, up to an out-of-memory error, and that error."""
    found: list[tuple[float, int]] = []
    for rows in parts:
        check()
        try:
            found.append(step.measure(rows, compares=True))
        except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
            return found, error
    return found, None


def attempt(
    step: Step, parts: Sequence[Rows], batches: Sequence[Batch], whole: tuple[float, float], rank: tuple[int, int],
    check: Callable[[], None] = lambda: None,
) -> tuple[torch.Tensor, Exception | None]:  # fmt: skip
    """Forward and backward of a rank's part; returns the values to sum, and an out-of-memory error. rank: which of how
    many."""
    extra, failure, at = torch.zeros(EXTRA + rank[1]), None, 0

    def entering(number: int) -> None:
        nonlocal at
        check()
        at, step.computing = number, parts[number]

    try:
        extra[0] = step.backward(batches, entering, whole=whole)
    except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
        failure, extra[EXTRA + rank[0]] = error, at + 1
    extra[1], extra[2:EXTRA] = step._pairs, step._told
    return extra, failure


def serve(
    step: Step,
    group: RankGroup,
    order: dict[str, Any],
    rank: tuple[int, int],
    say: Callable[..., None],
    sharded: Sharded | None = None,
) -> None:
    """On another rank: compute its part of a step or evaluation, or join a gather that only rank 0 needs. say: reports
    to rank 0 that it is done, with results."""
    if sharded and "gather" in order:
        return sharded.repeat(order["gather"])
    if [step.retreat.taken, step.retreat.room_for] != [order["taken"], order["room_for"]]:
        step.retreat.taken, step.retreat.room_for = order["taken"], order["room_for"]
        step.save_memory()
    parts = [[Encoded(**row) for row in rows] for rows in order["parts"]]
    step.told()
    if order.get("measures"):
        if order["weights"]:
            group.weights(lambda work: work.wait())
        step.tuned.eval()
        with shared(sharded, order["passes"], trains=False):
            found, failure = measured(step, parts)
        say(done=order["number"], measured=found, told=step._told.tolist(), pairs=step._pairs)
    else:
        step.tuned.train()
        step.scaler.load_state_dict(order["scaler"])
        torch.manual_seed(order["seed"] + rank[0])
        group.weights(lambda work: work.wait())
        with shared(sharded, order["passes"]):
            extra, failure = attempt(step, parts, [step.batch(rows) for rows in parts], tuple(order["whole"]), rank)
        say(done=order["number"])
        group.gradients(extra, lambda work: work.wait())
        step.optimizer.zero_grad(set_to_none=True)
    if failure:
        step.forget()


def divided(parts: Sequence[Rows], ranks: int, tokens: Callable[[Rows], int]) -> list[Rows]:
    """parts, the largest halved until every rank gets the same number, as far as there are rows. A pair is one row."""
    found = [*parts]
    while len(found) % ranks:
        largest = max((rows for rows in found if len(rows) > 1), key=tokens, default=None)
        if largest is None:
            break
        at = next(number for number, rows in enumerate(found) if rows is largest)
        found[at : at + 1] = [largest[0::2], largest[1::2]]  # alternating: they are sorted by length
    return found


def deal(sizes: Sequence[int], ranks: int) -> list[list[int]]:
    """Indices of sizes for each rank: the largest first, to the rank with the least."""
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    held = [0] * ranks
    for number in sorted(range(len(sizes)), key=lambda each: -sizes[each]):
        least = held.index(min(held))
        dealt[least].append(number)
        held[least] += sizes[number]
    return dealt
