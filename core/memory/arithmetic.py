"""Estimates the memory of a training step before anything is loaded, by arithmetic. No torch.

Symbols: T tokens in a micro-batch, K of them trained (with a label), L layers, h hidden size, V vocabulary, n trainable
parameters. Each term is a function that names the section of docs/memory.md it comes from; its constants are in
presets/memory.yaml, each with its source. They describe the step built by core.engine.base_model, core.engine.adapter,
core.engine.variants.fused_lora, core.engine.loss and core.training.trainer; a change there needs one here.

The peak of a step: everything the layers keep for the backward, plus the backward of either one layer or the head.
"""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from core.memory.constants import memory_constants
from core.memory.layers import (
    experts_at_work,
    experts_kept,
    layer_at_work,
    layer_kept,
    masked_pairs,
    per_layer_inputs,
    readers_of,
    scans,
    windows,
)
from core.memory.setup import Setup
from core.messages import Message
from core.models.shapes.shape import HEAD, ModelShape
from core.values import GIB, MIB

Terms = dict[str, float]


class Estimate(BaseModel):
    """GiB. idle: between steps. allocated: at the peak of a step. on_card: with CUDA context and allocator; on a CPU,
    of the whole process. terms add up to on_card_gib. margin: the possible error."""

    trainable_params: int
    idle_gib: float
    allocated_gib: float
    on_card_gib: float
    terms: Terms
    margin: float
    low_confidence: tuple[Message, ...] = ()

    @classmethod
    def of(cls, idle: Terms, step: Terms, outside: Terms, **facts: Any) -> Estimate:
        """From bytes: between steps, besides them in a step, and outside the allocator's count."""
        terms = {name: size / GIB for name, size in (idle | step | outside).items()}
        return cls(
            idle_gib=sum(terms[name] for name in idle),
            allocated_gib=sum(terms[name] for name in idle | step),
            on_card_gib=sum(terms.values()),
            terms=terms,
            **facts,
        )

    @property
    def needed_gib(self) -> float:
        """What must be free for a plan to count as fitting."""
        return self.on_card_gib * (1 + self.margin)


@lru_cache(maxsize=4096)  # the advice compares the same few setups repeatedly
def estimate(shape: ModelShape, setup: Setup) -> Estimate:
    """The memory of one training step. Raises RecipeError for target modules that the model does not have."""
    if shape.is_unpacked and setup.base_bits < 16:
        setup = setup.model_copy(update={"method": "lora", "load_in_8bit": False})
    n = trainable_params(shape, setup)
    idle = {
        "weights": weights(shape, setup),
        "adapter": adapter(n, setup) + adapter_copy(shape, setup),
        "optimizer": optimizer(n, setup),
        "workspace": workspace(setup),
    }
    pairs = masked_pairs(shape, setup)  # a truth value each, and at work a number
    stored = layers_stored(shape, setup) + per_layer_inputs("kept", shape, setup) + pairs
    head, layer = head_at_work(shape, setup), at_work(shape, setup) + setup.base_bytes * pairs
    unpacked = dequantised(shape, setup)
    step = {
        "gradients": gradients(n, stored, setup),
        # Either one layer is at work or the head is, never both: what the head needs beyond the layer counts. Nothing
        # is unpacked at the head; the numbers of others were fitted with that on top.
        "activations": stored + layer,
        "logits": max(0.0, head - layer - (unpacked if setup.trainer.counted else 0.0)),
        "dequantised": unpacked,
    }
    outside = {"context": context(setup), "slack": slack(stored + max(layer, head), logits(shape, setup), setup)}
    doubt, margin, known = (
        shape.low_confidence,
        memory_constants().margin,
        "known" if setup.device == "card" else "on_cpu",
    )
    return Estimate.of(
        idle,
        step,
        outside,
        trainable_params=n,
        margin=margin["low_confidence" if doubt else known],
        low_confidence=doubt,
    )


# ---- between steps -------------------------------------------------------------------------------


