"""Whether a chat fits into the free memory, calculated before its weights are loaded. No torch."""

from __future__ import annotations

from core.memory.arithmetic import weights
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.values import GIB

# Of both columns together: a talk of some pages, well below what a chat may hold at most.
TOKENS = 2 * 2048


def needed_bytes(shape: ModelShape, setup: Setup) -> float:
    """The weights, and what attention remembers of TOKENS (docs/memory.md, 1.1). The context of a card is no part of
    what is free."""
    remembered = TOKENS * 2 * shape.num_hidden_layers * shape.kv_width * setup.base_bytes
    return weights(shape, setup) + remembered


def too_little(shape: ModelShape, setup: Setup, free_bytes: int) -> Message | None:
    """What is to be said of it before the load, where it does not fit. It is tried all the same: what other programs
    hold may go, and Windows gives a card some of the RAM."""
    need = needed_bytes(shape, setup)
    if need <= free_bytes:
        return None
    is_smallest = setup.base_bits == 4 or shape.quantised is not None  # what is stored quantised stays as it is
    advice = msg("chat.close_others" if is_smallest else "chat.choose_4_bit")
    key = "chat.tight_card" if setup.device == "card" else "chat.tight_ram"
    return msg(key, need_gib=need / GIB, free_gib=free_bytes / GIB, advice=advice)
