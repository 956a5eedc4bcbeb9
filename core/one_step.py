"""One step of training, as `Trainer` does it and as core/dry_run counts it: the same code, on tensors with and without data.

No number is read here, so that none has to be there: whether a loss is finite is the trainer's question. Imports torch:
workers only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from core import fused_lora
from core.batches import Batch
from core.loss import Head, summed_loss


def prepare(tuned: Any, gradient_checkpointing: bool) -> fused_lora.Fused:
    """Checkpointing and the fused adapters, as every step of a run has them; release what is returned after the last."""
    if gradient_checkpointing:
        tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        tuned.enable_input_require_grads()  # else nothing below the first checkpoint gets a gradient
    return fused_lora.fuse(tuned)


def gradients(
    tuned: Any,
    batches: Sequence[Batch],
    head: Head,
    scaler: torch.amp.GradScaler,
    offload: AbstractContextManager,
    check: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Forward and backward of every micro-batch, weighted by its learned tokens. Returns the summed loss, a scalar without
    gradient; what is added to the gradients is that of the mean. check is asked before each."""
    learned = max(1, sum(batch.targets.numel() for batch in batches))
    loss_sum = torch.zeros((), device=batches[0].input_ids.device)
    for batch in batches:
        check()
        with offload:
            loss = summed_loss(tuned, batch, head)
            scaler.scale(loss / learned).backward()
        loss_sum += loss.detach()
    return loss_sum


def clip(parameters: Sequence[torch.nn.Parameter], max_grad_norm: float | None) -> torch.Tensor:
    """Hold the gradients to a norm of max_grad_norm (None or 0: to none). Returns the norm that they had."""
    return torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf)


def update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
    scaler.step(optimizer)
    scaler.update()


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], optim: str | None, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW in fp32, or bitsandbytes' 8-bit and paged 8-bit ones (about 2 bytes a parameter instead of 8)."""
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    if optim in (None, "adamw_torch"):
        return torch.optim.AdamW(parameters, fused=True, **settings)
    import bitsandbytes

    names = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}
    return names[optim](parameters, **settings)