def trainable_params(shape: ModelShape, setup: Setup) -> int:
    """n, section 1.2; DoRA adds one magnitude per output of a layer with an adapter."""
    if setup.method == "full":
        return shape.params
    outputs = (
        sum(matrix.d_out * matrix.count for matrix in shape.targets(setup.target_modules)) if setup.use_dora else 0
    )
    return shape.lora_params(setup.r, setup.target_modules, setup.trains_experts) + outputs


def weights(shape: ModelShape, setup: Setup) -> float:
    """W in bytes, section 1.1, on the GPU. Of offloaded layers: two average ones. Of a sharded base: its own shard, and
    two whole layers."""
    offloaded = min(setup.offload_layers, shape.num_hidden_layers)
    whole = whole_weights(shape, setup)
    if setup.shards > 1:
        in_parts = sharded_weights(shape, setup)
        return whole - in_parts + in_parts / setup.shards + GATHERED_THERE * in_parts / shape.num_hidden_layers
    return whole - (offloaded - OFFLOADED_THERE) * layer_weights(shape, setup) if offloaded > OFFLOADED_THERE else whole


def layer_weights(shape: ModelShape, setup: Setup) -> float:
    """Bytes of an average layer; without embeddings, head and the last norm."""
    beside = shape.embedding_params - shape.per_layer_params + shape.head_params + shape.hidden_size
    return max(0.0, whole_weights(shape, setup) - beside * setup.base_bytes) / shape.num_hidden_layers


def sharded_weights(shape: ModelShape, setup: Setup) -> float:
    """Bytes that FSDP2 shards over the ranks: the layers, except the scales of 4-bit matrices."""
    four_bit = setup.base_bits == 4 and not shape.is_unpacked
    scales = memory_constants().four_bit_bytes["double" if setup.double_quant else "single"] - 0.5
    return layer_weights(shape, setup) * shape.num_hidden_layers - (shape.four_bit_params * scales if four_bit else 0.0)


