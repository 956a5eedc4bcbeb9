"""The end of a run in words: one table for the worker, the app and the commands (`ending`), and the question about runs
that were left unfinished."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core import files
from core.errors import BusyError, DataError, GarageError, ModelError, RecipeError, RunError, TemplateError, first_line
from core.files import free_when_full, is_disk_full, is_out_of_memory, is_page_file_full
from core.messages import Message, msg
from core.runs import checkpoints
from core.runs.folder import RunFolder, Status
from core.runs.states import State

MAX_S = 3600.0  # a longer time means that a clock has jumped
# The last line of a worker in which a kernel of bitsandbytes failed: its macro CUDA_CHECK_RETURN prints this and exits
# (0.50.2).
KERNEL_ERROR = re.compile(r"Error (.+) at line \d+ in file .+")
# What to try after a foreseen error, as a key of the catalogue `advice`.
ADVICE = {DataError: "data", ModelError: "model", TemplateError: "template", BusyError: "busy", RecipeError: "recipe"}


def seconds_since_request(run: RunFolder) -> float | None:
    """Return the age of the command in control.json; None without one, or if the clock has jumped."""
    requested_at = files.read_object(run.path / "control.json").get("time")
    seconds = time.time() - requested_at if isinstance(requested_at, int | float) else -1.0
    return seconds if 0 <= seconds <= MAX_S else None


@dataclass(frozen=True)
class Finished:
    """The end of a completed training.

    step: the last step, less than total after early stopping. kept: the step of the adapter. best_loss: on the
    validation set; since_best: measurements after it.
    """

    step: int
    total: int
    kept: int
    best_loss: float | None = None
    since_best: int = 0
    best_reward: float | None = None

    @property
    def words(self) -> Message:
        """The sentence on the end of the run: completed or ended early, and which step's adapter was kept and why."""
        is_last = self.kept == self.step
        kept, early = msg("run.kept_last"), "run.completed_early"
        if self.best_reward is not None:
            early = "run.completed_early_reward"
        if not is_last and self.best_reward is not None:
            kept = msg("run.kept_best_reward", step=self.kept)
        elif not is_last:
            kept = msg("run.kept_best", step=self.kept, loss=self.best_loss)
        if self.step < self.total:
            return msg(early, step=self.step, total=self.total, count=self.since_best, kept=kept)
        return msg("run.completed", step=self.step) if is_last else msg("run.completed_best", step=self.step, kept=kept)


@dataclass(frozen=True)
class Failed:
    """The end of a failed training. message: what happened. advice: what to try."""

    message: Message
    advice: Message | None = None

    @classmethod
    def from_error(cls, error: Exception, folder: Path) -> Failed:
        """Return the message and advice for an error: GarageErrors by their kind, then lack of memory, full disk,
        failed GPU, else its type and first line. folder: the run's, whose disk may be full."""
        if isinstance(error, GarageError):
            key = error.message.key
            kind = next((bad for bad in ("not_finite", "ran_away") if key.startswith(f"run.{bad}")), None)
            kind = kind or next((name for each, name in ADVICE.items() if isinstance(error, each)), "crashed")
            return cls(error.message, getattr(error, "advice", None) or msg(f"advice.{kind}"))
        if is_out_of_memory(error):
            return cls(
                msg("run.out_of_memory"),
                msg("faults.page_file" if is_page_file_full(error) else "advice.out_of_memory"),
            )
        if is_disk_full(error, folder):
            return cls(msg("run.disk_full"), msg("advice.disk_full"))
        if type(error).__name__ == "AcceleratorError":  # torch's; every later call of the process fails too
            return cls(msg("run.card_failed", reason=first_line(error)[:300]), msg("advice.card_failed"))
        return cls(msg("run.crashed", kind=type(error).__name__, reason=first_line(error)[:300]), msg("advice.crashed"))


# The request that was carried out; "gone": the process ended without a report.
How = Literal["pause", "stop", "gone"] | Finished | Failed


@dataclass(frozen=True)
class EndFacts:
    """The facts about a run that decide how its end is described.

    adapter_step: the step of its adapter, if known. checkpoint: name of the newest. full_bytes: free bytes of a full
    disk. waited_s: seconds since the request, None if unknown. kernel_error: CUDA's error with which a bitsandbytes
    kernel ended the process.
    """

    has_adapter: bool = False
    adapter_step: int | None = None
    checkpoint: str | None = None
    full_bytes: int | None = None
    waited_s: float | None = None
    kernel_error: str | None = None

    @classmethod
    def from_run(cls, run: RunFolder) -> EndFacts:
        """Read the facts from the run's folder, this PC's disk and the run's log."""
        saved = run.checkpoints()
        return cls(
            has_adapter=run.has_adapter(),
            adapter_step=run.facts().adapter_step,
            checkpoint=saved[-1].name if saved else None,
            full_bytes=free_when_full(run.path),
            waited_s=seconds_since_request(run),
            kernel_error=kernel_error(run),
        )


