"""The optimizer of a run: AdamW on the adapter; with LoRA+, matrices B have a higher learning rate than A. Workers
only.

A group's learning rate is the run's times its `lr_ratio`, which checkpoints store with the group.
"""

from __future__ import annotations

from typing import Any

import torch

from core.recipe import Recipe
from core.system.machine import driver_system


def make(tuned: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over the trained parameters of tuned, with the recipe's learning rate and weight
    decay."""
    train = recipe.train
    groups = groups_of(tuned, train.loraplus_lr_ratio)
    return by_name(train.optim, groups, lr=train.learning_rate, weight_decay=train.weight_decay)


def by_name(optim: str | None, groups: list[dict[str, Any]], **settings: float) -> torch.optim.Optimizer:
    """Return AdamW in fp32, or bitsandbytes' 8-bit or paged 8-bit one (about 2 bytes per parameter instead of 8).
    Without memory paging on this GPU, paged_adamw_8bit becomes adamw_8bit, which is otherwise its equal."""
    if optim in (None, "adamw_torch"):
        return torch.optim.AdamW(groups, fused=True, **settings)
    import bitsandbytes

    if not can_page(groups[0]["params"][0]):
        optim = "adamw_8bit"
    names = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}
    return names[optim](groups, **settings)


def can_page(parameter: torch.Tensor) -> bool:
    """True if the optimizer's states of parameter may be in unified memory: not with Windows' driver (CUDA programming
    guide, CONCURRENT_MANAGED_ACCESS), and not without a GPU."""
    return parameter.is_cuda and driver_system() == "Linux"


def groups_of(tuned: torch.nn.Module, loraplus_lr_ratio: float | None) -> list[dict[str, Any]]:
    """Return one group of all trained parameters; with LoRA+ two, as in peft's create_loraplus_optimizer: A with
    lr_ratio 1, and B with DoRA's magnitudes and lr_ratio loraplus_lr_ratio."""
    trained = [(name, p) for name, p in tuned.named_parameters() if p.requires_grad]
    if loraplus_lr_ratio is None:
        return [{"params": [p for _, p in trained], "lr_ratio": 1.0}]
    faster = [p for name, p in trained if "lora_B" in name or p.ndim == 1]
    others = [p for name, p in trained if not ("lora_B" in name or p.ndim == 1)]
    return [{"params": others, "lr_ratio": 1.0}, {"params": faster, "lr_ratio": loraplus_lr_ratio}]


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set each group's learning rate to value times its own lr_ratio (LoRA+), 1 without one."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("lr_ratio", 1.0)  # missing in checkpoints from before LoRA+
