"""What a trainer does where a step fails: again with less memory, or back to where it was good. Imports torch: workers only.

Which way is core/training/retreat's to say, and whether a step can be believed core/runs/health's; here it is done to the adapter, the
optimizer, the random states and the position. Costs a copy of the untrained adapter in RAM.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from core.engine import adapter
from core.errors import GarageError
from core.files import is_out_of_memory
from core.messages import msg
from core.runs.health import Health
from core.training import checkpoint
from core.training.checkpoint import Position, States
from core.training.retreat import NothingLeftError

if TYPE_CHECKING:
    from core.training.trainer import Trainer

T = TypeVar("T")


class NotFiniteError(GarageError):
    """Steps give no number any more, or the loss ran away, again (core/runs/health); the adapter holds the last good step."""


class Recovery:
    """Make it before the trainer's first attempt is restored: what the adapter is then is what every attempt began with.

    computing: rows of the micro-batch that is being computed; none while what is going on cannot be done again.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._untrained = [parameter.detach().to("cpu", copy=True) for parameter in trainer.parameters]
        self._random_at_start: States = {}
        self.computing: Sequence[int] = ()

    def begin(self, random: States) -> None:
        """random: states before the first step of all."""
        self._random_at_start = random

    # ---- the memory is not enough -----------------------------------------------------------------------------------
    def attempt(self, step: int, act: Callable[[], T]) -> T:
        """act; and again with less of the memory each time that it is not enough. Raises NothingLeftError where less is none."""
        while True:
            try:
                return act()
            except Exception as error:  # noqa: BLE001 - torch says "no memory" in several types; all others go on
                failed, self.computing = self.computing, ()
                if not failed or not is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)  # they hold the tensors that were too many
            self._step_back(step, failed)

    def _step_back(self, step: int, failed: Sequence[int]) -> None:
        """To the end of the last finished step, and on with less: forward and backward have touched gradients alone."""
        trainer = self._trainer
        trainer.optimizer.zero_grad(set_to_none=True)
        trainer.fused.forget()
        if not trainer.position.step:
            self._unlearn()
        scaler = trainer.new_scaler()  # the old one may be half-way through a step
        scaler.load_state_dict(trainer.scaler.state_dict())
        trainer.scaler = scaler
        checkpoint.set_random_states(trainer.random)
        gc.collect()
        if trainer.compute.on_card:
            torch.cuda.empty_cache()
        measuring = step == trainer.position.step
        lengths = [len(row.input_ids) for row in trainer.data.evaluation] if measuring else trainer.schedule.lengths
        said = trainer.retreat.go_on(failed, lengths, msg("retreat.in_step", step=step), measuring)
        if said is None:
            advice = trainer.would_fit(trainer) if trainer.would_fit else None
            raise NothingLeftError("retreat.nothing_left", advice, step=step)
        trainer.tell("retreat", step, said)
        trainer.save_memory()
        if trainer.position.step:
            with trainer.clock.pause("saving"):
                trainer.checkpoint()  # so that an attempt that is cut off goes on from here, and with what was learned of the memory
        trainer.reporter.stage("training")

    def save_memory_beforehand(self) -> bool:
        """For a longest batch that does not fit: whether there was a way left, which is then taken."""
        trainer = self._trainer
        said = trainer.retreat.go_on(trainer.longest().rows, trainer.schedule.lengths, msg("retreat.beforehand"))
        if said is None:
            return False
        trainer.tell("retreat", trainer.position.step, said)
        trainer.save_memory()
        return True

    @torch.no_grad()
    def _unlearn(self) -> None:
        """As before the first step."""
        trainer = self._trainer
        pissa = getattr(trainer.tuned, "pissa", None)
        if pissa and pissa.start:  # the base lacks what the adapter then began with
            adapter.begin_anew(trainer.tuned, pissa.start)
        else:
            for parameter, before in zip(trainer.parameters, self._untrained, strict=True):
                parameter.copy_(before)
        trainer.optimizer.state.clear()

    # ---- a step cannot be believed ----------------------------------------------------------------------------------
    def go_back(self, step: int, numbers: dict[str, Any], is_end: bool) -> None:
        """To the last good checkpoint, and on with half the learning rate; at the end only where the adapter itself went bad.

        Raises NotFiniteError at the end."""
        trainer = self._trainer
        health, facts = trainer.position.health, {"step": step, **as_words(numbers)}
        if is_end and not health.ran_away:
            if not trainer.optimizer.state:
                trainer.position.step = 0  # nothing was learned that could be kept
            raise NotFiniteError("run.not_finite" if trainer.position.step else "run.not_finite_at_once", **facts)
        retreats, measured = trainer.retreat.taken, trainer.position.measured_step is not None
        saved = trainer.checkpoints.last_good(step - health.suspects)
        if saved:
            trainer.restore(saved)
        else:
            self._unlearn()
            trainer.position, trainer.random = Position(measured_step=0 if measured else None), self._random_at_start
        trainer.retreat.taken = retreats  # the memory has not become more
        trainer.position.health = Health(health.started_at, back=health.back + 1)
        trainer.checkpoints.forget_after(trainer.position)
        checkpoint.set_random_states(trainer.random)
        facts |= {"back": trainer.position.step, "start": health.started_at}
        if is_end:
            raise NotFiniteError("run.ran_away" if trainer.position.step else "run.ran_away_at_once", **facts)
        facts["rate"] = trainer.set_learning_rate(trainer.position.step + 1)
        trainer.tell("went_back", step, msg("sanity.ran_away" if health.ran_away else "sanity.no_numbers", **facts))
        trainer.clock = trainer.new_clock(trainer.clock.spent)
        if trainer.position.step:
            trainer.checkpoint()
            trainer.reporter.stage("training")


def as_words(numbers: dict[str, Any]) -> dict[str, str]:
    """For a sentence, where a number may be none."""
    return {name: f"{numbers[name]:.4g}" for name in ("loss", "grad_norm")}