def kernel_error(run: RunFolder) -> str | None:
    """Return the error of a bitsandbytes kernel that ended the process: the last line of train.log, if this attempt
    wrote it. None for any other end."""
    match = KERNEL_ERROR.fullmatch(run.log_tail(1))
    try:
        is_new = (run.path / "train.log").stat().st_mtime >= run.status().since
    except OSError:
        return None
    return match[1] if match and is_new else None


def ending(status: Status, how: How, facts: EndFacts, now: float) -> Status:
    """Return the status of a waiting or working run after it has ended. Reads and writes nothing.

    A waiting run has not begun, unless it waited to be resumed: then it becomes paused again, whatever was requested,
    because the earlier attempt can still be continued. now: seconds since 1970.
    """
    state, advice, seconds_left = State.STOPPED, None, None
    if isinstance(how, Failed):
        state, message, advice = State.FAILED, how.message, how.advice
    elif isinstance(how, Finished):
        state, message, seconds_left = State.COMPLETED, how.words, 0.0
    elif how == "gone":
        state, reached = State.INTERRUPTED, {"step": status.step, "total": status.total_steps}
        if facts.kernel_error:
            message = msg("run.interrupted_kernel", **reached, reason=facts.kernel_error)
        else:
            message = msg("run.interrupted", **reached)
        if facts.full_bytes is not None:  # the worker could not even report it
            advice = msg("faults.interrupted_disk_full", free_mb=facts.full_bytes // 10**6)
        elif facts.checkpoint:
            advice = msg("run.interrupted_checkpoint", checkpoint=facts.checkpoint)
        else:
            advice = msg("run.interrupted_nothing")
    elif status.state == State.QUEUED and (how == "pause" or status.attempt > 1):
        state, message = State.PAUSED, paused_words(status.step, None)
    elif status.state == State.QUEUED:
        message = msg("run.dropped")
    elif how == "pause":
        state, message = State.PAUSED, paused_words(status.step, facts.waited_s)
    elif not facts.has_adapter:
        message = msg("run.stopped_before_training")
    elif facts.adapter_step is not None and facts.adapter_step < status.step:
        message = msg("run.stopped_best", step=status.step, kept=facts.adapter_step)
    else:
        message = msg("run.stopped_kept", step=status.step)
    changes = {
        "message": message,
        "advice": advice,
        "progress": None,
        "seconds_left": seconds_left,
        "has_adapter": facts.has_adapter,
    }
    return status.model_copy(update={"state": state, "since": now, **changes})


def paused_words(step: int, seconds: float | None) -> Message:
    """Return the sentence that a run is paused at this step, with the seconds since the request if they are known."""
    return msg("run.paused", step=step) if seconds is None else msg("pausing.paused", step=step, seconds=seconds)


@dataclass(frozen=True)
class LeftRun:
    """An unfinished run that the page asks about. saved: the step of the newest good checkpoint, 0 without one."""

    id: str
    name: str
    created: float
    step: int
    saved: int

    @property
    def words(self) -> Message:
        """Return a message on how many steps would be repeated after a resume: all, none, or those since the
        checkpoint."""
        if not self.saved:
            return msg("left_runs.nothing_saved", name=self.name, step=self.step)
        if self.step <= self.saved:
            return msg("left_runs.nothing_lost", name=self.name, saved=self.saved)
        return msg(
            "left_runs.some_again", name=self.name, step=self.step, saved=self.saved, lost=self.step - self.saved
        )


def left_run(run: RunFolder, status: Status) -> LeftRun | None:
    """Return the run for the page's question about unfinished runs: it was interrupted, or paused because the app
    closed, and the question about this attempt was not dismissed. None otherwise.

    Its step is the last one in the status or the metrics. status: its true status (Runs.status).
    """
    was_left = status.state == State.INTERRUPTED or (status.state == State.PAUSED and run.requested_by == "close")
    if not was_left or files.read_object(run.path / "left.json").get("attempt") == status.attempt:
        return None
    good = [folder for folder in run.checkpoints() if checkpoints.is_good(folder)]
    # state.json is written five times a second at most; metrics.jsonl has every step.
    steps = [
        n for line in run.newest_metrics() if line.get("kind") == "train" and isinstance(n := line.get("step"), int)
    ]
    saved = int(good[-1].name[-6:]) if good else 0
    return LeftRun(run.id, run.name, run.facts().created, max([status.step, *steps[-1:]]), saved)


def dismiss(run: RunFolder) -> None:
    """Record that the page should not ask about this attempt again. Raises RunError if that cannot be written."""
    try:
        files.replace_json(run.path / "left.json", {"v": 1, "attempt": run.status().attempt})
    except OSError as error:
        raise RunError("left_runs.cannot_leave", name=run.name, reason=error.strerror or error) from error
