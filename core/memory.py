"""How much memory a training step needs, counted before anything is loaded: a page of arithmetic. No torch.

Symbols as in ../shared/memory/README.md, section 1, whose numbers stand in presets/memory.yaml: T tokens in a
micro-batch, K of them learned, L layers, h hidden size, V vocabulary, n trainable parameters. It describes the stack
that core.base_model, core.adapter, core.loss and core.trainer build; a change there is a change here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.logit_chunk import rows_at_once
from core.presets import memory_constants
from core.shapes import ModelShape
from core.text import Text

GIB = 2**30
Terms = dict[str, float]


class Setup(BaseModel):
    """One way to train. max_length and supervised_tokens: tokens of the longest row, and the most that one row learns
    (None: all of it). base_bytes: width of a 16-bit or fp32 base, and of what flows through it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["lora", "qlora", "full"] = "lora"
    r: int = Field(8, ge=1)
    target_modules: str = "all-linear"
    micro_batch: int = Field(1, ge=1)
    max_length: int = Field(512, ge=1)
    supervised_tokens: int | None = Field(None, ge=0)
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "paged_adamw_8bit"
    gradient_checkpointing: bool = True
    loss: Literal["supervised", "chunked", "full"] = "supervised"
    base_bytes: Literal[2, 4] = 2
    device: Literal["card", "cpu"] = "card"

    @property
    def tokens(self) -> int:
        """T: the most that a micro-batch holds, packed or padded to the longest."""
        return self.micro_batch * self.max_length

    @property
    def learned(self) -> int:
        """K, of T."""
        a_row = self.max_length if self.supervised_tokens is None else min(self.supervised_tokens, self.max_length)
        return self.micro_batch * a_row


class Estimate(BaseModel):
    """GiB. idle: between steps. allocated: at the peak of a step. on_card: with context and allocator; for device cpu
    the memory of the whole process. terms add up to on_card_gib. margin: what the arithmetic may be wrong by."""

    model_config = ConfigDict(frozen=True)

    trainable_params: int
    idle_gib: float
    allocated_gib: float
    on_card_gib: float
    terms: Terms
    margin: float
    low_confidence: tuple[Text, ...] = ()

    @property
    def needed_gib(self) -> float:
        """What must be free for a plan to count as fitting."""
        return self.on_card_gib * (1 + self.margin)


def estimate(shape: ModelShape, setup: Setup) -> Estimate:
    """The memory of one training step. Raises RecipeError for target modules that the model does not have."""
    margin = memory_constants().margin
    n = trainable_params(shape, setup)
    idle = {"weights": weights(shape, setup), "adapter": adapter(n, setup), "optimizer": optimizer(n, setup)}
    stored, hump, logits = layers_stored(shape, setup), layer_hump(shape, setup), logits_peak(shape, setup)
    step = {
        "gradients": gradients(n, setup),
        # Either one layer is computed again or the logits are there, never both: what the logits need beyond that layer counts.
        "activations": stored + hump,
        "logits": max(0.0, logits - hump),
        "dequantised": dequantised(shape, setup),
    }
    outside = {"context": context(setup), "slack": slack(setup, step["activations"] + step["logits"])}
    terms = {name: size / GIB for name, size in (idle | step | outside).items()}
    return Estimate(
        trainable_params=n,
        idle_gib=sum(terms[name] for name in idle),
        allocated_gib=sum(terms[name] for name in idle | step),
        on_card_gib=sum(terms.values()),
        terms=terms,
        margin=margin["low_confidence" if shape.low_confidence else "known"],
        low_confidence=shape.low_confidence,
    )


def trainable_params(shape: ModelShape, setup: Setup) -> int:
    """n, section 1.2."""
    return shape.params if setup.method == "full" else shape.lora_params(setup.r, setup.target_modules)


