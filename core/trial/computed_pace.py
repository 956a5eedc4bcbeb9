"""The pace of a plan computed from the size of its model, where no run has measured it. No torch; nothing is timed.

A token of LoRA takes two passes through the model (forward, and the gradients of activations; frozen weights have
none), and a third where activations are recomputed. The speeds are those that a step may reach, not those on the box,
so a time is right within a factor of two.
"""

from __future__ import annotations

from core.memory.budget import Budget
from core.messages import msg
from core.models.shapes.shape import ModelShape
from core.system.processor import has_bfloat16
from core.trial.pace import Pace

# One thread of an EPYC with AVX-512 does 95 in bf16 (tests/data/series, 200 tokens/s of the starter).
GFLOPS_A_CORE, WITHOUT_BFLOAT16 = 95.0, 50.0
# A layer of a step has some 200 launches of 10 microseconds (docs/speed.md), which small models wait for.
LAYER_S, STEP_TOKENS = 0.002, 512
# The slowest common GPU of each size in GB, and its dense fp16 with fp32 sums in TFLOP/s, by NVIDIA's whitepapers.
CARDS = (
    (6, "RTX 2060", 26.0),
    (8, "RTX 3050", 18.0),
    (10, "RTX 3080", 59.0),
    (12, "RTX 3060", 25.0),
    (16, "RTX 4060 Ti", 44.0),
    (24, "RTX 3090", 71.0),
    (32, "RTX 5090", 209.0),
    (48, "RTX A6000", 155.0),
    (80, "A100", 312.0),
)
LEARNED = 0.5  # of a row's tokens, which go through the head: usual for a chat
SHARE = 0.4  # of that, in training; trainers that are published reach 0.3 to 0.6


def products_of(shape: ModelShape) -> float:
    """Return the multiplications of a token through the layers and, weighted by the share of learned tokens, the
    head."""
    heads = 2 * (shape.num_attention_heads + shape.num_key_value_heads) * shape.head_dim
    layers = shape.num_hidden_layers * shape.hidden_size * (3 * shape.active_width + heads)
    return float(layers + LEARNED * shape.hidden_size * shape.vocab_size)


def compute(budget: Budget, shape: ModelShape, recomputes: bool, cores: int) -> Pace | None:
    """Return the training speed (tokens a second) estimated from the model's size, on this PC's processor with so many
    cores or on the budget's GPU: that of the largest GPU in CARDS that has no more memory than it. None for a GPU with
    less memory than all of these.

    recomputes: with gradient checkpointing, which computes the forward twice.
    """
    flop = 2.0 * products_of(shape) * (3 if recomputes else 2)
    if budget.kind == "cpu":
        gflops = cores * (GFLOPS_A_CORE if has_bfloat16() else WITHOUT_BFLOAT16)
        return Pace(tokens_per_second=1e9 * gflops / flop, source=msg("pace.computed"))
    card = next(((name, tflops) for gb, name, tflops in reversed(CARDS) if gb <= (budget.sold_gb or 0)), None)
    if card is None:
        return None
    seconds = max(flop / (1e12 * SHARE * card[1]), shape.num_hidden_layers * LAYER_S / STEP_TOKENS)
    return Pace(tokens_per_second=1 / seconds, source=msg("pace.computed_for", card=card[0]))
