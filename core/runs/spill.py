"""Detection of training in slow memory: GPU memory that overflows into RAM (Windows), or RAM swapped to disk.

On Windows the NVIDIA driver (536.40 and later) does not refuse memory beyond the GPU's: it takes RAM, and a step
silently becomes many times slower. The sign is a jump of the step's time while the reserved memory, with that of other
programs, reaches the GPU's total. Native Linux refuses instead, so nothing is reported there. No torch; some
microseconds a step, and one look at the memory each two seconds.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from core.messages import Message, msg
from core.runs.reporter import Reporter
from core.runs.run_json import RunFacts, Spill
from core.system import gpu
from core.system.gpu import Card
from core.system.machine import SPILLING_SYSTEMS
from core.values import GIB

JUMP = 2.0  # times the usual time a token; a hot laptop loses only a third
IN_A_ROW = 3  # steps: one slow step is a hiccup
USUAL = 8  # steps that define the usual time; the first of a run does not count
NEAR_TOTAL = 0.95  # share of the GPU's memory
CONTEXT_BYTES = 0.3 * GIB  # memory of CUDA itself, which torch does not count (docs/memory.md, 1.6: 141 MiB to 0.6 GiB)
SCARCE = 0.04  # share of the RAM; with less free the system swaps
EVERY_S = 2.0


@dataclass(frozen=True)
class Memory:
    """Memory in bytes.

    reserved: by this process's allocator; used: of the whole GPU, or of the RAM; others: used by other processes.
    """

    total: int
    used: int
    reserved: int
    others: int = 0


def memory_now(card: Card | None, reserved: Callable[[], int] | None) -> Memory | None:
    """Return the present use of memory, or None if it cannot be read.

    reserved: returns the bytes of this process's allocator on a GPU; None on the CPU. card: as it was before this
    process used it, so that its used_bytes are those of other processes.
    """
    if reserved is None:
        ram = psutil.virtual_memory()
        return Memory(ram.total, ram.total - ram.available, psutil.Process().memory_info().rss)
    now = gpu.newest(card) if card else None
    if card is None or now is None or now.total_bytes is None or now.used_bytes is None:
        return None
    return Memory(now.total_bytes, now.used_bytes, reserved(), card.used_bytes or 0)


def judge(usual: float, recent: list[float], memory: Memory, where: str, step: int) -> Spill | None:
    """Return the overflow that explains IN_A_ROW steps slower than JUMP times usual, or None if memory is not near its
    limit or this system does not spill.

    usual, recent: seconds a token, before and in the last steps. where: "cpu", or the operating system that drives the
    GPU.
    """
    if len(recent) < IN_A_ROW or usual <= 0 or min(recent) < JUMP * usual:
        return None
    slower = statistics.median(recent) / usual
    if where == "cpu":
        return (
            Spill(kind="disk", over_gib=0.0, slower=slower, step=step)
            if memory.used > (1 - SCARCE) * memory.total
            else None
        )
    if where not in SPILLING_SYSTEMS:
        return None
    # Other processes may have grown since the start; while nothing spills, used is theirs plus ours.
    others = max(memory.others, memory.used - memory.reserved - CONTEXT_BYTES)
    demand = memory.reserved + CONTEXT_BYTES + others
    if demand < NEAR_TOTAL * memory.total:
        return None
    over = max(0.0, demand - memory.total) / GIB
    return Spill(kind="shared_memory", over_gib=over, slower=slower, step=step)


class SpillWatch:
    """Reports an overflow once, as a warning and as `spill` of run.json, and its end once (`spill` is then None)."""

    def __init__(
        self,
        reporter: Reporter,
        where: str,
        look: Callable[[], Memory | None],
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin without a usual time of a step. where: "cpu", or the operating system that drives the GPU. look:
        returns the present memory, None if unknown. clock: returns seconds."""
        self._reporter, self._where, self._memory, self._clock = reporter, where, look, clock
        self._first = True
        self._usual: deque[float] = deque(maxlen=USUAL)
        self._recent: deque[float] = deque(maxlen=IN_A_ROW)
        self._looked_at = float("-inf")
        self._warned: Spill | None = None

    def note(self, step: int, seconds: float, tokens: float) -> None:
        """Record a step: the seconds that it took alone and the tokens that it read. Warns, and writes `spill` to
        run.json, once steps stay slow because memory overflows, and notes when that is over."""
        if self._first:
            self._first = False
            return
        if len(self._recent) == IN_A_ROW and self._recent[0] < JUMP * (self.usual or float("inf")):
            self._usual.append(self._recent[0])  # slow steps never define the usual time
        self._recent.append(seconds / max(1.0, tokens))
        if self.usual is None or self._clock() - self._looked_at < EVERY_S:
            return
        slow = min(self._recent) >= JUMP * self.usual
        if slow == (self._warned is not None):
            return
        self._looked_at = self._clock()
        if not slow:
            self._warned = None
            self._reporter.run.add_facts(RunFacts(spill=None))
            self._reporter.run.log_event("decision", message=msg("spill.over"))
        elif (memory := self._memory()) is not None:
            spill = judge(self.usual, list(self._recent), memory, self._where, step)
            if spill is not None:
                self._warned = spill
                self._reporter.run.add_facts(RunFacts(spill=spill))
                self._reporter.warn(sentence(spill))

    @property
    def usual(self) -> float | None:
        """Return the usual seconds a token: the median of the latest steps that were not slow; None with fewer than
        IN_A_ROW of them."""
        return statistics.median(self._usual) if len(self._usual) >= IN_A_ROW else None


def sentence(spill: Spill) -> Message:
    """Describe the overflow: what happened, by how much, and what to try."""
    if spill.kind == "disk":
        return msg("spill.disk", slower=spill.slower)
    key = "spill.shared_memory_over" if spill.over_gib >= 0.05 else "spill.shared_memory"
    return msg(key, slower=spill.slower, over=spill.over_gib)
