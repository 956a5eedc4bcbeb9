"""Leave a long step half-way: between the layers of a forward and of a backward. Imports torch: workers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from core.engine.batches import Batch
from core.engine.loss import Head, summed_loss


@contextmanager
def stop_inside_layers(tuned: torch.nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Let `check` raise between the layers of a forward and of a backward.

    A step that is left has touched gradients only: the adapter is that of the step before.
    """

    def entering(module: torch.nn.Module, args: tuple) -> None:
        check()

    def leaving(module: torch.nn.Module, args: tuple, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            hidden.register_hook(_checking)

    def _checking(gradient: torch.Tensor) -> None:
        check()

    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in tuned.modules() if isinstance(module, GradientCheckpointingLayer)]
    hooks = [layer.register_forward_pre_hook(entering) for layer in layers]
    hooks += [layer.register_forward_hook(leaving) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def checkpoint_layers(tuned: Any) -> None:
    """Of each layer keep the input alone, and compute the rest again in the backward."""
    tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.enable_input_require_grads()  # else nothing below the first checkpoint gets a gradient


def gradients(
    tuned: Any,
    batches: Sequence[Batch],
    head: Head,
    scaler: torch.amp.GradScaler,
    offload: AbstractContextManager,
    entering: Callable[[int], None] = lambda number: None,
) -> torch.Tensor:
    """Forward and backward of every micro-batch, weighted by its learned tokens. Returns the summed loss, a scalar without
    gradient; what is added to the gradients is that of the mean. entering is called with the number of each, from 0."""
    learned = max(1, sum(batch.targets.numel() for batch in batches))
    loss_sum = torch.zeros((), device=batches[0].input_ids.device)
    for number, batch in enumerate(batches):
        entering(number)
        with offload:
            loss = summed_loss(tuned, batch, head)
            scaler.scale(loss / learned).backward()
        loss_sum += loss.detach()
    return loss_sum


def clip(parameters: Sequence[torch.nn.Parameter], max_grad_norm: float | None) -> torch.Tensor:
    """Hold the gradients to a norm of max_grad_norm (None or 0: to none). Returns the norm that they had."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf)
