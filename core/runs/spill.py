"""Detects training in slow memory: GPU memory that overflows into RAM (Windows), or RAM swapped to disk.

On Windows the NVIDIA driver (536.40 and later) does not refuse memory that a card has not: it takes RAM, and a step
becomes many times slower without a word. What gives it away is a jump of the step's time while what was reserved,
beside what others hold, is as much as the card has. Native Linux refuses instead, so there nothing is ever named so. No
torch; some microseconds a step, and one look at the memory each two seconds.
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

JUMP = 2.0  # times the usual time a token; a laptop that gets hot loses a third
IN_A_ROW = 3  # steps: one slow step is a hiccup
USUAL = 8  # steps that say what is usual; the first of a run does not count
NEAR_TOTAL = 0.95  # of the card
CONTEXT_BYTES = 0.3 * GIB  # of CUDA itself, which torch does not count (docs/memory.md, 1.6: 141 MiB to 0.6 GiB)
SCARCE = 0.04  # of the RAM; below it a system moves programs to the disk
EVERY_S = 2.0


@dataclass(frozen=True)
class Memory:
    """Bytes. reserved: by this process's allocator; used: of the whole card, or of the RAM; others: what was not
    ours."""

    total: int
    used: int
    reserved: int
    others: int = 0


def memory_now(card: Card | None, reserved: Callable[[], int] | None) -> Memory | None:
    """reserved: bytes of this process's allocator on a card; None: it computes on the processor. card: as it was before
    this process came to it, so that its used is what others hold."""
    if reserved is None:
        ram = psutil.virtual_memory()
        return Memory(ram.total, ram.total - ram.available, psutil.Process().memory_info().rss)
    now = gpu.newest(card) if card else None
    if card is None or now is None or now.total_bytes is None or now.used_bytes is None:
        return None
    return Memory(now.total_bytes, now.used_bytes, reserved(), card.used_bytes or 0)


def judge(usual: float, recent: list[float], memory: Memory, where: str, step: int) -> Spill | None:
    """usual, recent: seconds a token, before and in the last steps. where: "cpu", or the system that the card is driven
    by."""
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
    # Others may have grown since the start; while nothing is spilled, used is theirs and ours together.
    others = max(memory.others, memory.used - memory.reserved - CONTEXT_BYTES)
    wanted = memory.reserved + CONTEXT_BYTES + others
    if wanted < NEAR_TOTAL * memory.total:
        return None
    over = max(0.0, wanted - memory.total) / GIB
    return Spill(kind="shared_memory", over_gib=over, slower=slower, step=step)


class SpillWatch:
    """Tells once, as a warning and as `spill` of run.json, and once more when it is over (`spill` is then gone)."""

    def __init__(
        self,
        reporter: Reporter,
        where: str,
        look: Callable[[], Memory | None],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._reporter, self._where, self._memory, self._clock = reporter, where, look, clock
        self._first = True
        self._usual: deque[float] = deque(maxlen=USUAL)
        self._recent: deque[float] = deque(maxlen=IN_A_ROW)
        self._looked_at = float("-inf")
        self._told: Spill | None = None

    def note(self, step: int, seconds: float, tokens: float) -> None:
        """After each step: seconds that it took alone, tokens that it read."""
        if self._first:
            self._first = False
            return
        if len(self._recent) == IN_A_ROW and self._recent[0] < JUMP * (self.usual or float("inf")):
            self._usual.append(self._recent[0])  # what was slow never becomes usual
        self._recent.append(seconds / max(1.0, tokens))
        if self.usual is None or self._clock() - self._looked_at < EVERY_S:
            return
        slow = min(self._recent) >= JUMP * self.usual
        if slow == (self._told is not None):
            return
        self._looked_at = self._clock()
        if not slow:
            self._told = None
            self._reporter.run.add_facts(RunFacts(spill=None))
            self._reporter.run.log_event("decision", message=msg("spill.over"))
        elif (memory := self._memory()) is not None:
            found = judge(self.usual, list(self._recent), memory, self._where, step)
            if found is not None:
                self._told = found
                self._reporter.run.add_facts(RunFacts(spill=found))
                self._reporter.warn(sentence(found))

    @property
    def usual(self) -> float | None:
        return statistics.median(self._usual) if len(self._usual) >= IN_A_ROW else None


def sentence(found: Spill) -> Message:
    """What happened, by how much, and what to try."""
    if found.kind == "disk":
        return msg("spill.disk", slower=found.slower)
    key = "spill.shared_memory_over" if found.over_gib >= 0.05 else "spill.shared_memory"
    return msg(key, slower=found.slower, over=found.over_gib)
