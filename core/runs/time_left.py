"""An estimate of a run's remaining time, from the seconds per token of its own steps and the time of its evaluations,
checkpoints and sample answers. No torch.

Every step's size is known beforehand, so a step that reads more is expected to take longer. The slow first steps do not
count, and a single step that hung (the PC slept) counts as a slow one. Simulated over recorded series in
tests/unit/runs/test_time_left.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate

from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts, TimeFacts
from core.runs.states import BUSY

SLOW_START = 1.25  # a first step slower than this many medians is warm-up
MAX_SLOW_STARTS = 5
# medians: the most that a single step counts as, else one hiccup of twenty would be a fifth of the estimate
HUNG = 2.0
NEWEST = 200  # newest steps that count, so that the estimate follows a PC that became slower
EVALUATION_SHARE = 0.4  # share of a step's time for as many tokens (forward only), until one is measured


@dataclass
class TimeLeft:
    """The clock of one attempt.

    sizes: tokens of the steps to come, padding included; further steps are taken to be as large on average. done: steps
    before this attempt. eval_every, save_every: steps between two of them; both happen once more after the last step.
    evaluation_size: tokens of an evaluation; 0: there is none. sample_every: steps between sample answers; 0: there are
    none. spent_before: seconds of training in earlier attempts.
    """

    total_steps: int
    sizes: Sequence[float]
    done: int = 0
    eval_every: int = 1
    save_every: int = 1
    evaluation_size: float = 0.0
    clock: Callable[[], float] = time.perf_counter
    sample_every: int = 0
    spent_before: float = 0.0
    _steps: list[tuple[float, float]] = field(default_factory=list)  # (tokens, seconds)
    _pauses: dict[str, list[float]] = field(default_factory=lambda: {"evaluation": [], "saving": [], "sampling": []})
    _began: float = 0.0
    _mark: float = 0.0

    def __post_init__(self) -> None:
        """Start the clock of this attempt; steps beyond sizes count as the mean of sizes, or 1 without any."""
        self._upto = list(accumulate(self.sizes, initial=0.0))
        self._mean = self._upto[-1] / len(self.sizes) if self.sizes else 1.0
        self._began = self._mark = self.clock()

    def finish(self, step: int) -> None:
        """Record the end of a step, once its numbers are written, with its tokens and seconds."""
        now = self.clock()
        self._steps.append((self._tokens(step) - self._tokens(step - 1), now - self._mark))
        self._mark = now

    @contextmanager
    def pause(self, kind: str) -> Iterator[None]:
        """Context manager: measure something beside the steps, "evaluation", "saving" or "sampling", whose time no step
        gets."""
        started = self.clock()
        yield
        self._mark = self.clock()
        self._pauses[kind].append(self._mark - started)

    @property
    def spent(self) -> float:
        """Seconds of training so far."""
        return self.spent_before + self.clock() - self._began

    def seconds_left(self, step: int) -> float | None:
        """Return the seconds left after `step`, with the coming evaluations, checkpoints and sample answers; None
        before the second step of this attempt, whose first one only warms up."""
        rate = self._seconds_a_token()
        if rate is None:
            return None
        measured, saved = self._pauses["evaluation"], self._pauses["saving"]
        evaluation = measured[-1] if measured else EVALUATION_SHARE * rate * self.evaluation_size
        pauses = evaluation * self._due(step, self.eval_every) if self.evaluation_size else 0.0
        pauses += statistics.fmean(saved) * self._due(step, self.save_every) if saved else 0.0
        shown = self._pauses["sampling"]
        pauses += statistics.fmean(shown) * self._due(step, self.sample_every) if shown and self.sample_every else 0.0
        return (self._tokens(self.total_steps) - self._tokens(step)) * rate + pauses

    def steps_take(self, forward: float | None = None) -> float | None:
        """Return the seconds of all steps of this attempt alone.

        forward: seconds of a token in a forward pass, used if there were no two steps; None without either.
        """
        rate = self._seconds_a_token() or (forward and forward / EVALUATION_SHARE)
        return rate and self._tokens(self.total_steps) * rate

    def _due(self, step: int, every: int) -> int:
        """Return how often something that happens at each `every`-th step, and once more after the last step, is still
        due after `step`."""
        return self.total_steps // every - step // every + bool(self.total_steps % every and step < self.total_steps)

    def _seconds_a_token(self) -> float | None:
        """Return the mean seconds per token over the newest steps, without slow ones at the beginning; a step that hung
        counts as HUNG times the median. None before two steps."""
        if len(self._steps) < 2:
            return None
        steps = self._steps[1:] if len(self._steps) <= NEWEST else self._steps[-NEWEST:]
        usual = statistics.median(seconds / tokens for tokens, seconds in steps)
        slow = 0
        while slow < min(MAX_SLOW_STARTS, len(steps) - 1) and steps[slow][1] > SLOW_START * usual * steps[slow][0]:
            slow += 1
        counted = steps[slow:]
        seconds = sum(min(taken, HUNG * usual * tokens) for tokens, taken in counted)
        return seconds / sum(tokens for tokens, _ in counted)

    def _tokens(self, step: int) -> float:
        """Return the tokens of this attempt's steps up to `step`."""
        place = max(0, step - self.done)
        known = min(place, len(self.sizes))
        return self._upto[known] + (place - known) * self._mean


def seconds_so_far(run: RunFolder) -> float:
    """Return the seconds of training in the attempts so far; a killed one counts up to its last checkpoint."""
    times = run.facts().time
    return (times and times.took_seconds) or 0.0


def training_seconds(facts: RunFacts, status: Status) -> float | None:
    """Return the seconds of training of a run that has ended; None for an active one, whose recorded time is stale."""
    return facts.time.took_seconds if facts.time and status.state not in BUSY else None


def add_times(run: RunFolder, **values: float) -> None:
    """Add values to the run's TimeFacts. A full disk is ignored: the checkpoint reports it."""
    times = run.facts().time or TimeFacts()
    with suppress(OSError):
        run.add_facts(RunFacts(time=times.model_copy(update={name: round(value, 1) for name, value in values.items()})))
