"""A base larger than its GPU: how few layers must be offloaded to RAM for a plan to fit, the RAM they need, and how
long their copies take (core/engine/variants/streaming). No torch."""

from __future__ import annotations

from bisect import bisect_left

from core.memory.arithmetic import OFFLOADED_THERE, estimate, layer_weights, whole_weights
from core.memory.constants import memory_constants
from core.memory.setup import Setup
from core.models.shapes.shape import ModelShape
from core.values import GIB


def fewest(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> int | None:
    """Layers that must be offloaded for setup to fit with its margin; None if even all are too few. factor: measured
    over predicted, from earlier runs."""

    def holds(count: int) -> bool:
        return factor * estimate(shape, setup.model_copy(update={"offload_layers": count})).needed_gib <= free_gib

    found = bisect_left(range(shape.num_hidden_layers + 1), True, key=holds)
    return found if found <= shape.num_hidden_layers else None


def ram_gib(shape: ModelShape, setup: Setup) -> float:
    """RAM while the base is loaded: all of it, before the GPU's part is copied there, and the staging buffers, one for
    each layer that is on the GPU at a time."""
    in_every_layer = shape.per_layer_params * setup.base_bytes
    staging = min(setup.offload_layers, OFFLOADED_THERE) * layer_weights(shape, setup)
    return (whole_weights(shape, setup) + in_every_layer + staging) / GIB + memory_constants().bus.process_gib


def bytes_a_batch(shape: ModelShape, setup: Setup) -> float:
    """Bytes copied to the GPU per micro-batch: each offloaded layer once in the forward and once in the backward,
    except those still there when either begins."""
    offloaded = min(setup.offload_layers, shape.num_hidden_layers)
    return 2 * max(0, offloaded - OFFLOADED_THERE) * layer_weights(shape, setup)


def seconds(size: float) -> float:
    """How long so many bytes take to the GPU, at the assumed speed."""
    return size / (memory_constants().bus.gb_per_s * 1e9)