def weights(shape: ModelShape, setup: Setup) -> float:
    """W in bytes, section 1.1. QLoRA holds the matrices of the layers in 4 bit; embeddings, head, norms and experts
    (3-D parameters, which bitsandbytes passes over) stay as they are."""
    if setup.method != "qlora":
        return shape.params * setup.base_bytes
    kept = shape.params - shape.linear_params
    return kept * setup.base_bytes + shape.linear_params * memory_constants().four_bit_bytes


def adapter(n: int, setup: Setup) -> float:
    """A in bytes, section 1.3; full fine-tuning has none."""
    return 0.0 if setup.method == "full" else n * memory_constants().adapter_bytes


def gradients(n: int, setup: Setup) -> float:
    """G in bytes, section 1.3; a gradient has the type of its parameter."""
    return n * (setup.base_bytes if setup.method == "full" else memory_constants().gradient_bytes)


def optimizer(n: int, setup: Setup) -> float:
    """O in bytes, section 1.3."""
    return n * memory_constants().optimizer_bytes[setup.optim]


def layer_kept(shape: ModelShape, setup: Setup) -> float:
    """Bytes that one layer keeps for backward, a token; section 1.4."""
    share = memory_constants().activations
    kept = dict(share[shape.mlp])
    if setup.method == "full" or _reaches_mlp(shape, setup):
        kept["hidden"] += share["mlp_targeted"]["hidden"]
        kept["mlp"] += share["mlp_targeted"]["mlp"]
    return setup.base_bytes * _values(shape, kept)


def layers_stored(shape: ModelShape, setup: Setup) -> float:
    """Bytes that all layers keep at once: everything, or with checkpointing each layer's input. Section 1.4."""
    a_token = setup.base_bytes * shape.hidden_size if setup.gradient_checkpointing else layer_kept(shape, setup)
    return setup.tokens * shape.num_hidden_layers * a_token


def layer_hump(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the one layer that checkpointing computes again, with its gradients. Section 1.4."""
    if not setup.gradient_checkpointing:
        return 0.0
    recomputed = memory_constants().activations["recomputed"]
    return setup.tokens * (layer_kept(shape, setup) + setup.base_bytes * _values(shape, recomputed))


def logits_peak(shape: ModelShape, setup: Setup) -> float:
    """Bytes of head and cross-entropy. Ours (supervised): the logits of one chunk, and two hidden states of each learned
    position; those of other trainers by section 1.5."""
    constants = memory_constants()
    if setup.loss == "full":
        return setup.tokens * shape.vocab_size * constants.logit_bytes["full"]
    if setup.loss == "chunked":
        return setup.tokens * shape.hidden_size * constants.chunked_bytes
    at_once = min(setup.learned, rows_at_once(shape.vocab_size, setup.device == "card"))
    picked = setup.learned * shape.hidden_size * 2 * setup.base_bytes
    return at_once * shape.vocab_size * constants.logit_bytes["supervised"] + picked


def dequantised(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the largest 4-bit matrix, unpacked for its product. Section 1.6."""
    if setup.method != "qlora":
        return 0.0
    return setup.base_bytes * max(matrix.d_in * matrix.d_out for matrix in shape.matrices)


def context(setup: Setup) -> float:
    """Bytes of the CUDA context and its libraries; on the CPU, of a process that has loaded nothing. Section 1.6."""
    return memory_constants().context_gib[setup.device] * GIB


def slack(setup: Setup, moving: float) -> float:
    """Bytes that the allocator holds beyond what was asked of it, a share of what comes and goes. Section 1.6."""
    share = memory_constants().slack
    if setup.device == "cpu":
        return share["cpu"] * moving
    return share["full" if setup.loss == "full" else "chunked"] * moving


def _reaches_mlp(shape: ModelShape, setup: Setup) -> bool:
    return bool(set(shape.mlp_matrices) & set(shape.targets(setup.target_modules)))


def _values(shape: ModelShape, share: dict[str, float]) -> float:
    """Numbers a token, where share says how many times each width."""
    widths = {"hidden": shape.hidden_size, "query": shape.q_width, "key_value": shape.kv_width, "mlp": shape.active_width}
    return sum(times * widths[name] for name, times in share.items())
