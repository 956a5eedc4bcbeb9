"""The layers of a model in a step: let a stop in between two of them, and checkpoint them. Workers only (torch)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from peft import PeftModel
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def stop_inside_layers(tuned: torch.nn.Module, check: Callable[[], None]) -> Iterator[None]:
    """Context manager: call `check`, which may raise, before each decoder layer of a forward and after each of a
    backward.

    A step that is left has touched gradients only: the adapter is that of the step before.
    """

    def check_in_backward(
        module: torch.nn.Module, args: tuple[object, ...], output: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> None:
        """Register a hook on a layer's output that calls `check` when the backward reaches it. Does nothing without
        gradients."""
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, torch.Tensor) and hidden.requires_grad:
            # Runs when the backward has reached the layer's output: between two layers.
            hidden.register_hook(lambda gradient: check())

    layers = [module for module in tuned.modules() if isinstance(module, GradientCheckpointingLayer)]
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(lambda *_: check()))
            hooks.enter_context(layer.register_forward_hook(check_in_backward))
        yield


def checkpoint_layers(tuned: PeftModel, kept: int = 0) -> None:
    """Enable gradient checkpointing: save only each layer's input and recompute the rest in the backward. The last
    `kept` layers are exempt: their backward comes first, and their memory is freed before the others recompute."""
    tuned.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    tuned.enable_input_require_grads()  # otherwise nothing below the first checkpoint gets a gradient
    if kept:
        layers = [
            module
            for module in tuned.get_base_model().get_decoder().modules()
            if isinstance(module, GradientCheckpointingLayer)
        ]
        for layer in layers[-kept:]:
            layer.gradient_checkpointing = False
