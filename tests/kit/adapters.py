"""An adapter that has something to say, without training it, and what a model answers."""

from __future__ import annotations

from typing import Any

import torch

from core.engine import adapter
from core.recipe import Adapter


def adapted(base: Any, std: float = 0.05, seed: int = 2, **settings: Any) -> Any:
    """Return base with a LoRA of rank 4 (or the given settings of Adapter) whose B is not zero; the same each time."""
    torch.manual_seed(seed)
    return fill_b(adapter.add(base, Adapter(**({"r": 4} | settings)), "tiny", None), std, seed)


def fill_b(tuned: Any, std: float = 0.05, seed: int = 2) -> Any:
    """Fill the B matrices with random numbers and return tuned: peft makes them zero, and such an adapter changes no
    answer."""
    torch.manual_seed(seed)
    for name, parameter in tuned.named_parameters():
        if parameter.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return tuned


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return model's logits, (B, T, vocabulary), in evaluation mode. ids: (B, T)."""
    with torch.no_grad():
        found = model.eval()(input_ids=ids, use_cache=False).logits
    assert isinstance(found, torch.Tensor)
    return found
