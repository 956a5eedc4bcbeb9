"""Linear layers of a model on a CPU, their weights in the order in which oneDNN's bfloat16 kernel reads them.
Imports torch: workers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch

from core.memory.arithmetic import MAX_PREPACKED_BYTES

ROWS = 16  # of a batch: oneDNN chooses the order for them, and computes other batches from it too


@contextmanager
def prepacked(model: torch.nn.Module) -> Iterator[None]:
    """Context manager without gradients: compute the linear layers from weights that are reordered once, which oneDNN
    otherwise does for every token (a third of a step's time). The results are the same. Models larger than
    MAX_PREPACKED_BYTES, whose linear weights would be held twice, and processors without the kernel compute as before.
    """
    parameters = list(model.parameters())
    is_used = (
        has_kernel()
        and all(parameter.device.type == "cpu" for parameter in parameters)
        and sum(parameter.nbytes for parameter in parameters) <= MAX_PREPACKED_BYTES
    )
    layers = [module for module in model.modules() if is_used and _is_packable(module)]
    with ExitStack() as stack:
        for layer in layers:
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight, ROWS)
            layer.forward = partial(_linear, weight, layer.bias)
            # The forward of the class is then found again.
            stack.callback(delattr, layer, "forward")
        yield


def has_kernel() -> bool:
    """Return whether this torch has oneDNN with bfloat16 kernels for this processor."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_packable(module: torch.nn.Module) -> bool:
    """Return whether module is a plain bfloat16 layer whose forward nobody has replaced."""
    return type(module) is torch.nn.Linear and module.weight.dtype == torch.bfloat16 and "forward" not in vars(module)


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    """Return rows (..., in) times the reordered weight (out, in), plus the bias."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
