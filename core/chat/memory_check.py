"""Compares a chat's memory need with the free memory before its weights are loaded. No torch."""

from __future__ import annotations

from core.memory.arithmetic import weights
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.values import GIB

# Of both columns together: a conversation of some pages, well below the limit of a chat.
TOKENS = 2 * 2048


def needed_bytes(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the weights and of the KV cache of TOKENS (docs/memory.md, 1.1). The GPU's context is not part of free
    memory."""
    cache_bytes = TOKENS * 2 * shape.num_hidden_layers * shape.kv_width * setup.base_bytes
    return weights(shape, setup) + cache_bytes


def too_little(shape: ModelShape, setup: Setup, free_bytes: int) -> Message | None:
    """Return a warning, with advice, if the model does not fit into free_bytes, else None.

    It is loaded all the same: other programs may release memory, and Windows lends a GPU some RAM.
    """
    need = needed_bytes(shape, setup)
    if need <= free_bytes:
        return None
    is_smallest = setup.base_bits == 4 or shape.quantized is not None  # stored quantized weights stay as they are
    advice = msg("chat.close_others" if is_smallest else "chat.choose_4_bit")
    key = "chat.tight_card" if setup.device == "card" else "chat.tight_ram"
    return msg(key, need_gib=need / GIB, free_gib=free_bytes / GIB, advice=advice)
