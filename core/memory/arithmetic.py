"""Estimates the memory of a training step before anything is loaded, by arithmetic. No torch.

Symbols: T tokens in a micro-batch, K of them trained (with a label), L layers, h hidden size, V vocabulary, n trainable
parameters. Each term is a function that names the section of docs/memory.md it comes from; its constants are in
presets/memory.yaml, each with its source. They describe the step built by core.engine.base_model, core.engine.adapter,
core.engine.variants.fused_lora, core.engine.loss and core.training.trainer; a change there needs one here.

The peak of a step: everything the layers keep for the backward, plus the backward of either one layer or the head.
"""

from __future__ import annotations

from bisect import bisect, bisect_left
from functools import lru_cache

from pydantic import BaseModel

from core.memory.constants import memory_constants
from core.memory.layers import at_peak
from core.memory.setup import Setup
from core.messages import Message
from core.models.shapes.shape import ModelShape
from core.values import GIB, MIB

Terms = dict[str, float]


class Estimate(BaseModel):
    """The memory of a training step in GiB.

    idle: between steps. allocated: at the peak of a step. on_card: with CUDA context and allocator; on a CPU, of the
    whole process. terms add up to on_card_gib. margin: the possible error.
    """

    trainable_params: int
    idle_gib: float
    allocated_gib: float
    on_card_gib: float
    terms: Terms
    margin: float
    low_confidence: tuple[Message, ...] = ()

    @classmethod
    def from_terms(cls, idle: Terms, step: Terms, outside: Terms, **facts: object) -> Estimate:
        """Return an estimate in GiB from terms in bytes: between steps (idle), in addition during a step, and outside
        the allocator's count. facts: its other fields."""
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
        """GiB of free memory with which the step counts as fitting: on_card_gib and the margin on top."""
        return self.on_card_gib * (1 + self.margin)


@lru_cache(maxsize=4096)  # the advice compares the same few setups repeatedly
def estimate(shape: ModelShape, setup: Setup) -> Estimate:
    """Return the memory of one training step in GiB, by its terms. Raises RecipeError for target modules that the model
    does not have."""
    if shape.is_unpacked and setup.base_bits < 16:
        setup = setup.model_copy(update={"method": "lora", "load_in_8bit": False})
    n, read_in_16_bit = adapter_params(shape, setup)
    idle = {
        "weights": weights(shape, setup),
        "adapter": adapter(n, setup) + adapter_copy(read_in_16_bit, setup),
        "optimizer": optimizer(n, setup),
        "workspace": workspace(setup),
    }
    stored, layer, unpacked = at_peak(shape, setup)
    head = head_at_work(shape, setup)
    step = {
        "gradients": gradients(n, stored, setup),
        # Either one layer is at work or the head is, never both: only the head's need beyond the layer counts. Nothing
        # is dequantized at the head; the constants of other trainers were fitted with that on top.
        "activations": stored + layer,
        "logits": max(0.0, head - layer - (unpacked if setup.trainer.counted else 0.0)),
        "dequantised": unpacked,
    }
    if setup.drawn:  # before a step's forward, which begins when their cache is freed
        step["drawing"] = max(0.0, drawing(shape, setup) - sum(step.values()))
    outside = {"context": context(setup), "slack": slack(stored + max(layer, head), logits(shape, setup), setup)}
    doubt, margin, known = (
        shape.low_confidence,
        memory_constants().margin,
        "known" if setup.device == "card" else "on_cpu",
    )
    return Estimate.from_terms(
        idle,
        step,
        outside,
        trainable_params=n,
        margin=margin["low_confidence" if doubt else known],
        low_confidence=doubt,
    )


# ---- between steps -------------------------------------------------------------------------------


def adapter_params(shape: ModelShape, setup: Setup) -> tuple[int, int]:
    """Return the adapter's parameters, n (section 1.2), and how many of them belong to linear layers: not the experts'
    factors, nor the magnitudes that DoRA adds per output. Of full fine-tuning: all parameters, and 0."""
    if setup.method == "full":
        return shape.params, 0
    outputs = (
        sum(matrix.d_out * matrix.count for matrix in shape.targets(setup.target_modules)) if setup.use_dora else 0
    )
    of_matrices = shape.lora_params(setup.r, setup.target_modules, False)
    trained = shape.lora_params(setup.r, setup.target_modules, True) if setup.trains_experts else of_matrices
    return trained + outputs, of_matrices


