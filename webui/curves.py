"""The loss curves of runs for any number of pages: each metrics.jsonl is read once, new lines only, and kept in memory.

A page asks `since` with the cursor of its last answer and gets the new points, or the whole curve, thinned, where its
cursor does not belong to what is here. No gradio, no threads of its own; a poll costs one open() and the new lines.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import RunError
from core.run_folder import RunFolder
from core.runs import Runs

MOST_POINTS = 1500  # sent at once; a screen has about as many columns
SMOOTHING = 0.8  # a mean over about five steps: runs here have 50 to some hundred
KEPT_CURVES = 16


def smooth(
    values: list[float], weight: float = SMOOTHING, state: tuple[float, int] = (0.0, 0)
) -> tuple[list[float], tuple[float, int]]:
    """Exponential moving average, bias-corrected, so that the first smoothed value is the first value.

    state: (uncorrected average, values seen) to go on from. Kingma & Ba 2015, section 3.
    """
    average, seen = state
    smoothed = []
    for value in values:
        average, seen = weight * average + (1 - weight) * value, seen + 1
        smoothed.append(average / (1 - weight**seen))
    return smoothed, (average, seen)


def thin(y: np.ndarray, most: int = MOST_POINTS) -> np.ndarray:
    """Indices of at most `most` points of y: of each bucket its smallest and largest, so that no spike is lost."""
    if len(y) <= most:
        return np.arange(len(y))
    buckets = most // 2 - 1
    width = -(-len(y) // buckets)
    padded = np.pad(y, (0, buckets * width - len(y)), mode="edge").reshape(buckets, width)
    starts = np.arange(buckets) * width
    chosen = np.concatenate([[0], starts + padded.argmin(1), starts + padded.argmax(1), [len(y) - 1]])
    return np.unique(chosen[chosen < len(y)])


@dataclass
class Curve:
    """What metrics.jsonl of one run holds. version changes when points that pages may have are taken back."""

    version: int = 0
    offset: int = 0
    attempt: int = 0
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    average: tuple[float, int] = (0.0, 0)
    evals: list[tuple[int, float]] = field(default_factory=list)
    nonfinite: list[int] = field(default_factory=list)
    reading: threading.Lock = field(default_factory=threading.Lock)

    def catch_up(self, run: RunFolder) -> None:
        while True:
            tail = run.metrics(self.offset)
            if tail.offset < self.offset:  # the file was replaced by a shorter one
                self._forget(0)
            for record in tail.records:
                self._add(record)
            moved, self.offset = tail.offset != self.offset, tail.offset
            if not moved:
                return

    def _add(self, record: dict[str, Any]) -> None:
        kind, step, attempt = record.get("kind"), record.get("step"), record.get("attempt", 1)
        if kind not in ("train", "eval") or not _is_count(step) or not _is_count(attempt):
            return
        if attempt > self.attempt:
            if self.attempt:
                self._forget(step)
            self.attempt = attempt
        value = record.get("loss" if kind == "train" else "eval_loss")
        if not isinstance(value, int | float):
            if record.get("nonfinite"):
                self.nonfinite.append(step)
        elif kind == "train":
            smoothed, self.average = smooth([value], state=self.average)
            self.steps.append(step)
            self.losses.append(value)
            self.smoothed += smoothed
        else:
            self.evals.append((step, value))

    def _forget(self, step: int) -> None:
        """Take back what an earlier attempt wrote from `step` on: the run was resumed before it."""
        keep = next((i for i, s in enumerate(self.steps) if s >= step), len(self.steps))
        self.steps, self.losses = self.steps[:keep], self.losses[:keep]
        self.smoothed, self.average = smooth(self.losses)
        self.evals = [point for point in self.evals if point[0] < step]
        self.nonfinite = [s for s in self.nonfinite if s < step]
        self.version += 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass
class Curves:
    runs: Runs
    _curves: OrderedDict[str, Curve] = field(default_factory=OrderedDict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def since(self, run_id: str, cursor: Any = None) -> dict[str, Any]:
        """New points of a run for a page that was last given `cursor` (anything else than a cursor counts as none).

        Returns run, cursor, reset (throw away what you have), x and y and s (step, loss, smoothed), ex and ey (evaluation),
        bx (steps whose loss was not finite). An unknown run gives an empty curve.
        """
        try:
            run = self.runs.get(run_id)
        except (RunError, TypeError):
            return {"run": "", "cursor": None, "reset": True, **_points([], [], [], [], [])}
        curve = self._curve(run.id)
        with curve.reading:
            curve.catch_up(run)
            here = [curve.version, len(curve.steps), len(curve.evals), len(curve.nonfinite)]
            known = _known(cursor, run.id, here)
            _, points, evals, bad = known or (0, 0, 0, 0)
            x, y, s = curve.steps[points:], curve.losses[points:], curve.smoothed[points:]
            if known is None:
                chosen = thin(np.asarray(y, float))
                x, y, s = ([values[i] for i in chosen] for values in (x, y, s))
            found = _points(x, y, s, curve.evals[evals:], curve.nonfinite[bad:])
        return {"run": run.id, "cursor": [run.id, *here], "reset": known is None, **found}

    def _curve(self, run_id: str) -> Curve:
        with self._guard:
            curve = self._curves.setdefault(run_id, Curve())
            self._curves.move_to_end(run_id)
            while len(self._curves) > KEPT_CURVES:
                self._curves.popitem(last=False)
            return curve


def _known(cursor: Any, run_id: str, here: list[int]) -> list[int] | None:
    """The numbers of a cursor that fits this curve and is not too far behind, else None."""
    if not isinstance(cursor, list) or len(cursor) != 5 or cursor[0] != run_id:
        return None
    numbers = cursor[1:]
    if not all(_is_count(n) for n in numbers) or numbers[0] != here[0]:
        return None
    if any(n > most for n, most in zip(numbers[1:], here[1:], strict=True)) or here[1] - numbers[1] > MOST_POINTS:
        return None
    return numbers


def _points(x: list, y: list, s: list, evals: list, bad: list) -> dict[str, list]:
    return {
        "x": x,
        "y": [float(f"{v:.5g}") for v in y],
        "s": [float(f"{v:.5g}") for v in s],
        "ex": [step for step, _ in evals],
        "ey": [float(f"{v:.5g}") for _, v in evals],
        "bx": bad,
    }
