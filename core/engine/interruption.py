"""Leave a long step half-way: between the layers of a forward and of a backward. Imports torch: workers only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


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
