"""The training loop: steps and measurements. Hands in everything it needs; its only way out is the Reporter.

One optimizer step: micro-batches weighted by their learned tokens (so accumulating equals one large batch), gradient
norm clipped, AdamW, schedule. Does not load, tokenise or decide; does not know about processes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.data.schedule import Schedule, packed
from core.data.tokenizer import Encoded
from core.engine import adapter, attention, fused_lora, neftune, optimizer
from core.engine.batches import Batch, collate, collate_packed
from core.engine.device import Compute
from core.engine.loss import Head, summed_loss
from core.engine.offload import Offload
from core.engine.step import checkpoint_layers, clip, gradients, stop_inside_layers
from core.messages import Message, msg
from core.progress import Progress
from core.recipe import Recipe
from core.runs.facts import RunFacts, TimeFacts
from core.runs.reporter import Reporter
from core.runs.spill import SpillWatch
from core.runs.time_left import TimeLeft
from core.training import best, checkpoint
from core.training.checkpoint import Checkpoints, Position, Saved, States
from core.training.memory_use import MemoryUse
from core.training.recovery import Recovery, as_words
from core.training.retreat import NothingLeftError, Retreat

if TYPE_CHECKING:
    from core.training.film import Film

STEPS_LOOKED_AT = 20_000  # for the longest batch: a second; a run of more steps reads every row in them several times
TOLD_AFTER = 20  # steps


@dataclass(frozen=True)
class TrainingData:
    train: Sequence[Encoded]
    evaluation: Sequence[Encoded]
    pad_token_id: int


@dataclass(frozen=True)
class LongestBatch:
    """rows: positions in the training data. tokens: padding included. several: whether steps have more than one micro-batch."""

    rows: tuple[int, ...]
    tokens: int
    learned: int
    several: bool


class Trainer:
    """tuned: the peft model on compute.device, adapters float32. save_adapter(folder) writes it in PEFT's format."""

    def __init__(
        self,
        tuned: Any,
        recipe: Recipe,
        data: TrainingData,
        compute: Compute,
        reporter: Reporter,
        save_adapter: Callable[[Path], None],
    ):
        self.tuned, self.recipe, self.data, self.compute = tuned, recipe, data, compute
        self.reporter = reporter
        train = recipe.train
        self.packed = recipe.data.packing and attention.enable(tuned.get_base_model())
        if recipe.data.packing and not self.packed:
            reporter.warn(msg("run.not_packed"))
        self.schedule = Schedule(
            lengths=tuple(len(row.input_ids) for row in data.train),
            batch_size=train.per_device_train_batch_size,
            accumulation=train.gradient_accumulation_steps,
            num_train_epochs=train.num_train_epochs,
            max_steps=train.max_steps,
            seed=train.seed,
            capacity=train.per_device_train_batch_size * recipe.data.max_length if self.packed else None,
        )
        a_fifth = max(1, math.ceil(self.schedule.total_steps / 5))
        self.eval_every, self.save_every = train.eval_steps or a_fifth, train.save_steps or train.eval_steps or a_fifth
        self.patience = best.patience(recipe, self.schedule.total_steps, self.eval_every, len(data.evaluation))
        self.parameters = [p for p in tuned.parameters() if p.requires_grad]
        self.optimizer = optimizer.make(tuned, recipe)
        self.head = Head.of(tuned.get_base_model())
        self.scaler = self.new_scaler()
        self.retreat = Retreat(recipe, self.packed, compute.on_card)
        self.offload: Any = nullcontext()
        self.memory = MemoryUse(reporter, compute.on_card)
        self.checkpoints = Checkpoints(reporter.run, save_adapter, train.save_total_limit, train.save_total_gib)
        self.spill: SpillWatch | None = None  # core/training/probe knows what to watch
        self.film: Film | None = None  # core/training/worker knows what to ask
        self.would_fit: Callable[[Trainer], Message] | None = None  # core/training/probe knows that too
        self.position = Position()
        self.random: States | None = None  # at the end of the last finished step
        self.recovery = Recovery(self)

    def run(self, before_first_step: Callable[[Trainer], None] | None = None) -> Position:
        """Train to the end; before_first_step may refuse to (core/training/probe). Raises StopRequested or PauseRequested (adapter as it
        stands after the last finished step), NotFiniteError or NothingLeftError (adapter of the last good step)."""
        train = self.recipe.train
        self.reporter.has_something_to_save()
        torch.manual_seed(train.seed)
        at_start = checkpoint.random_states(self.compute.on_card)
        self.recovery.begin(at_start)
        self.random = self.random or at_start
        checkpoint.set_random_states(self.random)
        self.save_memory()
        self.fused = fused_lora.fuse(self.tuned)
        if self.fused.reason:
            self.reporter.run.log_event("decision", message=self.fused.reason)
        try:
            with stop_inside_layers(self.tuned, self.reporter.check), neftune.noise(self.tuned, train.neftune_noise_alpha):
                if before_first_step:
                    before_first_step(self)
                self.clock = self.new_clock()
                self._after(self.position.step)
                self._steps()
                told = self.reporter.run.facts().time
                if told and not self.has_stopped_improving:
                    took = told.model_copy(update={"took_seconds": round(self.clock.spent, 1)})
                    self.reporter.run.add_facts(RunFacts(time=took))
        finally:
            self.fused.release()
            self.memory.keep_peak()
        return self.position

    def _steps(self) -> None:
        total = self.schedule.total_steps
        self.reporter.stage("training")
        for step, micro_batches in self._coming():
            self.reporter.check()
            numbers = self.recovery.attempt(step, partial(self._step, step, micro_batches))
            verdict, seconds = numbers.pop("verdict"), numbers.pop("seconds")
            numbers["tokens_per_second"] = numbers.pop("learned") / max(seconds, 1e-6)
            self.reporter.metrics("train", step, **numbers, epoch=step / self.schedule.steps_per_epoch)
            if verdict in ("go_back", "stop"):
                self.recovery.go_back(step, numbers, is_end=verdict == "stop")
                continue
            if verdict == "leave_out":
                self.tell("left_out", step, msg("sanity.left_out", step=step, **as_words(numbers)))
            self.position.step, self.position.tokens_seen = step, numbers["tokens_seen"]
            self.random = checkpoint.random_states(self.compute.on_card)
            self.memory.note(step, last=step == total)
            if self.spill:
                self.spill.note(step, seconds, sum(self._tokens(batch) for batch in micro_batches))
            self.clock.finish(step)
            self._tell_time(step)
            self._after(step)

    def _coming(self) -> Iterator[tuple[int, list[list[int]]]]:
        """Numbers and micro-batches of the steps to come; begins anew where the run was taken back meanwhile."""
        while self.position.step < self.schedule.total_steps and not self.has_stopped_improving:
            for step, micro_batches in enumerate(self.schedule.steps(self.position.step), self.position.step + 1):
                yield step, micro_batches
                if self.position.step != step or self.has_stopped_improving:
                    break

    @property
    def has_stopped_improving(self) -> bool:
        """On the rows kept apart: no measurement was better than the best one for as long as the recipe waits."""
        return 0 < self.patience <= self.position.since_best

    def best_to_keep(self) -> str | None:
        """The checkpoint that the run should keep instead of its last state."""
        return best.to_keep(self.reporter.run, self.recipe, self.position.best_checkpoint, self.position.since_best)

    def tell(self, what: str, step: int, message: Message) -> None:
        """What the run did of itself, for its timeline and its card."""
        self.reporter.run.log_event("guard", what=what, step=step, message=message)

    def _tell_time(self, step: int) -> None:
        """To the state, and after 20 steps (of this attempt) to run.json: what was said then is held against what it took."""
        left, total = self.clock.seconds_left(step), self.schedule.total_steps
        whole = None if left is None else self.clock.spent + left
        self.reporter.step(step, total, left, whole)
        if whole is not None and step - self.clock.done == TOLD_AFTER:
            self.reporter.run.add_facts(RunFacts(time=TimeFacts(after_steps=TOLD_AFTER, said_seconds=round(whole, 1))))

    def _after(self, step: int) -> None:
        """What is due once a step is finished, and still due when a run that was paused in it goes on."""
        last = step == self.schedule.total_steps
        if (step % self.eval_every == 0 or last) and self.position.measured_step != step:
            with self.clock.pause("evaluation"):
                self._measure(step)
            self.reporter.stage("training")
        if self.film and self.film.is_due(step):
            with self.clock.pause("film"):
                self.film.take(step)
            self.reporter.stage("training")
        if step and (last or (step % self.save_every == 0 and self.position.health.is_worth_saving)):
            with self.clock.pause("saving"):
                self.checkpoint()
            self.reporter.stage("training")

    def _measure(self, step: int) -> None:
        """A measurement that gets no memory is left out: hours of training are worth more."""
        try:
            self.recovery.attempt(step, partial(self.evaluate, step))
        except NothingLeftError:
            self.position.measured_step = step
            self.tell("not_measured", step, msg("retreat.not_measured", step=step))

    def _step(self, step: int, micro_batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """One optimizer step; returns its numbers, and what they are worth. Nothing of the adapter changes unless they are good."""
        started = time.perf_counter()  # time.monotonic moves each 15.6 ms on Windows: some steps would take 0 s
        self.tuned.train()
        learning_rate = self.set_learning_rate(step)
        parts = [part for rows in micro_batches for part in self.retreat.parts(rows, self.schedule.lengths)]
        self.recovery.computing = max(parts, key=self._tokens)
        batches = [self._batch([self.data.train[i] for i in rows]) for rows in parts]
        learned = sum(batch.targets.numel() for batch in batches)

        def entering(number: int) -> None:
            self.reporter.check()
            self.recovery.computing = parts[number]

        loss_sum = gradients(self.tuned, batches, self.head, self.scaler, self.offload, entering)
        self.scaler.unscale_(self.optimizer)
        grad_norm = float(clip(self.parameters, self.recipe.train.max_grad_norm))
        loss = float(loss_sum) / learned
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() > 1  # float16's own: it leaves the step out itself
        finite = math.isfinite(loss) and (math.isfinite(grad_norm) or may_overflow)
        verdict = self.position.health.judge(loss, finite, step)
        if self.position.step:  # in the first step the optimizer makes its state, which can be undone; later it changes it
            self.recovery.computing = ()
        if verdict == "good":
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        tokens_seen = self.position.tokens_seen + sum(batch.tokens for batch in batches)
        numbers = {"loss": loss, "grad_norm": grad_norm, "learning_rate": learning_rate, "tokens_seen": tokens_seen}
        return {**numbers, "learned": learned, "seconds": time.perf_counter() - started, "verdict": verdict}

    def _batch(self, rows: Sequence[Encoded]) -> Batch:
        if self.packed:
            return collate_packed(rows, self.compute.device)
        return collate(rows, self.data.pad_token_id, self.compute.device)

    def set_learning_rate(self, step: int) -> float:
        train, total = self.recipe.train, self.schedule.total_steps
        value = train.learning_rate * schedule_factor(step - 1, total, warmup_steps(self.recipe, total), train.lr_scheduler_type)
        value *= self.position.health.share_of_learning_rate
        optimizer.set_learning_rate(self.optimizer, value)
        return value

    def new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cuda", enabled=self.compute.dtype == torch.float16 and self.compute.on_card)

    def save_memory(self) -> None:
        """As the recipe, and what was found since, have it."""
        if self.retreat.checkpointing:
            checkpoint_layers(self.tuned)
        if self.retreat.offloads and not isinstance(self.offload, Offload):
            self.offload = Offload(self.tuned)

    # ---- measuring ------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def evaluate(self, step: int) -> None:
        """Mean loss over the learned tokens of the rows kept apart; nothing where none are."""
        rows = self.data.evaluation
        if not rows:
            return
        self.tuned.eval()
        loss_sum, learned, done = 0.0, 0, 0
        for chosen in self._eval_batches():
            self.reporter.stage("measuring", Progress(done=done, total=len(rows), unit="rows"))
            self.reporter.check()
            self.recovery.computing = chosen
            batch = self._batch([rows[i] for i in chosen])
            done += len(chosen)
            loss_sum += float(summed_loss(self.tuned, batch, self.head))
            learned += batch.targets.numel()
        self.recovery.computing = ()
        eval_loss = loss_sum / learned
        self.reporter.metrics("eval", step, eval_loss=eval_loss)
        self.position.measured_step = step
        if step == 0:
            self.position.health.note_start(eval_loss)
            return
        so_far = self.position.best_eval_loss
        self.position.since_best += 1
        if math.isfinite(eval_loss) and (so_far is None or eval_loss < so_far):
            self.position.best_eval_loss, self.position.since_best = eval_loss, 0
            self.position.best_checkpoint = checkpoint.name_of(step)
            self.reporter.run.add_facts(RunFacts(best_checkpoint=checkpoint.name_of(step), best_eval_loss=eval_loss))
            if step % self.save_every or not self.position.health.is_worth_saving:  # else it is saved right after this
                self.checkpoint()

    def _eval_batches(self) -> list[list[int]]:
        train = self.recipe.train
        rows, size = self.data.evaluation, min(train.per_device_eval_batch_size, train.per_device_train_batch_size)
        lengths = [len(row.input_ids) for row in rows]
        if self.packed:  # no more at once than in training, which the plan has reckoned with
            whole = packed(range(len(rows)), lengths, size * self.recipe.data.max_length)
        else:
            order = sorted(range(len(rows)), key=lengths.__getitem__)
            whole = [order[start : start + size] for start in range(0, len(order), size)]
        return [part for batch in whole for part in self.retreat.parts(batch, lengths)]

    # ---- checkpoints ----------------------------------------------------------------------------------------------
    def checkpoint(self) -> None:
        """Everything that the next step depends on, as it was at the end of the last finished one."""
        self.reporter.stage("saving")
        self.position.retreats = list(self.retreat.taken)
        states = {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "random": self.random}
        self.checkpoints.write(self.position, states)

    def restore(self, saved: Saved) -> None:
        """Go on from a checkpoint, bit for bit on a processor."""
        adapter.restore(self.tuned, saved.weights)
        self.optimizer.load_state_dict(saved.states["optimizer"])
        self.scaler.load_state_dict(saved.states["scaler"])
        self.position, self.random = saved.position, saved.states["random"]
        self.retreat.taken = list(saved.position.retreats)

    def new_clock(self, spent_before: float = 0.0) -> TimeLeft:
        rows = self.data.evaluation
        steps = islice(self.schedule.steps(self.position.step), STEPS_LOOKED_AT)
        return TimeLeft(
            self.schedule.total_steps,
            [sum(self._tokens(batch) for batch in step) for step in steps],
            done=self.position.step,
            eval_every=self.eval_every,
            save_every=self.save_every,
            evaluation_size=sum(len(row.input_ids) for row in rows),
            spent_before=spent_before,
            film_every=self.film.every if self.film else 0,
        )

    def _tokens(self, rows: Sequence[int]) -> int:
        """Of a micro-batch, padding included."""
        lengths = [len(self.data.train[i].input_ids) for i in rows]
        return sum(lengths) if self.packed else max(lengths) * len(lengths)

    # ---- tried out before the first step (core/training/probe) ---------------------------------------------------------------
    def longest(self) -> LongestBatch:
        """The micro-batch of the coming steps with most tokens, padding included; of several the one that learns most."""
        steps = list(islice(self.schedule.steps(self.position.step), STEPS_LOOKED_AT))

        def size(rows: Sequence[int]) -> tuple[int, int]:
            return self._tokens(rows), sum(self.data.train[i].learned_count for i in rows)

        lengths = self.schedule.lengths
        parted = [[part for batch in step for part in self.retreat.parts(batch, lengths)] for step in steps]
        rows = max((part for step in parted for part in step), key=size)
        return LongestBatch(tuple(rows), *size(rows), several=any(len(step) > 1 for step in parted))

    def rehearse(self, longest: LongestBatch) -> None:
        """Forward and backward as in a step, thrown away: random states and gradients are afterwards as they were before."""
        states = checkpoint.random_states(self.compute.on_card)
        self.tuned.train()
        if longest.several:  # in a step all but the first micro-batch find gradients
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
        try:
            batch = self._batch([self.data.train[i] for i in longest.rows])
            gradients(self.tuned, [batch], self.head, torch.amp.GradScaler("cuda", enabled=False), self.offload)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            checkpoint.set_random_states(states)

    @torch.no_grad()
    def rehearse_evaluation(self) -> None:
        """The largest batch of a measurement, thrown away; nothing where no rows are kept apart."""
        rows = self.data.evaluation
        if not rows:
            return
        self.tuned.eval()
        widest = max(self._eval_batches(), key=lambda chosen: max(len(rows[i].input_ids) for i in chosen) * len(chosen))
        summed_loss(self.tuned, self._batch([rows[i] for i in widest]), self.head)


def schedule_factor(done: int, total: int, warmup: int, kind: str) -> float:
    """Share of learning_rate for the step after `done` ones, 0 to 1. The decay is that of transformers' schedulers.

    The warm-up rises from 1/(warmup + 1), not from zero as theirs, so that the first step already learns.
    """
    if done < warmup:
        return (done + 1) / (warmup + 1)
    progress = (done - warmup) / max(1, total - warmup)
    if kind == "linear":
        return max(0.0, 1 - progress)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0


def warmup_steps(recipe: Recipe, total: int) -> int:
    """As transformers counted them: warmup_ratio of all steps, rounded up, where warmup_steps says nothing."""
    return recipe.train.warmup_steps or math.ceil(recipe.train.warmup_ratio * total)
