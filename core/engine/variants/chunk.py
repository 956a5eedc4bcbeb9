"""The losses and the gradient of one chunk of positions, for a head that is not trained. Imports torch: workers only.

A GPU holds at most 8 bytes per logit: fp32 logits and their softmax, which becomes their gradient. A CPU holds the
logits once, in the head's dtype: it scales, caps and softmaxes a few rows at a time, which stay in its cache, and
overwrites them with their gradient. Both give the same bits.
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
    """Return the losses of hidden (K, h), (K,) float32, and write hidden's gradient to `gradient` unless it is None.
    aim: (K, 1) target ids. Logits are computed as core.engine.loss.Head does."""
    learns = gradient is not None
    if hidden.device.type not in FEW_AT_ONCE:
        # fp32 before the softmax, which would else make that copy beside the 16-bit logits.
        loss, grad_logits = _softmaxed(functional.linear(hidden, weight, bias).float(), aim, scale, cap, learns)
        grad_logits = grad_logits.to(weight.dtype)
    else:
        grad_logits, loss = functional.linear(hidden, weight, bias), hidden.new_empty(len(hidden), dtype=torch.float32)
        # So few rows that logits, softmax and gradient stay in the cache instead of passing through RAM three times.
        few = max(1, IN_CACHE // len(weight))
        for some in (slice(start, start + few) for start in range(0, len(hidden), few)):
            loss[some], block = _softmaxed(grad_logits[some].float(), aim[some], scale, cap, learns)
            if learns:
                grad_logits[some] = block
            del block
    if gradient is not None:
        torch.mm(grad_logits, weight, out=gradient)
    return loss


def _softmaxed(
    logits: torch.Tensor, aim: torch.Tensor, scale: float, cap: float | None, learns: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (loss of each row, its gradient with respect to `logits` as passed). logits: the head's raw fp32 output,
    scaled and then capped here, and overwritten. Without `learns` the second is not a gradient and is not used."""
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
    grad_logits = log_probability.exp_()  # softmax - one at the target
    grad_logits.scatter_add_(1, aim, torch.full_like(aim, -1, dtype=torch.float32))
    if cap is not None:
        grad_logits.mul_(logits.div_(cap).square_().neg_().add_(1))  # the slope of the cap
        del logits
    if scale != 1.0:
        grad_logits.mul_(scale)
    return loss, grad_logits
