"""Recovers from a failed step: retries with less memory, or goes back to the last good state. Imports torch: workers
only.

core/engine/out_of_memory decides how to save memory, core/runs/health whether a step is plausible; this module applies
it to step and position.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

from core.engine.out_of_memory import NothingLeftError
from core.engine.step import Rows, Step
from core.errors import GarageError
from core.files import is_out_of_memory
from core.messages import Message, msg
from core.runs.health import DIVERGED_STEPS, NON_FINITE_STEPS, Health
from core.training.checkpoint import Checkpoints, Position

T = TypeVar("T")


class NotFiniteError(GarageError):
    """NaN or infinite values, or a diverging loss, occurred again (core/runs/health); the adapter is that of the last
    good step."""


class Recovery:
    """Repeats a failed step with less memory, or goes back to a checkpoint. report: logs each of these decisions with
    its step. write_checkpoint: of the current position. advice_when_full: what to try if no way to save memory is
    left."""

    def __init__(
        self,
        step: Step,
        position: Position,
        checkpoints: Checkpoints,
        report: Callable[[str, int, Message], None],
        write_checkpoint: Callable[[], None],
        advice_when_full: Callable[[], Message] | None = None,
    ):
        self._step, self._position, self._checkpoints = step, position, checkpoints
        self._report, self._write_checkpoint, self._advice_when_full = report, write_checkpoint, advice_when_full

    # ---- out of memory ----------------------------------------------------------------------------------------------
    def attempt(self, number: int, act: Callable[[], T]) -> T:
        """Return act(), called again with less memory each time it runs out while rows were being computed; other
        errors are raised. number: of the step. Raises NothingLeftError if nothing more can be saved."""
        while True:
            try:
                return act()
            except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
                failed = self._step.computing
                if not failed or not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)  # the traceback holds the tensors
            self._prepare_retry(number, failed)

    def _prepare_retry(self, number: int, failed: Rows) -> None:
        """Undo the unfinished step (the first one returns to the start), take the next way to save memory and write a
        checkpoint. Raises NothingLeftError if nothing is left to save."""
        if not self._position.step:
            self._step.reset_to_start()
        self._step.discard_unfinished()
        measuring = number == self._position.step
        if not self._reduce_memory(failed, msg("retreat.in_step", step=number), number, measuring):
            raise NothingLeftError(
                "retreat.nothing_left", self._advice_when_full() if self._advice_when_full else None, step=number
            )
        self._write_checkpoint()  # so that an interrupted attempt resumes from here, with the same memory settings

    def reduce_memory_beforehand(self, longest: Rows) -> bool:
        """Take the next way to save memory, for a longest batch that does not fit; return False if there is none."""
        return self._reduce_memory(longest, msg("retreat.beforehand"), self._position.step)

    def _reduce_memory(self, failed: Rows, what: Message, number: int, measuring: bool = False) -> bool:
        """Take and report the next way to save memory for the failed rows; return False if none is left. what: when
        they failed, for the message. measuring: in an evaluation."""
        lengths = [len(row.input_ids) for row in failed]
        message = self._step.retreat.take_next(range(len(failed)), lengths, what, measuring)
        if message is not None:
            self._report("retreat", number, message)
            self._step.save_memory()
        return message is not None

    # ---- an implausible step ----------------------------------------------------------------------------------------
    def roll_back(self, number: int, metrics: Mapping[str, float], is_end: bool) -> None:
        """Return step and position to the last good checkpoint before the bad steps, or to the start, and count one
        more return, which halves the learning rate; delete later checkpoints. is_end: end the run with NotFiniteError
        instead, after going back if the loss diverged, so that the adapter is good."""
        step, position, health = self._step, self._position, self._position.health
        facts: dict[str, float | None] = {"step": number, **loss_and_norm(metrics)}
        if is_end and not health.has_diverged:
            if not step.optimizer.state:
                position.step = 0  # nothing good was learned
            raise NotFiniteError("run.not_finite" if position.step else "run.not_finite_at_once", **facts)
        # The first bad loss is caused by the step before it.
        saved = self._checkpoints.last_good(number - 1 - (DIVERGED_STEPS if health.has_diverged else NON_FINITE_STEPS))
        if saved:
            # The ways to save memory stay taken: there is no more memory than before.
            step.restore(saved.weights, saved.states)
            position.go_to(saved.position)
        else:
            step.reset_to_start()
            position.go_to(Position(measured_step=None if position.measured_step is None else 0))
        position.health = Health(health.started_at, back=health.back + 1)
        self._checkpoints.forget_after(position)
        step.discard_unfinished()
        if is_end:
            facts |= {"back": position.step, "start": health.started_at}
            raise NotFiniteError("run.ran_away" if position.step else "run.ran_away_at_once", **facts)


def loss_and_norm(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return `loss` and `grad_norm` of a step for a message about it. In a training by rewards `loss` is the entropy,
    and 0 if there is neither."""
    return {"loss": metrics.get("loss", metrics.get("entropy", 0.0)), "grad_norm": metrics["grad_norm"]}
