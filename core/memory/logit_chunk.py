"""How many positions the head is applied to at once. No torch: the arithmetic in core/memory/arithmetic asks as well.

A chunk of logits is large enough that its product is computed as fast as a larger one, and small beside everything else
that a step holds: of 49k words and 512 positions whole fp32 logits would be 96 MiB, of 152k words and 4,096 positions 2.3 GiB.
"""

from __future__ import annotations

MIB = 2**20
CHUNK_BYTES = {"cpu": 32 * MIB, "card": 128 * MIB}  # of one copy in fp32
LEAST = 16


def rows_at_once(vocab_size: int, on_card: bool) -> int:
    """Positions whose logits exist at the same time; at least LEAST, whatever the vocabulary."""
    return max(LEAST, CHUNK_BYTES["card" if on_card else "cpu"] // (4 * vocab_size))
