"""One optimizer step, shared by the trainer, the dry run and the pace measurement. Imports torch: workers only.

Micro-batches weighted by their trained tokens (so accumulation equals one large batch), gradient clipping, AdamW. A
step knows how it is computed now (core/engine/out_of_memory) and how to undo itself; others decide which rows come
next, the learning rate, and whether its values are plausible.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from peft import PeftModel, set_peft_model_state_dict

from core.data.labels import Encoded
from core.engine import adapter, attention
from core.engine import optimizer as optimizers
from core.engine.batches import Batch, collate, collate_packed
from core.engine.device import Compute, States, random_states, set_random_states
from core.engine.families import vocabulary
from core.engine.loss import Head, summed_loss, token_losses
from core.engine.out_of_memory import Retreat
from core.engine.variants import fused_lora
from core.engine.variants.elementwise import Elementwise, install
from core.engine.variants.layers import checkpoint_layers
from core.engine.variants.offload import Offload
from core.engine.variants.policy import Policy
from core.engine.variants.preference import SUMS, Preference
from core.recipe import Recipe

Rows = Sequence[Encoded]


@dataclass(frozen=True)
class StepResult:
    """The result of `Step.compute`.

    loss: mean over its trained tokens, or its pairs. grad_norm: before clipping. tokens: read, without padding.
    trained_tokens: those of them with a loss. is_finite: the update may be applied.
    """

    loss: float
    grad_norm: float
    tokens: int
    trained_tokens: int
    is_finite: bool


@dataclass(frozen=True)
class LongestBatch:
    """The largest micro-batch of a run. tokens: padding included. several: steps have more than one micro-batch."""

    rows: tuple[Encoded, ...]
    tokens: int
    trained_tokens: int
    several: bool


class Step:
    """One optimizer step of a peft model, repeated by the trainer.

    tuned: the peft model on device, its base of dtype, adapters float32. packed: rows lie end to end
    (core/engine/attention). criterion: the loss of pairs or of drawn answers. offloading: creates the context that
    offloads activations. computing: the rows being computed; if empty, an out-of-memory error is raised, not retried
    (core/training/recovery). random: RNG states at the end of the last finished step, None before the first attempt.
    stops_inside: a step may be left between two layers.
    """

    # False with several ranks: the others would wait for one that has left the step (core/training/ranks).
    stops_inside = True

    def __init__(
        self, tuned: PeftModel, device: torch.device, dtype: torch.dtype, optimizer: torch.optim.Optimizer, head: Head,
        retreat: Retreat, pad_token_id: int = 0, max_grad_norm: float | None = 1.0,
        offloading: Callable[[PeftModel], AbstractContextManager[object]] = Offload,
        criterion: Preference | Policy | None = None,
    ):  # fmt: skip
        """Store what a step needs, create its loss scaler, and let each optimizer step raise the version counters of
        the trained parameters, by which copies of them are refreshed."""
        self.tuned, self.device, self.dtype, self.on_card = tuned, device, dtype, device.type == "cuda"
        self.optimizer, self.head, self.retreat = optimizer, head, retreat
        self.packed, self.pad_token_id, self.criterion = retreat.packed, pad_token_id, criterion
        self.parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
        # Optimizers write past PyTorch's version counters, which tell fused_lora's copies that a factor has changed.
        optimizer.register_step_post_hook(
            lambda *_, trained=self.parameters: torch.autograd.graph.increment_version(trained)
        )
        self.scaler = self._new_scaler()
        self.fused: fused_lora.Fused | None = None
        self.elementwise: Elementwise | None = None
        self.computing: Rows = ()
        self.random: States | None = None
        self._max_grad_norm, self._offloading = max_grad_norm, offloading
        self._offload: AbstractContextManager[object] | None = None
        self._pair_sums, self._pairs = torch.zeros(len(SUMS), device=device), 0
        self.untrained: list[torch.Tensor] = []
        self._random_at_start: States = {}

    @classmethod
    def from_recipe(cls, tuned: PeftModel, recipe: Recipe, compute: Compute, pad_token_id: int) -> Step:
        """Create the step of a run. Call it before an attempt is restored: the adapter is then the initial one of every
        attempt, of which a copy is kept in RAM."""
        base = tuned.get_base_model()
        packed = recipe.data.packing and attention.enable(base)
        step = cls(
            tuned,
            compute.device,
            compute.dtype,
            optimizer=optimizers.make(tuned, recipe),
            head=Head.from_model(base),
            retreat=Retreat.from_recipe(recipe, packed, compute.on_card),
            pad_token_id=vocabulary.padding(base, pad_token_id),
            max_grad_norm=recipe.train.max_grad_norm,
            criterion=Policy.from_recipe(recipe) or Preference.from_train(recipe.train),
        )
        step.untrained = [parameter.detach().to("cpu", copy=True) for parameter in step.parameters]  # to begin anew
        return step

    def _new_scaler(self) -> torch.amp.GradScaler:
        """Return the scaler of the loss, which does something for float16 on a GPU only."""
        return torch.amp.GradScaler("cuda", enabled=self.dtype == torch.float16 and self.on_card)

    # ---- attempts: begin, save, restore ---------------------------------------------------------------------------
    def begin(self, seed: int) -> None:
        """Prepare for the first step of an attempt: seed the RNGs, or set them to the state of an earlier attempt if
        `restore` has read one, apply the memory settings, and replace forwards by faster ones, which `release`
        undoes."""
        # Seeded also before a state is restored: `reset_to_start` needs the RNG states of a fresh attempt.
        torch.manual_seed(seed)
        self._random_at_start = random_states(self.on_card)
        self.random = self.random or self._random_at_start
        set_random_states(self.random)
        self.save_memory()
        self.fuse()

    def fuse(self) -> None:
        """Replace forwards in the model by faster ones that give the same values (variants/fused_lora, elementwise)."""
        self.fused = fused_lora.fuse(self.tuned)
        self.elementwise = install(self.tuned)

    def release(self) -> None:
        """Undo `fuse`; does nothing if it was not called."""
        if self.fused and self.elementwise:
            self.fused.release()
            self.elementwise.release()

    def save_memory(self) -> None:
        """Apply the memory settings of the recipe and of the retreats since: checkpointing and offloading."""
        if self.retreat.checkpointing:
            checkpoint_layers(self.tuned, self.retreat.kept_layers)
        if self.retreat.offloads and self._offload is None:
            self._offload = self._offloading(self.tuned)

    def states(self) -> States:
        """Return everything besides the adapter that the next step depends on, as of the end of the last finished
        one."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "random": self.random}

    def restore(self, weights: dict[str, torch.Tensor], states: States) -> None:
        """Restore the adapter, the optimizer and the loss scaler, bit for bit on a CPU, and note the random state,
        which `begin` sets. weights: of the adapter, by PEFT's names; states: as from `states`."""
        adapter.restore(self.tuned, weights)
        self.optimizer.load_state_dict(states["optimizer"])
        self.scaler.load_state_dict(states["scaler"])
        self.random = states["random"]

    # ---- a step ---------------------------------------------------------------------------------------------------
    def parts(self, rows: Rows) -> list[list[Encoded]]:
        """Split a planned micro-batch into those computed now, as `Retreat.parts`."""
        chosen = self.retreat.parts(range(len(rows)), [len(row.input_ids) for row in rows])
        return [[rows[i] for i in part] for part in chosen]

    def tokens(self, rows: Rows) -> int:
        """Return the tokens of a micro-batch, padding included."""
        return padded_tokens([len(row.input_ids) for row in rows], self.packed)

    def batch(self, rows: Rows) -> Batch:
        """Return the rows as one batch on the device, end to end if packed, else padded."""
        if self.packed:
            return collate_packed(rows, self.device)
        return collate(rows, self.pad_token_id, self.device)

    def compute(
        self, parts: Sequence[Rows], learning_rate: float, check: Callable[[], None] = lambda: None
    ) -> StepResult:
        """Forward and backward of every part, with gradients clipped; the adapter changes only in `apply`. Returns
        loss, gradient norm and token counts, and is_finite: loss and norm are finite, or fp16's scaler may still lower
        its scale. check is called before each part and may raise.

        A step that is left on the way has touched gradients only: the adapter is that of the step before.
        """
        self.tuned.train()
        optimizers.set_learning_rate(self.optimizer, learning_rate)
        # Until the first part begins, the largest stands for all: making the batches may need too much memory too.
        self.computing = max(parts, key=self.tokens)
        batches = [self.batch(rows) for rows in parts]
        self.reset_pair_metrics()
        loss_sum = self.backward_step(parts, batches, check)
        grad_norm = float(self.clip())
        trained_tokens = sum(batch.targets.numel() for batch in batches)
        loss = float(loss_sum) / self.loss_divisor(batches)[0]
        # float16's GradScaler: it skips the step itself
        may_overflow = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        is_finite = math.isfinite(loss) and (math.isfinite(grad_norm) or may_overflow)
        return StepResult(loss, grad_norm, sum(batch.tokens for batch in batches), trained_tokens, is_finite)

    def backward_step(self, parts: Sequence[Rows], batches: Sequence[Batch], check: Callable[[], None]) -> torch.Tensor:
        """Call `backward` for a whole step and return its summed loss; `check` is called and `computing` set before
        each part."""

        def note_part(number: int) -> None:
            """Call `check`, which may raise, and then record this part's rows as those being computed."""
            check()
            self.computing = parts[number]

        return self.backward(batches, note_part)

    def backward(
        self, batches: Sequence[Batch], entering: Callable[[int], None] = lambda number: None, is_scaled: bool = True,
        divisor: tuple[float, float] | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Forward and backward of every micro-batch, weighted by its trained tokens, or pairs. Returns the summed loss,
        a scalar without gradient; the gradients are added to the parameters' and are those of the mean (loss /
        divisor), times the loss scale if is_scaled.

        entering: called with each one's number, from 0. divisor: `loss_divisor` of the step that batches belong to.
        """
        count, sft_share = divisor or self.loss_divisor(batches)
        loss_sum = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            entering(number)
            with self._offload or nullcontext():
                loss = self._compared(batch, sft_share) if self.criterion else summed_loss(self.tuned, batch, self.head)
                (self.scaler.scale(loss / count) if is_scaled else loss / count).backward()
            loss_sum += loss.detach()
            del loss  # or its graph would keep the embedded tokens and their gradient through the next micro-batch
        return loss_sum

    def loss_divisor(self, batches: Sequence[Batch]) -> tuple[float, float]:
        """Return the trained tokens of a step, at least 1, and 0; with a criterion (pairs, rewards) its own divisor."""
        # One divisor for the whole step, not one for each micro-batch: a mean of means would weight a short one like a
        # long one.
        if self.criterion:
            return self.criterion.divisor(batches)
        return max(1, sum(batch.targets.numel() for batch in batches)), 0.0

    def _compared(self, batch: Batch, sft_share: float) -> torch.Tensor:
        """Return the criterion's loss of a batch, and add its sums to those of the step."""
        assert self.criterion
        losses = token_losses(self.tuned, batch, self.criterion.head(self.head))
        loss, sums = self.criterion.loss_and_sums(losses, batch, sft_share)
        self._pair_sums, self._pairs = self._pair_sums + sums, self._pairs + self.criterion.count(batch)
        return loss

    def take_pair_metrics(self) -> dict[str, float]:
        """Return the criterion's metrics besides its loss (of pairs, or the KL divergence of drawn answers), averaged
        since the last reset, and reset them. {} without a criterion, or if nothing was compared since."""
        if not (self.criterion and self._pairs):
            return {}
        metrics = self.criterion.metrics(self._pair_sums.tolist(), self._pairs)
        self.reset_pair_metrics()
        return metrics

    def reset_pair_metrics(self) -> None:
        """Set the sums of the pair metrics to zero."""
        if self._pairs:
            self._pair_sums, self._pairs = torch.zeros(len(SUMS), device=self.device), 0

    def clip(self) -> torch.Tensor:
        """Undo float16's loss scale in the gradients, then clip them to the recipe's max_grad_norm (None or 0: not at
        all). Returns their norm before the clipping."""
        # float16's gradients are scaled up; their norm would be clipped for the scale.
        self.scaler.unscale_(self.optimizer)
        # An infinite limit changes nothing, but measures the norm, which the metrics show in any case.
        return torch.nn.utils.clip_grad_norm_(self.parameters, self._max_grad_norm or math.inf)

    def apply(self, is_good: bool, is_first: bool = False) -> None:
        """Apply the optimizer's update if is_good, update the loss scale and clear the gradients.

        Until the call, and during the first update, `computing` still names the rows, so that running out of memory is
        retried: is_first, in which the optimizer creates its state, can be undone. A later update cannot, so
        `computing` is emptied before it and the error is raised.
        """
        if not is_first:
            self.computing = ()
        if is_good:
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def note_finished(self) -> None:
        """Note the present RNG states as those of the last finished step, which `states` saves and a retry of the next
        step begins with."""
        self.random = random_states(self.on_card)

    @torch.no_grad()
    def evaluate_batch(self, rows: Rows, compares: bool = False) -> tuple[float, int]:
        """Return (summed loss, trained tokens or pairs) of a batch, without gradients and in the model's present train
        or eval mode. compares: by the criterion, if there is one; its metrics are then added to those of
        `take_pair_metrics`."""
        self.computing = rows  # first: the batch itself may not fit
        batch = self.batch(rows)
        if compares and self.criterion:
            loss, count = self._compared(batch, self.criterion.divisor([batch])[1]), self.criterion.count(batch)
        else:
            loss, count = summed_loss(self.tuned, batch, self.head), batch.targets.numel()
        result = float(loss), count
        self.computing = ()
        return result

    def evaluate_batches(self, batches: Iterator[Rows], check: Callable[[], None]) -> Iterator[tuple[int, float, int]]:
        """Yield for each batch of an evaluation its number of rows and the result of `evaluate_batch`; check is called
        before each and may raise."""
        for rows in batches:
            check()
            yield len(rows), *self.evaluate_batch(rows, compares=True)

    # ---- undo -----------------------------------------------------------------------------------------------------
    def discard_unfinished(self) -> None:
        """Undo what an unfinished step has changed (gradients, loss scaler, random state), and free its memory, also
        the GPU's cache. The adapter is not changed."""
        self.computing = ()
        self.optimizer.zero_grad(set_to_none=True)
        if self.fused:
            self.fused.forget()
        state, self.scaler = self.scaler.state_dict(), self._new_scaler()  # the old one may be in the middle of a step
        self.scaler.load_state_dict(state)
        if self.random:
            set_random_states(self.random)
        gc.collect()
        if self.on_card:
            torch.cuda.empty_cache()

    @torch.no_grad()
    def reset_to_start(self) -> None:
        """Restore the adapter from before the first step (with PiSSA its initial factors), empty the optimizer's state,
        and note the random state of that time, which `begin` or `discard_unfinished` sets."""
        pissa = getattr(self.tuned, "pissa", None)
        if pissa and pissa.start:  # the base lacks what the adapter then began with
            set_peft_model_state_dict(self.tuned, pissa.start)
        else:
            self.copy_adapter(self.untrained)
        self.optimizer.state.clear()
        self.random = self._random_at_start

    @torch.no_grad()
    def copy_adapter(self, values: Sequence[torch.Tensor]) -> None:
        """Copy values into the adapter's parameters, in their order."""
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    # ---- the longest batch (core/training/memory/probe) ------------------------------------------
    def rehearse(self, longest: LongestBatch) -> None:
        """Compute forward and backward of the longest micro-batch to see whether it fits, with gradients present
        already if steps have several; RNG states are restored and gradients cleared afterwards. Raises an out-of-memory
        error if it does not fit."""
        states = random_states(self.on_card)
        self.tuned.train()
        if longest.several:  # in a step, all micro-batches but the first add to existing gradients
            for parameter in self.parameters:
                parameter.grad = torch.zeros_like(parameter)
        try:
            self.backward([self.batch(longest.rows)], is_scaled=False)
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            set_random_states(states)


def padded_tokens(lengths: Sequence[int], packed: bool) -> int:
    """Return the tokens of a micro-batch of rows of these lengths, padding included."""
    return sum(lengths) if packed else max(lengths) * len(lengths)
