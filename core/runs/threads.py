"""The number of threads of a training on the CPU, adapted between steps to the time they take. No torch.

Threads of one product wait for each other: while another program holds one core of two, two threads are slower than
one, many times where they spin while they wait (core/system/processes). So a count is only changed after a trial:
fewer, or again more, for TRIED steps, and it stays only if a step became FASTER by it; a trial whose first step is
slower ends at once. The load of other programs is only a reason to try, and fewer threads stay only while it lasts.
Each decision doubles the patience before the next, so that a load that comes and goes is not chased. A step that took
JOLT times as long is reason enough for a trial at once: two threads of two cores beside one busy program take ten times
as long.

The count does not change a run's numbers, checked bit for bit: torch distributes the rows of a product, not the sums in
them. The one sum that differs is that over all of a tensor beyond 32,768 numbers, which no step takes.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from core.messages import Message, msg

TRIED = 3  # steps of a trial
FASTER = 0.9  # a trial succeeds at this share of the time before, or less; the rest is chance
JOLT = 2.0  # times the usual time of one step
SLOWER = 1.3  # times the best time with this count: a reason to try, if the load of other programs is unknown
UNUSED = 0.4  # of a core: the load of a desktop itself, which is ignored
# seconds of steps between two decisions; after CALM_S without one the wait is SOONEST_S again
SOONEST_S, LATEST_S, CALM_S = 5.0, 320.0, 600.0


@dataclass
class Threads:
    """Chooses the number of threads between steps.

    most: what the person allows. cores: those that this process may use. others: returns the cores that other programs
    used since the last call, None if unknown. use: sets torch's number of threads.
    """

    most: int
    cores: int
    others: Callable[[], float | None]
    use: Callable[[int], None]
    now: int = field(init=False)
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=TRIED))  # seconds a token
    _best: dict[int, float] = field(default_factory=dict)  # best seconds a token, by count
    _before: tuple[int, float] | None = None  # during a trial: the count before it, and its seconds a token
    _wait: float = SOONEST_S  # seconds of steps until the next look
    _rest: float = 0.0  # seconds of steps until a jolt counts again, after a decision
    _patience: float = SOONEST_S
    _calm: float = 0.0  # seconds of steps since the last trial
    _has_reason: bool = False  # at the last look
    _is_warm: bool = False

    def __post_init__(self) -> None:
        """Start with all threads that the person allows."""
        self.now = self.most

    def note(self, seconds: float, tokens: float) -> Message | None:
        """Record a step, and begin, judge or end a trial of another number of threads: the seconds that it took alone
        and the tokens that it read.

        Returns a message once a trial has succeeded, else None.
        """
        if self.most == 1:
            return None
        if not self._is_warm:  # the first step allocates and compiles
            self._is_warm = True
            self.others()
            return None
        took = seconds / max(1.0, tokens)
        usual = statistics.median(self._recent) if self._recent else self._best.get(self.now, took)
        self._recent.append(took)
        self._wait, self._rest, self._calm = self._wait - seconds, self._rest - seconds, self._calm + seconds
        if self._before:
            return self._judge(*self._before)
        if took > JOLT * usual and self._rest <= 0 and (fewer := self._beside(self.others())) < self.now:
            self._before, self._has_reason = (self.now, took), False
            self._use_threads(fewer)
        elif len(self._recent) == TRIED and self._wait <= 0:
            self._look()
        return None

    def _beside(self, others: float | None) -> int:
        """Return the count that leaves other programs the cores they use; the present count if that is unknown."""
        return self.now if others is None else max(1, min(self.most, self.cores - math.ceil(others - UNUSED)))

    def _look(self) -> None:
        """Start a trial if two looks in a row find a reason for another number of threads: cores that other programs
        use or free, or, where that is unknown, the steps' time."""
        usual, others = statistics.median(self._recent), self.others()
        best = self._best[self.now] = min(usual, self._best.get(self.now, usual))
        count = self._beside(others)
        if others is None:
            count = max(1, min(self.most, self.now - 1 if usual > SLOWER * best else self.now + 1))
        is_sure, self._has_reason = self._has_reason, count != self.now
        self._wait = 0.0 if self._has_reason else SOONEST_S
        if self._has_reason and not is_sure:
            self._recent.clear()  # only steps with the reason are compared
        elif self._has_reason:
            self._before, self._has_reason = (self.now, usual), False
            self._use_threads(count)

    def _judge(self, count: int, usual: float) -> Message | None:
        """End a trial: return its message if steps are faster, else go back to count threads and wait longer; None also
        while undecided. usual: seconds a token before."""
        tried = statistics.median(self._recent)
        if len(self._recent) < TRIED and tried < usual:
            return None
        self._patience = SOONEST_S if self._calm > CALM_S else min(LATEST_S, 2 * self._patience)
        self._before, self._wait, self._rest, self._calm = None, self._patience, self._patience, 0.0
        if tried > FASTER * usual or (self.now < count <= self._beside(self.others())):
            # or the load of the others has already ended
            self._use_threads(count)
            return None
        self._recent.clear()
        return msg(
            "threads.fewer" if self.now < count else "threads.more", now=self.now, before=count, faster=usual / tried
        )

    def _use_threads(self, count: int) -> None:
        """Let torch use count threads, and forget the times with another number."""
        self.now = count
        self._recent.clear()
        self.use(count)
