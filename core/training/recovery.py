"""Recovers from a failed step: retries with less memory, or goes back to the last good state. Imports torch: workers only.

Which way is core/engine/out_of_memory's to say, and whether a step can be believed core/runs/health's; here it is done to the step
and the position.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from core.engine.out_of_memory import NothingLeftError
from core.engine.step import Rows, Step
from core.errors import GarageError
from core.files import is_out_of_memory
from core.messages import Message, msg
from core.runs.health import Health
from core.training.checkpoint import Checkpoints, Position

T = TypeVar("T")


class NotFiniteError(GarageError):
    """Steps give no number any more, or the loss ran away, again (core/runs/health); the adapter holds the last good step."""


class Recovery:
    """tell: what the run did of itself, in which step, for its timeline and its card. save: writes a checkpoint of where it stands.
    would_fit: what to try where nothing is left."""

    def __init__(
        self,
        step: Step,
        position: Position,
        checkpoints: Checkpoints,
        tell: Callable[[str, int, Message], None],
        save: Callable[[], None],
        would_fit: Callable[[], Message] | None = None,
    ):
        self._step, self._position, self._checkpoints = step, position, checkpoints
        self._tell, self._save, self._would_fit = tell, save, would_fit

    # ---- the memory is not enough -----------------------------------------------------------------------------------
    def attempt(self, number: int, act: Callable[[], T]) -> T:
        """act; and again with less of the memory each time that it is not enough. Raises NothingLeftError where less is none."""
        while True:
            try:
                return act()
            except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
                failed = self._step.computing
                if not failed or not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
            self._step_back(number, failed)

    def _step_back(self, number: int, failed: Rows) -> None:
        """To the end of the last finished step, and on with less: forward and backward have touched gradients alone."""
        if not self._position.step:
            self._step.unlearn()
        self._step.forget()
        measuring = number == self._position.step
        if not self._save_memory(failed, msg("retreat.in_step", step=number), number, measuring):
            raise NothingLeftError("retreat.nothing_left", self._would_fit() if self._would_fit else None, step=number)
        self._save()  # so that an attempt that is cut off goes on from here, and with what was learned of the memory

    def save_memory_beforehand(self, longest: Rows) -> bool:
        """For a longest batch that does not fit: whether there was a way left, which is then taken."""
        return self._save_memory(longest, msg("retreat.beforehand"), self._position.step)

    def _save_memory(self, failed: Rows, what: Message, number: int, measuring: bool = False) -> bool:
        lengths = [len(row.input_ids) for row in failed]
        said = self._step.retreat.go_on(range(len(failed)), lengths, what, measuring)
        if said is not None:
            self._tell("retreat", number, said)
            self._step.save_memory()
        return said is not None

    # ---- a step cannot be believed ----------------------------------------------------------------------------------
    def go_back(self, number: int, numbers: dict[str, Any], is_end: bool) -> None:
        """To the last good checkpoint, where the run goes on with half the learning rate; at the end only where the adapter itself
        went bad. Raises NotFiniteError at the end."""
        step, position, health = self._step, self._position, self._position.health
        facts = {"step": number, **as_words(numbers)}
        if is_end and not health.ran_away:
            if not step.optimizer.state:
                position.step = 0  # nothing was learned that could be kept
            raise NotFiniteError("run.not_finite" if position.step else "run.not_finite_at_once", **facts)
        saved = self._checkpoints.last_good(number - health.suspects)
        if saved:
            step.restore(saved.weights, saved.states)  # but for what was given up: the memory has not become more
            position.go_to(saved.position)
        else:
            step.unlearn()
            position.go_to(Position(measured_step=None if position.measured_step is None else 0))
        position.health = Health(health.started_at, back=health.back + 1)
        self._checkpoints.forget_after(position)
        step.forget()
        if is_end:
            facts |= {"back": position.step, "start": health.started_at}
            raise NotFiniteError("run.ran_away" if position.step else "run.ran_away_at_once", **facts)


def as_words(numbers: dict[str, Any]) -> dict[str, str]:
    """For a sentence, where a number may be none."""
    return {name: f"{numbers[name]:.4g}" for name in ("loss", "grad_norm")}
