"""The training loop: which rows come next, the learning rate, evaluations and checkpoints after a step. Everything it
needs is passed in; it reports only through the Reporter.

How a step is computed: core/engine/step; what happens if one fails: core/training/recovery. Does not load, tokenize or
plan; knows nothing of processes.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from core.chat.film import SampleAnswers, SampleSettings
from core.data.labels import Encoded
from core.data.row_order import Schedule
from core.data.sets.pieces import lengths_of
from core.engine import optimizer
from core.engine.device import Compute
from core.engine.families import vocabulary
from core.engine.out_of_memory import NothingLeftError
from core.engine.step import LongestBatch, Rows, Step, padded_tokens
from core.engine.variants import neftune
from core.engine.variants.layers import stop_inside_layers
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs import best, time_left
from core.runs.health import StepVerdict
from core.runs.reporter import Reporter
from core.runs.spill import SpillWatch
from core.runs.threads import Threads
from core.system import cores
from core.training import checkpoint
from core.training.checkpoint import Checkpoints, Position, Saved
from core.training.evaluation import Evaluation
from core.training.learning_rate import schedule_factor, warmup_steps
from core.training.memory.longest import longest_of
from core.training.memory.use import MemoryUse
from core.training.preference.reference import Referenced, fill_reference
from core.training.recovery import Recovery, loss_and_norm
from core.training.rewards.drawing import Drawing
from core.training.rewards.held_out import HeldOutReward

# steps searched for the longest batch, about a second; longer runs read every row several times in them
STEPS_SEARCHED = 20_000
ESTIMATED_AFTER = 20  # steps


@dataclass(frozen=True)
class TrainingData:
    train: Sequence[Encoded]
    evaluation: Sequence[Encoded]
    pad_token_id: int


@dataclass(frozen=True)
class Ahead:
    """The coming computations of a run, for the probe (core/training/memory/probe).

    longest: the largest micro-batch of the coming steps, as it is computed now. rehearsals: of the computations between
    steps. reduce_memory: use less memory for rows that do not fit, from now on; False if nothing more can be saved.
    """

    step: Step
    train: Sequence[Encoded]
    longest: Callable[[], LongestBatch]
    rehearsals: tuple[Callable[[], None], ...]
    reduce_memory: Callable[[Rows], bool]


class Trainer:
    """Trains an adapter. tuned: the peft model on compute.device, adapters float32. save_adapter(folder) writes it in
    PEFT's format.

    shown: the sample answers. spill: watches the memory. advice_when_full: what to try if a step runs out of memory and
    nothing more can be saved. make_step: creates the step; another one for several ranks (core/training/ranks).
    rewards: creates what draws the answers of a training by rewards.
    """

    def __init__(
        self,
        tuned: PeftModel,
        recipe: Recipe,
        data: TrainingData,
        compute: Compute,
        reporter: Reporter,
        save_adapter: Callable[[Path], None],
        *,
        shown: SampleSettings | None = None,
        spill: SpillWatch | None = None,
        advice_when_full: Callable[[Ahead], Message] | None = None,
        make_step: Callable[..., Step] = Step.from_recipe,
        rewards: Callable[..., Drawing] | None = None,
    ):
        """Create step, schedule, checkpoints, evaluation, recovery and sample answers, and warn where packing or paging
        is impossible. Raises an error for tokens that the model has no row for."""
        train = recipe.train
        self.step = make_step(tuned, recipe, compute, data.pad_token_id)
        vocabulary.require_rows_of(tuned.get_base_model(), data.train, data.evaluation)
        self._referenced: tuple[Referenced, ...] = ()
        if self.step.criterion and self.step.criterion.needs_reference:
            self._referenced = Referenced(data.train), Referenced(data.evaluation)
            data = TrainingData(*self._referenced, data.pad_token_id)
        self.recipe, self.data, self.reporter, self._spill = recipe, data, reporter, spill
        if recipe.data.packing and not self.step.packed:
            reporter.warn(msg("run.not_packed"))
        if train.optim == "paged_adamw_8bit" and not optimizer.can_page(self.step.parameters[0]):
            reporter.warn(msg("run.not_paged"))
        self.schedule = Schedule.from_recipe(recipe, lengths_of(data.train), self.step.packed)
        total = self.schedule.total_steps
        a_fifth = max(1, math.ceil(total / 5))
        self.eval_every, self.save_every = train.eval_steps or a_fifth, train.save_steps or train.eval_steps or a_fifth
        self.patience = best.patience(recipe, total, self.eval_every, len(data.evaluation))
        self.position = Position()
        self.checkpoints = Checkpoints(reporter.run, save_adapter, train.save_total_limit, train.save_total_gib)
        self.rewards = (
            rewards(self.step, recipe, reporter, self._log_decision, self._save_and_go_on) if rewards else None
        )
        self.evaluation: Evaluation | HeldOutReward = (
            HeldOutReward(self.rewards, data.evaluation, recipe, reporter)
            if self.rewards
            else Evaluation(self.step, data.evaluation, recipe, reporter)
        )
        self.sample_answers = (
            SampleAnswers(self.step, reporter, shown, self.schedule, self.eval_every) if shown else None
        )
        advice = (lambda: advice_when_full(self.ahead)) if advice_when_full else None
        self.recovery = Recovery(
            self.step, self.position, self.checkpoints, self._log_decision, self._save_and_go_on, advice
        )
        self._memory = MemoryUse(reporter, compute.on_card)
        # a number of threads that the person has set stays
        may_change = not compute.on_card and train.ranks == 1 and "OMP_NUM_THREADS" not in os.environ
        thread_control = torch.get_num_threads(), cores.usable(), cores.OtherLoad(), torch.set_num_threads
        self._threads = Threads(*thread_control) if may_change else None

    def run(self, before_first_step: Callable[[Ahead], None] | None = None) -> Position:
        """Train to the end and return the position; before_first_step is called with the computations ahead and may
        refuse (core/training/memory/probe).

        Raises StopRequested or PauseRequested (the adapter is that of the last finished step), NotFiniteError or
        NothingLeftError (of the last good step).
        """
        train, tuned, goes_on = self.recipe.train, self.step.tuned, self.position.step < self.schedule.total_steps
        self.reporter.has_something_to_save()
        self._clock = self._new_clock(spent_before=time_left.seconds_so_far(self.reporter.run))
        if self.sample_answers:  # a run resumed only for the evaluation after its last step has no batch to try
            self.sample_answers.begin(
                self.position.step, self.longest().tokens if goes_on else self.recipe.data.max_length
            )
        self.step.begin(train.seed)
        if self.step.fused and self.step.fused.reason:
            self.reporter.run.log_event("decision", message=self.step.fused.reason)
        try:
            check = self.reporter.check if self.step.stops_inside else lambda: None
            with stop_inside_layers(tuned, check), neftune.noise(tuned, train.neftune_noise_alpha):
                if before_first_step and goes_on:
                    self.reporter.set_stage("probing")
                    before_first_step(self.ahead)
                if self._referenced:
                    step = self.position.step
                    self.recovery.attempt(
                        step, partial(fill_reference, self._referenced, self.step, self.recipe, self.reporter, step > 0)
                    )
                if self.rewards and not self.position.step:
                    self.rewards.try_judges(self.data.train)
                self._clock = self._new_clock(self._clock.spent_before)
                self._due_after(self.position.step)
                self._steps()
        finally:
            self.step.release()
            self._memory.keep_peak()
            if self.position.step:
                time_left.add_times(self.reporter.run, took_seconds=self._clock.spent)
        return self.position

    # ---- steps ----------------------------------------------------------------------------------------------------
    def _steps(self) -> None:
        """Compute the coming steps: write each one's metrics, act on the verdict (leave the step out, or go back), then
        do what is due after it."""
        total = self.schedule.total_steps
        self.reporter.set_stage("training")
        for number, micro_batches in self._coming_steps():
            self.reporter.check()
            metrics, verdict, seconds = self.recovery.attempt(number, partial(self._step, number, micro_batches))
            self.reporter.metrics("train", number, **metrics, epoch=number / self.schedule.steps_per_epoch)
            if verdict in ("roll_back", "stop"):
                self._roll_back(number, metrics, is_end=verdict == "stop")
                continue
            if verdict == "skip":
                self._log_decision("left_out", number, msg("sanity.left_out", step=number, **loss_and_norm(metrics)))
            self.position.step, self.position.tokens_seen = number, metrics["tokens_seen"]
            self.step.note_finished()
            self._memory.note(number, last=number == total)
            tokens = self.rewards.newest_tokens if self.rewards else sum(self._tokens(batch) for batch in micro_batches)
            if self._spill:
                self._spill.note(number, seconds, tokens)
            if self._threads and (changed := self._threads.note(seconds, tokens)):
                self.reporter.run.log_event("decision", message=changed)
            self._clock.finish(number)
            self._report_time_left(number)
            self._due_after(number)

    def _coming_steps(self) -> Iterator[tuple[int, list[list[int]]]]:
        """Yield (number, positions of rows by micro-batch) of the coming steps until the end or early stopping; start
        again from the new position if the run goes back meanwhile."""
        while self.position.step < self.schedule.total_steps and not self.has_stopped_improving:
            for number, micro_batches in enumerate(self.schedule.steps(self.position.step), self.position.step + 1):
                yield number, micro_batches
                if self.position.step != number or self.has_stopped_improving:
                    break

    def _step(self, number: int, micro_batches: Sequence[Sequence[int]]) -> tuple[dict[str, Any], StepVerdict, float]:
        """Compute one optimizer step and apply it if its loss and gradients are good; return its metrics, the verdict
        on them and its seconds. Otherwise the adapter stays as it was."""
        started = time.perf_counter()  # time.monotonic moves each 15.6 ms on Windows: some steps would take 0 s
        learning_rate = self._learning_rate(number)
        rows: list[Rows] = [[self.data.train[i] for i in chosen] for chosen in micro_batches]
        if self.rewards:
            rows = self.rewards.micro_batches(number, rows, [i for chosen in micro_batches for i in chosen])
        parts = [part for each in rows for part in self.step.parts(each)]
        computed = self.step.compute(parts, learning_rate, self.reporter.check)
        # the loss of drawn answers tells nothing; the surprise at them rises when they become gibberish
        health = self.rewards.newest_surprise if self.rewards else computed.loss
        verdict = self.position.health.judge(health, computed.is_finite, number)
        self.step.apply(verdict == "good", is_first=not self.position.step)
        metrics = {
            **(self.rewards.metrics() if self.rewards else {"loss": computed.loss}),
            "grad_norm": computed.grad_norm,
            "learning_rate": learning_rate,
            "tokens_seen": self.position.tokens_seen + computed.tokens,
            **self.step.take_pair_metrics(),
        }
        seconds = time.perf_counter() - started
        metrics["tokens_per_second"] = computed.trained_tokens / max(seconds, 1e-6)
        return metrics, verdict, seconds

    def _learning_rate(self, number: int) -> float:
        """Return the learning rate of step `number` (from 1), halved for each return of the run."""
        train, total = self.recipe.train, self.schedule.total_steps
        value = train.learning_rate * schedule_factor(
            number - 1, total, warmup_steps(train, total), train.lr_scheduler_type
        )
        return value * self.position.health.share_of_learning_rate

    def _roll_back(self, number: int, metrics: Mapping[str, float], is_end: bool) -> None:
        """Return to the last good checkpoint (core/training/recovery), log why, save, and time anew. Raises
        NotFiniteError if is_end."""
        health = self.position.health
        self.recovery.roll_back(number, metrics, is_end)
        key = "sanity.ran_away" if health.has_diverged else "sanity.no_numbers"
        back, rate = self.position.step, self._learning_rate(self.position.step + 1)
        self._log_decision(
            "went_back",
            number,
            msg(key, step=number, back=back, start=health.started_at, rate=rate, **loss_and_norm(metrics)),
        )
        self._clock = self._new_clock(self._clock.spent)
        self._save_and_go_on()

    # ---- after a step ---------------------------------------------------------------------------------------------
    def _due_after(self, number: int) -> None:
        """Evaluate, write sample answers and save where that is due after a finished step; a run paused in the middle
        does the rest when resumed."""
        last = number == self.schedule.total_steps
        if (number % self.eval_every == 0 or last) and self.position.measured_step != number:
            with self._clock.pause("evaluation"):
                self._evaluate(number)
            self.reporter.set_stage("training")
        if self.sample_answers and self.sample_answers.is_due(number, self.has_stopped_improving):
            with self._clock.pause("sampling"):
                self.sample_answers.take(number, self._clock.steps_take, self.has_stopped_improving)
            self.reporter.set_stage("training")
        if number and (last or (number % self.save_every == 0 and self.position.health.is_worth_saving)):
            self._save_and_go_on()

    def _evaluate(self, number: int) -> None:
        """Evaluate, write the metrics, and at the best loss or reward so far its step to position and run.json, with a
        checkpoint. That at step 0 is no best one. An evaluation that runs out of memory is skipped: hours of training
        are worth more."""
        position = self.position
        try:
            loss = self.recovery.attempt(number, self.evaluation.measure)
        except NothingLeftError:
            position.measured_step = number
            self._log_decision("not_measured", number, msg("retreat.not_measured", step=number))
            return
        if loss is None:
            return
        self.reporter.metrics("eval", number, **self.evaluation.metrics(loss, number))
        position.measured_step = number
        if number == 0:
            if not self.rewards:  # a reward is no loss to compare those of the steps with
                position.health.note_start(loss)
            return
        position.since_best += 1
        if best.take_over(position, loss, is_reward=self.rewards is not None):
            position.since_best, position.best_checkpoint = 0, checkpoint.name_of(number)
            self.reporter.run.add_facts(best.facts_of(position))
            # If a checkpoint is due at this step anyway, `_due_after` saves it right after this.
            if number % self.save_every or not position.health.is_worth_saving:
                self.checkpoint()

    @property
    def has_stopped_improving(self) -> bool:
        """True if early stopping applies: the last `patience` evaluations did not improve on the best one. Patience 0:
        never."""
        return 0 < self.patience <= self.position.since_best

    def best_to_keep(self) -> str | None:
        """Return the name of the best checkpoint if it is to be the result; None for the last state, if
        that is the best or the checkpoint is gone."""
        return best.to_keep(self.reporter.run, self.recipe, self.position.best_checkpoint, self.position.since_best)

    def checkpoint(self) -> None:
        """Save everything that the next step depends on, as of the end of the last finished one."""
        self.reporter.set_stage("saving")
        time_left.add_times(self.reporter.run, took_seconds=self._clock.spent)  # the checkpoint's card reads it
        self.position.retreats = list(self.step.retreat.reductions)
        self.checkpoints.write(self.position, self.step.states())

    def _save_and_go_on(self) -> None:
        """Save a checkpoint if any step is finished, timed apart from the steps, and set the stage to training."""
        if self.position.step:
            with self._clock.pause("saving"):
                self.checkpoint()
        self.reporter.set_stage("training")

    def restore(self, saved: Saved) -> None:
        """Resume from a checkpoint: weights, states, position and memory settings, bit for bit on a CPU."""
        self.step.restore(saved.weights, saved.states)
        self.position.go_to(saved.position)
        self.step.retreat.reductions = list(saved.position.retreats)

    # ---- events and forecasts ---------------------------------------------------------------------------------------
    def _log_decision(self, what: str, step: int, message: Message) -> None:
        """Log an automatic decision of the run (what: its kind), for its timeline and its card."""
        self.reporter.run.log_event("guard", what=what, step=step, message=message)

    def _report_time_left(self, number: int) -> None:
        """Write step and remaining seconds to the state, and after 20 steps of this attempt to run.json, to compare it
        with the time taken."""
        left, total = self._clock.seconds_left(number), self.schedule.total_steps
        total_seconds = None if left is None else self._clock.spent + left
        self.reporter.set_progress(number, total, left, total_seconds)
        if total_seconds is not None and number - self._clock.done == ESTIMATED_AFTER:
            time_left.add_times(self.reporter.run, after_steps=ESTIMATED_AFTER, said_seconds=total_seconds)

    def _new_clock(self, spent_before: float = 0.0) -> time_left.TimeLeft:
        """Return a new clock of the remaining time from the current position on; spent_before: seconds of training
        before it."""
        sizes = [sum(self._tokens(batch) for batch in step) for step in self._steps_searched()]
        measured = int(sum(lengths_of(self.data.evaluation)))
        done, total = self.position.step, self.schedule.total_steps
        return time_left.TimeLeft(
            total, sizes, done=done, eval_every=self.eval_every, save_every=self.save_every,
            sample_every=self.sample_answers.every if self.sample_answers else 0, evaluation_size=measured,
            spent_before=spent_before,
        )  # fmt: skip

    def _steps_searched(self) -> Iterator[list[list[int]]]:
        """Yield the micro-batches (positions of rows) of each coming step, STEPS_SEARCHED at most."""
        return islice(self.schedule.steps(self.position.step), STEPS_SEARCHED)

    def _tokens(self, chosen: Sequence[int]) -> int:
        """Return the tokens of a micro-batch, padding included. chosen: positions of its rows."""
        return padded_tokens([int(self.schedule.lengths[i]) for i in chosen], self.step.packed)

    def longest(self) -> LongestBatch:
        """Return the largest micro-batch of the coming STEPS_SEARCHED steps; by rewards, the largest possible."""
        if self.rewards:
            return self.rewards.longest(self.data.train, self.schedule.batch_size * self.schedule.accumulation)
        return longest_of(self.step, self._steps_searched(), self.data.train)

    @property
    def ahead(self) -> Ahead:
        """Return what the memory probe needs: the step, the training rows, the function that returns the largest coming
        micro-batch, trials of an evaluation and of sample answers, and the function that saves more memory."""
        rehearsals = (self.evaluation.rehearse, *((self.sample_answers.rehearse,) if self.sample_answers else ()))
        return Ahead(self.step, self.data.train, self.longest, rehearsals, self.recovery.reduce_memory_beforehand)