def whole_weights(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the base, wherever its layers are. QLoRA holds the matrices of the layers in 4 bit, LLM.int8 in 8 with
    an fp32 scale for each output; embeddings, head, norms, routers, experts
    (3-D parameters, which bitsandbytes passes over) stay as they are; towers for pictures or sound are not there. A
    repository that is quantized already is as large as its files, or 16-bit if it is dequantized. With a GPU per-layer
    embeddings stay in RAM."""
    in_ram = shape.per_layer_params * setup.base_bytes if setup.device == "card" and setup.trainer.counted else 0
    if shape.stored_bytes is not None and setup.method != "full":
        return shape.stored_bytes - in_ram
    if setup.base_bits == 16 or shape.is_unpacked:
        return shape.params * setup.base_bytes - in_ram
    if setup.base_bits == 8:
        scales = 4 * sum(matrix.d_out * matrix.count for matrix in shape.matrices)
        return (shape.params - shape.four_bit_params) * setup.base_bytes + shape.four_bit_params + scales - in_ram
    four_bit = memory_constants().four_bit_bytes["double" if setup.double_quant else "single"]
    return (shape.params - shape.four_bit_params) * setup.base_bytes + shape.four_bit_params * four_bit - in_ram


def adapter(n: int, setup: Setup) -> float:
    """A in bytes, section 1.3; full fine-tuning has none."""
    return 0.0 if setup.method == "full" else n * setup.adapter_bytes


def adapter_copy(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the copy in 16 bits that the products of plain LoRA read, section 1.3."""
    has_one = (
        setup.method != "full"
        and setup.base_bytes == 2
        and setup.trainer.counted
        and not (setup.use_dora or setup.lora_dropout)
    )
    return 2.0 * shape.lora_params(setup.r, setup.target_modules, False) if has_one else 0.0


def optimizer(n: int, setup: Setup) -> float:
    """O in bytes, section 1.3."""
    constants = memory_constants()
    width = setup.adapter_bytes if setup.optim in constants.optimizer_states_as_wide_as_parameters else 1
    return n * width * constants.optimizer_bytes[setup.optim]


def workspace(setup: Setup) -> float:
    """The workspace of cuBLAS, in bytes."""
    return memory_constants().workspace_gib * GIB if setup.device == "card" else 0.0


# ---- in a step -----------------------------------------------------------------------------------


def gradients(n: int, stored: float, setup: Setup) -> float:
    """G in bytes, section 1.3; a gradient has the dtype of its parameter. With a single micro-batch they grow while
    saved activations are freed."""
    whole = n * setup.adapter_bytes
    return whole if setup.accumulates else max(0.0, whole - stored)


def layers_stored(shape: ModelShape, setup: Setup) -> float:
    """Bytes that all layers keep at once: everything, or with checkpointing each layer's input. Section 1.4."""
    if setup.offloads:
        return 0.0
    if share := _kept_share(shape, setup):
        return share * layers_stored(shape, _kept(setup)) + (1 - share) * layers_stored(shape, _not_kept(setup))
    if setup.gradient_checkpointing:
        width = 4 if setup.fp32_stream else setup.base_bytes
        return setup.tokens * shape.num_hidden_layers * width * shape.hidden_size * shape.streams
    wide, others = shape.wide, shape.num_hidden_layers - shape.wide_layers
    kept_by_layers = setup.tokens * others * layer_kept(shape, setup)
    kept_by_layers += setup.tokens * shape.wide_layers * layer_kept(wide, setup) if wide else 0.0
    kept_by_layers += setup.tokens * (
        shape.window_layers * windows(shape, setup) + shape.scan_layers * scans(shape, setup)
    )
    return kept_by_layers + shape.expert_layers * experts_kept(shape, setup)


def at_work(shape: ModelShape, setup: Setup) -> float:
    """Bytes that the backward of the most expensive layer needs beyond what all layers keep. If the last layers are not
    checkpointed: of one of those, or of the first checkpointed one, once theirs are freed."""
    if not (share := _kept_share(shape, setup)):
        return layer_at_work(shape, setup) + experts_at_work(shape, setup) + per_layer_inputs("moving", shape, setup)
    gone = share * (layers_stored(shape, _kept(setup)) - layers_stored(shape, _not_kept(setup)))
    return max(at_work(shape, _kept(setup)), at_work(shape, _not_kept(setup)) - gone if share < 1 else 0.0)


def _kept_share(shape: ModelShape, setup: Setup) -> float:
    """Share of the layers that are not checkpointed although the others are."""
    counts = setup.gradient_checkpointing and not setup.offloads
    return min(1.0, setup.kept_layers / shape.num_hidden_layers) if counts else 0.0


def _kept(setup: Setup) -> Setup:
    return setup.model_copy(update={"gradient_checkpointing": False, "kept_layers": 0})


def _not_kept(setup: Setup) -> Setup:
    return setup.model_copy(update={"kept_layers": 0})


def most_kept_layers(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> int:
    """How many layers fit without checkpointing, by the estimate with its margin. factor: the correction from earlier
    runs."""
    counts = range(shape.num_hidden_layers + 1)

    def needed(count: int) -> float:
        return factor * estimate(shape, setup.model_copy(update={"kept_layers": count})).needed_gib

    return max(0, bisect(counts, free_gib, key=needed) - 1)


def logits(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the logits and their derivatives, section 1.5. In our loss: of one chunk; on a CPU the gradient
    overwrites them."""
    at_once, a_logit = setup.tokens, setup.trainer.loss[setup.loss_name].vocabulary
    if setup.loss_name == "supervised":
        at_once = min(setup.learned, rows_at_once(shape.vocab_size, setup.device == "card"))
        a_logit = setup.base_bytes if setup.device == "cpu" else a_logit
    return at_once * shape.vocab_size * a_logit


def head_at_work(shape: ModelShape, setup: Setup) -> float:
    """Bytes at the loss: logits and their hidden states, or afterwards the backward of the last norm, whichever is
    more. Section 1.5."""
    loss, wide = setup.trainer.loss[setup.loss_name], shape.hidden_size * setup.base_bytes / 2
    at_logits = logits(shape, setup) + wide * (setup.tokens * loss.hidden + setup.learned * loss.learned)
    return max(at_logits, wide * setup.tokens * setup.trainer.final_norm)


def dequantised(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the largest 4-bit or 8-bit matrix, dequantized for its product, as far as they exceed the layer's peak,
    at which nothing is dequantized. Section 1.6."""
    if setup.base_bits == 16 or not shape.four_bit_params:
        return 0.0
    largest = setup.base_bytes * max(matrix.d_in * matrix.d_out for matrix in shape.matrices)
    hidden = setup.tokens * setup.base_bytes * shape.active_width * (2 - readers_of(shape, setup)["down"])
    # Ours: the worst place is where the gradient of what flowed into down_proj is made, for which that is unpacked.
    last = shape.mlp_matrices[-1:] if setup.trainer.counted else ()
    last_bytes = sum(setup.base_bytes * matrix.d_in * matrix.d_out for matrix in last)
    return max(0.0, largest - hidden, last_bytes) + kept_unpacked(shape, setup)


UNPACKED_ROWS = 1537  # from this many tokens on, bitsandbytes dequantizes the matrix before the product


def kept_unpacked(shape: ModelShape, setup: Setup) -> float:
    """Bytes of one layer's 4-bit matrices, except the last, that stay dequantized from its second forward to its
    backward. Section 1.6."""
    counts = (
        setup.keeps_unpacked and setup.gradient_checkpointing and setup.base_bits == 4 and setup.tokens >= UNPACKED_ROWS
    )
    if not counts:
        return 0.0
    last = {matrix.name for matrix in shape.mlp_matrices[-1:]}
    a_layer = [matrix for matrix in shape.targets(setup.target_modules) if matrix.name not in {HEAD, *last}]
    return (
        setup.base_bytes
        * sum(matrix.d_in * matrix.d_out * matrix.count for matrix in a_layer)
        / shape.num_hidden_layers
    )


def has_room_to_keep_unpacked(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> bool:
    """Whether that saves work and fits, by the estimate with its margin. factor: the correction from earlier runs."""
    kept = setup.model_copy(update={"keeps_unpacked": True})
    return kept_unpacked(shape, kept) > 0 and factor * estimate(shape, kept).needed_gib <= free_gib


def has_room_to_keep_scales(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> bool:
    """Whether the scales of 4-bit weights are held in 8 bits and fit in fp32, by the estimate with its margin. factor:
    the correction from earlier runs."""
    kept = setup.model_copy(update={"double_quant": False})
    return (
        whole_weights(shape, kept) > whole_weights(shape, setup)
        and factor * estimate(shape, kept).needed_gib <= free_gib
    )


# ---- outside the allocator's count ---------------------------------------------------------------


def context(setup: Setup) -> float:
    """Bytes of the CUDA context and its libraries; on the CPU, of a process that has loaded nothing. Section 1.6."""
    return (memory_constants().cpu.context_gib if setup.device == "cpu" else setup.trainer.context_gib) * GIB


def slack(moving: float, of_logits: float, setup: Setup) -> float:
    """Bytes that the allocator reserves beyond what was requested: a share of temporary tensors, and a larger one of
    logits, whose blocks are seldom reused. Section 1.6."""
    if setup.device == "cpu":
        return memory_constants().cpu.slack * moving
    share = setup.trainer.slack
    chunk = setup.loss_name == "supervised"  # a chunk is of one size in every step
    return share["activations"] * moving + (0.0 if chunk else share["logits"] * of_logits)


GATHERED_THERE = 2  # layers, of those that are in parts: one that is gathered and one that computes
OFFLOADED_THERE = 2  # layers, of those that are offloaded: the one at work and the next
CHUNK_BYTES = {"cpu": 32 * MIB, "card": 128 * MIB}  # of one copy in fp32
LEAST = 16


def rows_at_once(vocab_size: int, on_card: bool) -> int:
    """Positions whose logits exist at the same time; at least LEAST, whatever the vocabulary."""
    return max(LEAST, CHUNK_BYTES["card" if on_card else "cpu"] // (4 * vocab_size))
