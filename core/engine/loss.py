"""The loss on trained tokens, with the head applied only there, some hundred positions at a time.

Hidden states are picked by an integer index (a boolean mask has no fixed shape) before they meet the head, so the
vocabulary multiplies the trained tokens of a chunk, never the sequence. The gradient of a chunk's hidden states is
computed together with its logits; neither logits nor softmax are saved, and the head is not copied to fp32.

A family's logit scale (Cohere, Granite, Falcon-H1) or soft cap (Gemma) is read from its configuration and tested on the
model itself; if the test fails, the model's own forward computes the logits of the trained positions. Imports torch:
workers only.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

from core.engine.batches import Batch
from core.engine.families import unsupported
from core.engine.variants.chunk import chunk_loss
from core.memory.arithmetic import rows_at_once

# Their names in configurations; a scale of None, 1 or 1.0 is none.
_FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier_scale")
_DIVISORS = ("logits_scaling",)
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


@dataclass(frozen=True)
class Head:
    """The step from the head's output to logits: cap * tanh(scale * head(hidden) / cap), without the cap where it is
    None.

    alone: the test passed, so the head may be applied to a few positions; otherwise the model's own forward is used.
    """

    scale: float = 1.0
    cap: float | None = None
    alone: bool = True

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> Head:
        """Read cap, and scale (a factor over a divisor), each from the first of its known field names that the
        configuration has; 1 and None without them. `alone` is True, untested."""
        configs = (config, config.get_text_config())

        def first_number(names: Sequence[str]) -> float | None:
            """Return the first number that the configuration, or else its text part, has under one of these names, as a
            float; None if there is none."""
            values = (getattr(each, name, None) for each in configs for name in names)
            return next((float(value) for value in values if isinstance(value, int | float)), None)

        scale = first_number(_FACTORS) or 1.0
        return cls(scale / (first_number(_DIVISORS) or 1.0), first_number(_CAPS) or None)

    @classmethod
    def from_model(cls, model: PreTrainedModel) -> Head:
        """Read scale and cap, and test on 8 tokens that the model computes so; otherwise `alone` is False, the scale 1,
        and there is no cap. model: a causal LM without a peft wrapper."""
        configured = cls.from_config(model.config)
        return configured if _matches_model(model, configured) else cls(alone=False)

    def bend(self, logits: torch.Tensor) -> torch.Tensor:
        """Return fp32 logits from the head's output, scaled and capped."""
        logits = logits.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def summed_loss(tuned: torch.nn.Module, batch: Batch, head: Head | None = None) -> torch.Tensor:
    """Cross-entropy summed over the trained tokens of batch, a float32 scalar; divide it by batch.targets.numel().

    tuned: a causal LM, with or without a peft wrapper. head: None for the configuration's.
    """
    return token_losses(tuned, batch, head).sum()


def token_losses(tuned: torch.nn.Module, batch: Batch, head: Head | None = None) -> torch.Tensor:
    """The cross-entropy of each trained token, (K,) float32; the head is applied to trained positions only, chunk by
    chunk, or, where it may not be applied alone, the model's own logits are used. head: read from the configuration if
    None."""
    model = tuned.get_base_model() if hasattr(tuned, "get_base_model") else tuned
    head = head or Head.from_config(model.config)
    if not head.alone:
        return functional.cross_entropy(head.bend(_model_logits(model, batch)), batch.targets, reduction="none")
    hidden = model.get_decoder()(**batch.inputs()).last_hidden_state
    # (B, T, h) -> (K, h)
    # An index instead of a boolean mask: its result has a known shape, so the CPU need not wait for the GPU to count.
    picked = hidden.flatten(0, 1).index_select(0, batch.index)
    return head_losses(model.get_output_embeddings(), picked, batch.targets, head)


def head_losses(layer: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    """Cross-entropy of head(hidden), hidden (K, h) against targets (K,), per token (K,), computed in chunks."""
    # Any other head (quantized, or with an adapter) is more than a weight and a bias, and has to be called.
    if type(layer) is not torch.nn.Linear or any(parameter.requires_grad for parameter in layer.parameters()):
        return _trained_head_losses(layer, hidden, targets, head)
    return _FrozenHead.apply(hidden, layer.weight, layer.bias, targets, head)


def _row_chunks(rows: int, vocab_size: int, device: torch.device) -> list[slice]:
    """Return slices that together cover so many rows, each as long as the memory for logits of this vocabulary on the
    device allows."""
    size = rows_at_once(vocab_size, device.type != "cpu")
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


class _FrozenHead(torch.autograd.Function):
    """The losses (K,) of a head that is not trained. Saves the gradient of each loss for the backward, (K, h) in
    hidden's dtype."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        head: Head,
    ) -> torch.Tensor:
        """Return the losses (K,), chunk by chunk; save their gradient by hidden only if hidden needs one."""
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        # Made here: later the chunk's logits are gone.
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for chunk in _row_chunks(len(hidden), len(weight), hidden.device):
            into = None if gradient is None else gradient[chunk]
            losses[chunk] = chunk_loss(hidden[chunk], weight, bias, targets[chunk, None], head.scale, head.cap, into)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_losses: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Return the saved gradient times that of each loss, in place where the losses' gradients differ; a gradient
        that is one expanded scalar leaves it as it is."""
        (gradient,) = ctx.saved_tensors
        if grad_losses.stride(0):  # each its own: in place, for beside them a product in fp32 would be twice as large
            return gradient.mul_(grad_losses[:, None]), None, None, None, None
        return gradient * grad_losses[0], None, None, None, None


def _trained_head_losses(
    layer: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, head: Head
) -> torch.Tensor:
    """The losses (K,) of a head that is trained or has an adapter: the backward recomputes each chunk's logits."""

    def chunk_losses(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the losses of the positions of one chunk, from the model's head on their hidden states."""
        return functional.cross_entropy(head.bend(layer(hidden)), targets, reduction="none")

    parts = [
        checkpoint(chunk_losses, hidden[chunk], targets[chunk], use_reentrant=False)
        for chunk in _row_chunks(len(hidden), layer.out_features, hidden.device)
    ]
    return torch.cat(parts)


def _model_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the model's own logits at the trained positions, (K, V). Where forward has no logits_to_keep it computes
    all positions and selects from them."""
    inputs, width = batch.inputs(), batch.input_ids.shape[1]
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return model(**inputs).logits.flatten(0, 1).index_select(0, batch.index)
    # The model selects columns for all rows alike: those that any row needs, of which each row then takes its own.
    columns, place = torch.unique(batch.index % width, return_inverse=True)
    return model(**inputs, logits_to_keep=columns).logits[batch.index // width, place]


@torch.no_grad()
def _matches_model(model: PreTrainedModel, head: Head) -> bool:
    """Return whether head on the decoder's hidden states gives the model's own logits of 8 tokens, within 1 % of the
    largest; on the meta device only the shapes are compared. False if the family's code fails. Restores train or eval
    mode."""
    device = next(model.parameters()).device
    ids = torch.arange(5, 13, device=device)[None] % model.config.get_text_config().vocab_size
    was_training = model.training
    # With dropout, two forwards of the same tokens would differ.
    model.eval()
    try:
        with unsupported.tolerated():
            own = model(input_ids=ids, use_cache=False).logits.float()
            ours = head.bend(
                model.get_output_embeddings()(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
            )
            # On the meta device (core/trial/dry_run) there is nothing to compare.
            return own.shape == ours.shape and (own.is_meta or bool((own - ours).abs().max() <= 0.01 * own.abs().max()))
        return False  # a family with another structure: its own forward is always right
    finally:
        model.train(was_training)
