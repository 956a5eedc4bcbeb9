"""The curves of runs, shared by all pages. Each metrics.jsonl is read once, then only its new lines; points stay in
memory.

A page calls `since` with the cursor of its last answer. It gets the new points of every chart, or the whole curves,
thinned, if its cursor does not match the curve in memory. No gradio; a poll costs one open() and the new lines. A run
of 50,000 steps takes 4 MB here.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from core.advice.curve_doctor import Series
from core.advice.doctor.pairs import NUMBERS, PairSeries
from core.errors import RunError
from core.files import JsonObject
from core.runs import sample_answers
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.measure import is_of_rewards, measure

MAX_POINTS = 1500  # in one answer; a screen has about as many columns
SMOOTHING = 0.8  # a mean over about five steps: runs here have 50 to some hundred
OVERLAID_POINTS = 400  # for each of several runs in one chart
KEPT_CURVES = 16
PIECE = 512 << 10  # bytes read at a time
# Preference pairs: a column each, and the name of its number in metrics.jsonl.
PAIR_NUMBERS = dict(zip(("accuracy", "margin", "chosen", "rejected"), NUMBERS, strict=True))
UNKNOWN = math.nan  # not in the file, or not finite


def smooth(
    values: Iterable[float], weight: float = SMOOTHING, state: tuple[float, int] = (0.0, 0)
) -> tuple[list[float], tuple[float, int]]:
    """Return the exponential moving average of values, bias-corrected, so that the first smoothed value is the first
    value; and the state after them.

    state: (uncorrected average, number of values before) to continue from. Kingma & Ba 2015, section 3.
    """
    average, count = state
    smoothed = []
    for value in values:
        average, count = weight * average + (1 - weight) * value, count + 1
        smoothed.append(average / (1 - weight**count))
    return smoothed, (average, count)


def thin(*columns: Sequence[float] | np.ndarray, most: int = MAX_POINTS) -> np.ndarray:
    """Return the indices of at most `most` points of equally long columns: the smallest and the largest value of each
    column in each bucket, so that no spike is lost. An unknown value (nan) counts as the column's median."""
    count = len(columns[0])
    if count <= most:
        return np.arange(count)
    buckets = (most - 2) // (2 * len(columns))
    width = -(-count // buckets)
    starts = np.arange(buckets) * width
    chosen = [[0, count - 1]]
    for column in columns:
        values = _with_median_for_nan(np.asarray(column, float))
        padded = np.pad(values, (0, buckets * width - count), mode="edge").reshape(buckets, width)
        chosen += [starts + padded.argmin(1), starts + padded.argmax(1)]
    indices = np.unique(np.concatenate(chosen))
    return indices[indices < count]


def _with_median_for_nan(values: np.ndarray) -> np.ndarray:
    """Return the values with NaN replaced by the median of the others, 0 without any."""
    known = values[~np.isnan(values)]
    if len(known) == len(values):
        return values
    return np.nan_to_num(values, nan=float(np.median(known)) if len(known) else 0.0)


@dataclass
class Curve:
    """The points of one run's metrics.jsonl: losses, in training by rewards rewards (is_reward). version changes when
    points are removed that pages may already have."""

    version: int = 0
    offset: int = 0
    attempt: int = 0
    train: CurveColumns = field(
        default_factory=lambda: CurveColumns("loss", "smoothed", "rate", "norm", "speed", "tokens", "time")
    )
    evals: CurveColumns = field(default_factory=lambda: CurveColumns("loss"))
    memory: CurveColumns = field(default_factory=lambda: CurveColumns("used"))
    pairs: CurveColumns = field(default_factory=lambda: CurveColumns(*PAIR_NUMBERS))
    eval_pairs: CurveColumns = field(default_factory=lambda: CurveColumns(*PAIR_NUMBERS))
    memory_total: float = UNKNOWN
    # of the newest step: its attempt, its time, seconds trained until then
    clock: tuple[int, float, float] = (0, UNKNOWN, 0.0)
    average: tuple[float, int] = (0.0, 0)
    nonfinite: list[int] = field(default_factory=list)
    is_reward: bool = False
    reading: threading.Lock = field(default_factory=threading.Lock)

    def catch_up(self, run: RunFolder) -> None:
        """Add the new lines of the run's metrics.jsonl; start anew if the file has become shorter."""
        while True:
            tail = run.metrics(self.offset, PIECE)
            if tail.offset < self.offset:  # the file was replaced by a shorter one
                self._forget(0)
            for record in tail.records:
                self._add(record)
            moved, self.offset = tail.offset != self.offset, tail.offset
            if not moved:
                return

    def position(self) -> list[int]:
        """Return the numbers of a cursor: the version, and the count of points of each kind."""
        return [
            self.version,
            len(self.train),
            len(self.evals),
            len(self.memory),
            len(self.nonfinite),
            len(self.pairs),
            len(self.eval_pairs),
        ]

    def _add(self, record: JsonObject) -> None:
        """Add a line of the metrics: a training step with its smoothed loss, an evaluation, memory, or pairs' numbers;
        others are ignored. Steps that a resume or a rollback repeats replace the earlier ones."""
        kind, step, attempt = record.get("kind"), record.get("step"), record.get("attempt", 1)
        if kind not in ("train", "eval", "gpu") or not _is_count(step) or not _is_count(attempt):
            return
        if attempt > self.attempt:
            if self.attempt:
                self._forget(step, step if kind == "train" else step + 1)
            self.attempt = attempt
        elif kind == "train" and step <= max([self.train.last_step, *self.nonfinite[-1:]]):
            self._forget(step)  # the run returned to a checkpoint (core/runs/health)
        if kind == "gpu":
            self.memory.add(step, _number(record.get("memory_bytes")))
            self.memory_total = _number(record.get("memory_total_bytes"))
            return
        self.is_reward = self.is_reward or is_of_rewards(record)
        loss = UNKNOWN if (value := measure(record)) is None else value
        if math.isnan(loss):
            if record.get("nonfinite"):
                self.nonfinite.append(step)
        elif kind == "train":
            (smoothed,), self.average = smooth([loss], state=self.average)
            rest = (
                _number(record.get(name)) for name in ("learning_rate", "grad_norm", "tokens_per_second", "tokens_seen")
            )
            self.train.add(step, loss, smoothed, *rest, self._seconds_trained(attempt, _number(record.get("time"))))
        else:
            self.evals.add(step, loss)
        before, columns = ("", self.pairs) if kind == "train" else ("eval_", self.eval_pairs)
        if before + PAIR_NUMBERS["margin"] in record and not math.isnan(loss):
            columns.add(step, *(_number(record.get(before + name)) for name in PAIR_NUMBERS.values()))

    def _seconds_trained(self, attempt: int, now: float) -> float:
        """Return the seconds from the first step until `now`, without the pauses between two attempts; keeps them for
        the next call."""
        last_attempt, last, seconds = self.clock
        if attempt == last_attempt and now > last:
            seconds += now - last
        self.clock = (attempt, now, seconds)
        return seconds

    def _forget(self, step: int, trained: int | None = None) -> None:
        """Remove the points from `step` on, which a resumed or returned run writes again, and raise the version, so
        that pages request the whole curve anew.

        trained: the first step whose training points are removed, if it is not `step`: the run may resume within an
        evaluation.
        """
        for columns in (self.train, self.pairs):
            columns.keep_before(step if trained is None else trained)
        for columns in (self.evals, self.memory, self.eval_pairs):
            columns.keep_before(step)
        _, self.average = smooth(self.train.column("loss").tolist())
        self.nonfinite = [s for s in self.nonfinite if s < step]
        self.version += 1


def _is_count(value: object) -> TypeGuard[int]:
    """Return whether a value of a JSON file is an integer from 0 to 2**53 - 1, which a browser represents exactly;
    False for True and False."""
    return (
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
    )  # the largest integer of a browser


def _number(value: object) -> float:
    """Return a finite number as a float, and UNKNOWN for anything else that a JSON file may hold."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else UNKNOWN
    except OverflowError:
        return UNKNOWN
    return number if math.isfinite(number) else UNKNOWN


def _five_digits(value: float) -> float | None:
    """Return the value with five significant digits; None for nan."""
    return None if math.isnan(value) else float(f"{value:.5g}")


@dataclass
class Curves:
    """All curves, for any thread of the server.

    whole_curves: the one thread that copies whole curves. Each thread keeps the most memory that it ever needed: when
    every thread of the server made copies, the app grew by 39 MB over the second 50,000 steps of benchmarks/soak.py,
    now by 8 (2 Xeon cores, 2026-11). No thread may wait for it while it holds a curve's `reading`.
    """

    runs: Runs
    _curves: OrderedDict[str, Curve] = field(default_factory=OrderedDict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    whole_curves: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "whole-curves"))

    def since(self, run_id: str, cursor: object = None) -> JsonObject:
        """Return the new points of a run for a page with this cursor; anything else than a valid cursor counts as none.

        Keys: run, cursor, reset (true: drop the earlier points), and by step, null where unknown: x with y, s, rate,
        norm and speed (loss, smoothed, learning rate, gradient norm, learned tokens per second), ex with ey
        (evaluation), is_reward (y, s and ey are rewards), mx with my (memory in bytes, total its limit), bx (steps with
        a loss that is not finite); of preference pairs px with p_<name> for each name of PAIR_NUMBERS, and qx with
        q_<name> (evaluation). About 70 bytes a new step. An unknown run gives empty curves.
        """
        try:
            run = self.runs.get(run_id)
        except (RunError, TypeError):
            return {"run": "", "cursor": None, "reset": True, **_reply(Curve(), None)}
        curve = self._curve(run.id)
        with curve.reading:
            curve.catch_up(run)
            position = _matching_position(cursor, run.id, curve.position())
            if position is not None:
                return {"run": run.id, "cursor": [run.id, *curve.position()], "reset": False, **_reply(curve, position)}
        return self.whole_curves.submit(self._all_points, run, curve).result()

    def _all_points(self, run: RunFolder, curve: Curve) -> JsonObject:
        """Return the reply of `since` with the whole curve."""
        with curve.reading:
            curve.catch_up(run)
            return {"run": run.id, "cursor": [run.id, *curve.position()], "reset": True, **_reply(curve, None)}

    def stamp(self, run_id: str) -> tuple[int, int, int]:
        """Read new lines and return a cheap value that changes when `series` does. Raises RunError for an unknown
        run."""
        run = self.runs.get(run_id)
        curve = self._curve(run.id)
        with curve.reading:
            curve.catch_up(run)
            return (curve.version, len(curve.train), len(curve.evals))

    def series(self, run_id: str, measured_rows: int) -> Series:
        """Return a copy of all numbers of a run, for core/advice/run_doctor. measured_rows: of each evaluation. Call it
        in `whole_curves`. Raises RunError for an unknown run."""
        run = self.runs.get(run_id)
        curve = self._curve(run.id)
        with curve.reading:
            curve.catch_up(run)
            steps, losses, norms, rates = (curve.train.column(name) for name in ("step", "loss", "norm", "rate"))
            eval_steps, eval_losses = curve.evals.since()
            pairs = PairSeries.from_columns(
                curve.pairs.since(),
                curve.eval_pairs.since(),
                sample_answers.mean_lengths(run) if len(curve.pairs) else [],
            )
            return Series(steps, losses, norms, rates, eval_steps, eval_losses, measured_rows, pairs)

    def overlaid(self, run_id: str) -> dict[str, list[object]]:
        """Return the curves of a run for a chart of several runs: step with loss (smoothed), rate, tokens and time
        (minutes trained), and eval_step with eval_loss. Raises RunError for an unknown run."""
        run = self.runs.get(run_id)
        return self.whole_curves.submit(self._overlaid, run, self._curve(run.id)).result()

    def _overlaid(self, run: RunFolder, curve: Curve) -> dict[str, list[object]]:
        """Return the run's columns (step, loss, rate, tokens, time, evaluations) for a chart of several runs, at most
        OVERLAID_POINTS of the loss; time in minutes."""
        with curve.reading:
            curve.catch_up(run)
            chosen = thin(curve.train.column("smoothed"), most=OVERLAID_POINTS)
            columns = [curve.train.column(name)[chosen] for name in ("step", "smoothed", "rate", "tokens", "time")]
            columns[-1] /= 60
            columns.extend(curve.evals.since())
        pairs = zip(("step", "loss", "rate", "tokens", "time", "eval_step", "eval_loss"), columns, strict=True)
        return {name: [None if math.isnan(value) else float(value) for value in column] for name, column in pairs}

    def _curve(self, run_id: str) -> Curve:
        """Return the curve of a run that is kept in memory, or a new empty one; its file is not read. Beyond
        KEPT_CURVES the curve that was unused for longest is dropped."""
        with self._guard:
            curve = self._curves.setdefault(run_id, Curve())
            self._curves.move_to_end(run_id)
            while len(self._curves) > KEPT_CURVES:
                self._curves.popitem(last=False)
            return curve


def _matching_position(cursor: object, run_id: str, current: list[int]) -> list[int] | None:
    """Return the numbers of a page's cursor; None unless it fits this curve and is at most MAX_POINTS behind. current:
    the curve's position."""
    if not isinstance(cursor, list) or len(cursor) != 1 + len(current) or cursor[0] != run_id:
        return None
    numbers = cursor[1:]
    if not all(_is_count(n) for n in numbers) or numbers[0] != current[0]:
        return None
    if any(not 0 <= now - n <= MAX_POINTS for n, now in zip(numbers[1:], current[1:], strict=True)):
        return None
    return numbers


def _points(columns: CurveColumns, start: int, thinned_by: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return the points by column, null where unknown: from number `start` on, or if thinned_by is given all of them,
    thinned so that the spikes of these columns stay."""
    if thinned_by:
        chosen = thin(*(columns.column(name) for name in thinned_by))
        values_of = {name: columns.column(name)[chosen].tolist() for name in columns.names}
    else:
        values_of = dict(zip(columns.names, columns.since(start).tolist(), strict=True))
    steps = [int(step) for step in values_of.pop("step")]
    return {"step": steps, **{name: [_five_digits(value) for value in values] for name, values in values_of.items()}}


def _reply(curve: Curve, position: list[int] | None) -> JsonObject:
    """Return the points that a page lacks, as JSON: lists by the keys that `Curves.since` lists, except run, cursor and
    reset. position: seven counts of the points that the page has already, one for each kind; None: send all points,
    thinned."""
    sends_all = position is None
    _, trained, evaluated, measured, bad, compared, eval_compared = position or (0,) * 7
    train = _points(curve.train, trained, ("loss", "norm") if sends_all else ())
    evals = _points(curve.evals, evaluated, ("loss",) if sends_all else ())
    memory = _points(curve.memory, measured, ("used",) if sends_all else ())
    return {
        "x": train["step"], "y": train["loss"], "s": train["smoothed"],
        "rate": train["rate"], "norm": train["norm"], "speed": train["speed"],
        "ex": evals["step"], "ey": evals["loss"], "is_reward": curve.is_reward,
        "mx": memory["step"], "my": memory["used"], "total": _five_digits(curve.memory_total),
        "bx": curve.nonfinite[bad:],
        **_pair_points(curve.pairs, compared, sends_all, "p"),
        **_pair_points(curve.eval_pairs, eval_compared, sends_all, "q"),
    }  # fmt: skip


def _pair_points(columns: CurveColumns, start: int, sends_all: bool, letter: str) -> dict[str, list[object]]:
    """Return the points of preference pairs, with keys such as px and p_margin for letter "p"."""
    points = _points(columns, start, ("margin",) if sends_all else ())
    return {f"{letter}x": points.pop("step")} | {f"{letter}_{name}": values for name, values in points.items()}


BLOCK = 1024  # points


class CurveColumns:
    """Points in the order of their steps, nan where a number is unknown. A step is an integer below 2**53, so that a
    float holds it exactly."""

    def __init__(self, *names: str):
        self.names = ("step", *names)
        self._blocks: list[np.ndarray] = []  # each (names, BLOCK)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, step: int, *values: float) -> None:
        """Append a point, in a new block if the last one is full."""
        block, place = divmod(self._count, BLOCK)
        if block == len(self._blocks):
            self._blocks.append(np.empty((len(self.names), BLOCK)))
        self._blocks[block][:, place] = (step, *values)
        self._count += 1

    def since(self, start: int = 0) -> np.ndarray:
        """Return a copy of the points from number `start` on: an array (names, points)."""
        first = start // BLOCK
        blocks = self._blocks[first:]
        if not blocks:
            return np.empty((len(self.names), 0))
        return np.concatenate(blocks, axis=1)[:, start - first * BLOCK : self._count - first * BLOCK]

    def column(self, name: str) -> np.ndarray:
        """Return a copy of one column over all points. Raises ValueError for an unknown name."""
        row = self.names.index(name)
        return np.concatenate([np.empty(0), *(block[row] for block in self._blocks)])[: self._count]

    @property
    def last_step(self) -> int:
        """The step of the last point; 0 if there is none."""
        block, place = divmod(self._count - 1, BLOCK)
        return int(self._blocks[block][0, place]) if self._count else 0

    def keep_before(self, step: int) -> None:
        """Drop the points from the first one on with a step of at least `step`."""
        beyond = np.flatnonzero(self.column("step") >= step)
        if len(beyond):
            self._count = int(beyond[0])
            del self._blocks[-(-self._count // BLOCK) :]
