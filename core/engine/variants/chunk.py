"""Losses and gradient of one chunk of positions, for a head that is not trained. Imports torch: workers only.

A GPU holds at most 8 bytes per logit: fp32 logits and their softmax, which becomes their gradient. A CPU holds the
logits once, in the head's dtype: it scales, caps and softmaxes a few rows at a time, which stay in its cache, and
overwrites them with their gradient. The same bits either way.
"""

from __future__ import annotations

import torch
from torch.nn import functional

FEW_AT_ONCE = ("cpu",)  # devices that softmax a few rows at a time
IN_CACHE = 1 << 18  # logits that a CPU softmaxes at a time: 1 MiB in fp32


def chunk_loss(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, aim: torch.Tensor, scale: float,
    cap: float | None,
    gradient: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """(K,) float32 losses of hidden (K, h), aim (K, 1), logits as core.engine.loss.Head computes them; hidden's
    gradient is written to gradient."""
    learns = gradient is not None
    if hidden.device.type not in FEW_AT_ONCE:
        # fp32 before the softmax, which would else make that copy beside the 16-bit logits.
        loss, of_logits = _softmaxed(functional.linear(hidden, weight, bias).float(), aim, scale, cap, learns)
        of_logits = of_logits.to(weight.dtype)
    else:
        of_logits, loss = functional.linear(hidden, weight, bias), hidden.new_empty(len(hidden), dtype=torch.float32)
        few = max(1, IN_CACHE // len(weight))
        for some in (slice(start, start + few) for start in range(0, len(hidden), few)):
            loss[some], found = _softmaxed(of_logits[some].float(), aim[some], scale, cap, learns)
            if learns:
                of_logits[some] = found
            del found
    if gradient is not None:
        torch.mm(of_logits, weight, out=gradient)
    return loss


def _softmaxed(
    logits: torch.Tensor, aim: torch.Tensor, scale: float, cap: float | None, learns: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of fp32 logits, which are overwritten, and if wanted the gradient of the head's output."""
    if scale != 1.0:
        logits.mul_(scale)
    if cap is not None:
        logits.div_(cap).tanh_().mul_(cap)
    log_probability = torch.log_softmax(logits, -1)
    if cap is None:
        del logits
    loss = -log_probability.gather(1, aim)[:, 0]
    if not learns:
        return loss, log_probability
    of_logits = log_probability.exp_()  # softmax - one at the target
    of_logits.scatter_add_(1, aim, torch.full_like(aim, -1, dtype=torch.float32))
    if cap is not None:
        of_logits.mul_(logits.div_(cap).square_().neg_().add_(1))  # the slope of the cap
        del logits
    if scale != 1.0:
        of_logits.mul_(scale)
    return loss, of_logits