def weights(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of the base's weights on the GPU, section 1.1. Of offloaded layers only two average ones count,
    which are there at a time. Of a base sharded over ranks: this rank's shard, what is not sharded, and two whole
    layers."""
    offloaded = min(setup.offload_layers, shape.num_hidden_layers)
    all_bytes = all_weights(shape, setup)
    if setup.shards > 1:
        in_parts = sharded_weights(shape, setup)
        return all_bytes - in_parts + in_parts / setup.shards + GATHERED_THERE * in_parts / shape.num_hidden_layers
    return (
        all_bytes - (offloaded - OFFLOADED_THERE) * layer_weights(shape, setup)
        if offloaded > OFFLOADED_THERE
        else all_bytes
    )


def layer_weights(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of an average layer; without embeddings, head and the last norm."""
    beside = shape.embedding_params - shape.per_layer_params + shape.head_params + shape.hidden_size
    return max(0.0, all_weights(shape, setup) - beside * setup.base_bytes) / shape.num_hidden_layers


def sharded_weights(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes that FSDP2 shards over the ranks: the layers, except the scales of 4-bit matrices."""
    four_bit = setup.base_bits == 4 and not shape.is_unpacked
    scales = memory_constants().four_bit_bytes["double" if setup.double_quant else "single"] - 0.5
    return layer_weights(shape, setup) * shape.num_hidden_layers - (shape.four_bit_params * scales if four_bit else 0.0)


def all_weights(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of the base's weights, wherever its layers are.

    QLoRA holds the matrices of the layers in 4 bit, LLM.int8 in 8 with an fp32 scale for each output; embeddings, head,
    norms, routers and experts (3-D parameters, which bitsandbytes skips) stay as they are; towers for pictures or sound
    are not loaded. A repository that is already quantized is as large as its files, or 16-bit if it is dequantized.
    With a GPU per-layer embeddings stay in RAM.
    """
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
    """Return the bytes of an adapter of n parameters, section 1.3; 0 for full fine-tuning, which has none."""
    return 0.0 if setup.method == "full" else n * setup.adapter_bytes


def adapter_copy(of_matrices: int, setup: Setup) -> float:
    """Return the bytes of the 16-bit copy that the products of plain LoRA read, section 1.3; 0 in float32, with DoRA,
    dropout or full fine-tuning. of_matrices: the parameters of linear layers, as from `adapter_params`."""
    has_one = (
        setup.method != "full"
        and setup.base_bytes == 2
        and setup.trainer.counted
        and not (setup.use_dora or setup.lora_dropout)
    )
    return 2.0 * of_matrices if has_one else 0.0


def optimizer(n: int, setup: Setup) -> float:
    """Return the bytes of the optimizer's states for n trained parameters, section 1.3."""
    constants = memory_constants()
    width = setup.adapter_bytes if setup.optim in constants.optimizer_states_as_wide_as_parameters else 1
    return n * width * constants.optimizer_bytes[setup.optim]


def workspace(setup: Setup) -> float:
    """Return the bytes of cuBLAS' workspace."""
    return memory_constants().workspace_gib * GIB if setup.device == "card" else 0.0


# ---- in a step -----------------------------------------------------------------------------------


def gradients(n: int, stored: float, setup: Setup) -> float:
    """Return the bytes of the gradients of n trained parameters, in their dtype, section 1.3. With a single micro-batch
    they grow while saved activations (stored, in bytes) are freed: only what exceeds these."""
    all_bytes = n * setup.adapter_bytes
    return all_bytes if setup.accumulates else max(0.0, all_bytes - stored)


def most_kept_layers(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> int:
    """Return the most layers that can do without checkpointing so that setup, by the corrected estimate with its
    margin, fits into free_gib; 0 also if it does not fit at all. factor: measured over estimated, from earlier runs."""
    counts = range(shape.num_hidden_layers + 1)

    def needed(count: int) -> float:
        """Return the corrected GiB, with the margin, that setup needs with so many layers that are not checkpointed."""
        return factor * estimate(shape, setup.model_copy(update={"kept_layers": count})).needed_gib

    return max(0, bisect(counts, free_gib, key=needed) - 1)


def drawing(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes while answers are drawn together: keys and values of all their tokens and of CACHE_ROOM more, a
    copy of a layer's while it grows, the logits of a token with their probabilities in fp64, and on a CPU the weights
    in the order of its kernel (core/engine/variants/prepacked).

    Families that cache less (windows, linear or latent attention) need less.
    """
    tokens = setup.drawn * (setup.max_length + CACHE_ROOM)
    a_layer = 2 * shape.num_key_value_heads * shape.head_dim * setup.base_bytes * tokens
    a_logit = 3 * 4 + 2 * 8  # logits, scaled, log-probabilities; probabilities and their sums
    is_packed = setup.device == "cpu" and setup.base_bytes == 2 and setup.base_bits == 16
    packed = all_weights(shape, setup) if is_packed else 0.0
    packed = packed if packed <= MAX_PREPACKED_BYTES else 0.0
    return a_layer * (shape.num_hidden_layers + 1) + setup.drawn * shape.vocab_size * a_logit + packed


def logits(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes of the logits and their derivatives, section 1.5.

    In our loss: of one chunk; on a CPU the gradient overwrites them.
    """
    at_once, a_logit = setup.tokens, setup.trainer.loss[setup.loss_name].vocabulary
    if setup.loss_name == "supervised":
        at_once = min(setup.learned, rows_at_once(shape.vocab_size, setup.device == "card"))
        a_logit = setup.base_bytes if setup.device == "cpu" else a_logit
    return at_once * shape.vocab_size * a_logit


def head_at_work(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes at the loss: logits and their hidden states, or the backward of the last norm afterwards,
    whichever is more. Section 1.5."""
    loss, wide = setup.trainer.loss[setup.loss_name], shape.hidden_size * setup.base_bytes / 2
    at_logits = logits(shape, setup) + wide * (setup.tokens * loss.hidden + setup.learned * loss.learned)
    return max(at_logits, wide * setup.tokens * setup.trainer.final_norm)


def fewest_offloaded(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> int | None:
    """Return the least number of layers to offload for setup to fit into free_gib with its margin; None if even all are
    too few.

    factor: measured over predicted, from earlier runs.
    """

    def fits_with(count: int) -> bool:
        """Return whether the corrected estimate, with its margin, fits into free_gib with so many offloaded layers."""
        return factor * estimate(shape, setup.model_copy(update={"offload_layers": count})).needed_gib <= free_gib

    count = bisect_left(range(shape.num_hidden_layers + 1), True, key=fits_with)
    return count if count <= shape.num_hidden_layers else None


def ram_to_offload_gib(shape: ModelShape, setup: Setup) -> float:
    """Return the GiB of RAM that a run with offloaded layers needs: the whole base, per-layer embeddings included,
    before the GPU's part is copied there; a staging buffer for each layer that is on the GPU at a time; and the process
    itself."""
    in_every_layer = shape.per_layer_params * setup.base_bytes
    staging = min(setup.offload_layers, OFFLOADED_THERE) * layer_weights(shape, setup)
    return (all_weights(shape, setup) + in_every_layer + staging) / GIB + memory_constants().bus.process_gib


def copied_bytes(shape: ModelShape, setup: Setup) -> float:
    """Return the bytes copied to the GPU per micro-batch.

    Each offloaded layer once in the forward and once in the backward, except those still there when either begins.
    """
    offloaded = min(setup.offload_layers, shape.num_hidden_layers)
    return 2 * max(0, offloaded - OFFLOADED_THERE) * layer_weights(shape, setup)


def copying_seconds(size: float) -> float:
    """Return the time to copy `size` bytes to the GPU, at the assumed speed."""
    return size / (memory_constants().bus.gb_per_s * 1e9)


# ---- outside the allocator's count ---------------------------------------------------------------


def context(setup: Setup) -> float:
    """Return the bytes of the CUDA context and its libraries; on the CPU, of a process that has loaded nothing. Section
    1.6."""
    return (memory_constants().cpu.context_gib if setup.device == "cpu" else setup.trainer.context_gib) * GIB


def slack(moving: float, of_logits: float, setup: Setup) -> float:
    """Return the bytes that the allocator reserves beyond what was requested, section 1.6: a share of `moving` (bytes
    of temporary tensors), and except with a chunked loss or on a CPU a larger one of of_logits, whose blocks are seldom
    reused."""
    if setup.device == "cpu":
        return memory_constants().cpu.slack * moving
    share = setup.trainer.slack
    chunk = setup.loss_name == "supervised"  # a chunk is of one size in every step
    return share["activations"] * moving + (0.0 if chunk else share["logits"] * of_logits)


GATHERED_THERE = 2  # sharded layers on a GPU: one that is gathered and one that computes
OFFLOADED_THERE = 2  # offloaded layers on the GPU: the one at work and the next
CACHE_ROOM = 32  # tokens that the cache of a decoded row has space for beyond those it holds
MAX_PREPACKED_BYTES = 2 << 30  # of a model on a CPU whose linear weights are held twice while tokens are decoded
CHUNK_BYTES = {"cpu": 32 * MIB, "card": 128 * MIB}  # of one copy in fp32
LEAST = 16


def rows_at_once(vocab_size: int, on_card: bool) -> int:
    """Return how many positions have logits at the same time in the chunked loss; at least LEAST, however large the
    vocabulary. on_card: on a GPU, where more memory is allowed for them."""
    return max(LEAST, CHUNK_BYTES["card" if on_card else "cpu"] // (4 * vocab_size))
