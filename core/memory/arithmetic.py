"""How much memory a training step needs, counted before anything is loaded: a page of arithmetic. No torch.

Symbols: T tokens in a micro-batch, K of them learned, L layers, h hidden size, V vocabulary, n trainable parameters. Each term
is a function that names the section of docs/memory.md it comes from; its numbers stand in presets/memory.yaml,
with what each was counted or fitted on. They describe the step that core.engine.base_model, core.engine.adapter, core.engine.fused_lora,
core.engine.loss and core.training.trainer build; a change there is a change here.

At the peak of a step, all that the layers keep is there, and beside it either one layer's own backward or the head's.
"""

from __future__ import annotations

from bisect import bisect
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.memory.constants import Stack, memory_constants
from core.messages import Message
from core.models.shapes.shape import HEAD, ModelShape
from core.recipe import Adapter, Data, Recipe
from core.values import GIB, MIB, Frozen

Terms = dict[str, float]
Widths = dict[str, float]  # how many values of each width of a layer: hidden, query, key_value, mlp
LossName = Literal["supervised", "chunked", "full", "fused"]


class Setup(Frozen):
    """One way to train. max_length and supervised_tokens: tokens of the longest row, and the most that one row learns
    (None: all of it). base_bytes: width of a 16-bit or fp32 base, and of what flows through it. stack: whose trainer
    (benchmarks/memory_stacks.py knows others); loss None: the one that it has. load_in_8bit: LLM.int8 instead of a 16-bit base; with qlora it counts for nothing. fp32_stream: hidden states in fp32 on a 16-bit base, as `prepare_model_for_kbit_training`
    makes them. kept_layers: with checkpointing, the last ones that are not checkpointed. keeps_unpacked: 4-bit weights stay unpacked from a layer's second forward to its backward. accumulates: gradients outlive a micro-batch. offloads: what layers leave for the backward lies in RAM. offload_layers: that lie in RAM themselves (core/engine/variants/streaming).
    shards: ranks that hold the base together (core/engine/variants/fsdp)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["lora", "qlora", "full"] = "lora"
    r: int = Field(Adapter.model_fields["r"].default, ge=1)
    target_modules: str = Adapter.model_fields["target_modules"].default
    micro_batch: int = Field(1, ge=1)
    max_length: int = Field(Data.model_fields["max_length"].default, ge=1)
    supervised_tokens: int | None = Field(None, ge=0)
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_8bit"
    gradient_checkpointing: bool = True
    loss: LossName | None = None
    base_bytes: Literal[2, 4] = 2
    device: Literal["card", "cpu"] = "card"
    stack: Literal["ours"] = "ours"
    double_quant: bool = True
    adapter_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    use_dora: bool = False
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    load_in_8bit: bool = False
    target_parameters: Literal["none", "experts"] = "none"
    fp32_stream: bool = False
    accumulates: bool = True
    offloads: bool = False
    kept_layers: int = Field(0, ge=0)
    keeps_unpacked: bool = False
    offload_layers: int = Field(0, ge=0)
    shards: int = Field(1, ge=1)

    @classmethod
    def of(cls, recipe: Recipe, device: Literal["card", "cpu"], **found: Any) -> Setup:
        """How recipe trains on device: the only way from settings to the arithmetic. found: fields that are known better than a
        recipe knows them, such as a batch of its data."""
        adapter, train = recipe.adapter, recipe.train
        asked = {
            "method": adapter.method,
            "r": adapter.r,
            "target_modules": adapter.target_modules,
            "micro_batch": train.per_device_train_batch_size * (2 if train.compares else 1),  # the two of a pair
            "max_length": recipe.data.max_length,
            "optim": train.optim or "adamw_torch",
            "gradient_checkpointing": bool(train.gradient_checkpointing),
            "use_dora": adapter.use_dora,
            "lora_dropout": adapter.lora_dropout,
            "load_in_8bit": adapter.load_in_8bit,
            "target_parameters": adapter.target_parameters,
            "offload_layers": max(0, train.offload_layers) if device == "card" else 0,
            "shards": train.ranks if train.fsdp else 1,
        }
        return cls(device=device, **(asked | found))

    @property
    def tokens(self) -> int:
        """T: the most that a micro-batch holds, packed or padded to the longest."""
        return self.micro_batch * self.max_length

    @property
    def learned(self) -> int:
        """K, of T."""
        a_row = self.max_length if self.supervised_tokens is None else min(self.supervised_tokens, self.max_length)
        return self.micro_batch * a_row

    @property
    def trains_experts(self) -> bool:
        return self.target_parameters == "experts" and self.method != "full"

    @property
    def base_bits(self) -> int:
        """Of the matrices of the layers; 16 stands for what base_bytes says."""
        return {"qlora": 4, "lora": 8 if self.load_in_8bit else 16, "full": 16}[self.method]

    @property
    def trainer(self) -> Stack:
        return memory_constants().trainer

    @property
    def loss_name(self) -> str:
        """The loss, or the first that the stack's data names."""
        return self.loss or next(iter(self.trainer.loss))

    @property
    def adapter_bytes(self) -> int:
        return self.base_bytes if self.method == "full" else 4 if self.adapter_dtype == "fp32" else 2

    @property
    def stream_bytes(self) -> int:
        return 4 if self.fp32_stream else self.base_bytes


class Estimate(BaseModel):
    """GiB. idle: between steps. allocated: at the peak of a step. on_card: with context and allocator; for device cpu
    the memory of the whole process. terms add up to on_card_gib. margin: what the arithmetic may be wrong by."""

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


@lru_cache(maxsize=4096)  # advice weighs the same few setups again and again
def estimate(shape: ModelShape, setup: Setup) -> Estimate:
    """The memory of one training step. Raises RecipeError for target modules that the model does not have."""
    if shape.is_unpacked and setup.base_bits < 16:
        setup = setup.model_copy(update={"method": "lora", "load_in_8bit": False})
    n = trainable_params(shape, setup)
    idle = {
        "weights": weights(shape, setup),
        "adapter": adapter(n, setup),
        "optimizer": optimizer(n, setup),
        "workspace": workspace(setup),
    }
    stored, head = layers_stored(shape, setup) + per_layer_inputs("kept", shape, setup), head_at_work(shape, setup)
    layer = at_work(shape, setup)
    unpacked = dequantised(shape, setup)
    step = {
        "gradients": gradients(n, stored, setup),
        # Either one layer is at work or the head is, never both: what the head needs beyond the layer counts. Nothing is unpacked
        # at the head; the numbers of others were fitted with that on top.
        "activations": stored + layer,
        "logits": max(0.0, head - layer - (unpacked if setup.trainer.counted else 0.0)),
        "dequantised": unpacked,
    }
    outside = {"context": context(setup), "slack": slack(stored + max(layer, head), logits(shape, setup), setup)}
    doubt, margin = shape.low_confidence, memory_constants().margin
    return Estimate.of(
        idle, step, outside, trainable_params=n, margin=margin["low_confidence" if doubt else "known"], low_confidence=doubt
    )


# ---- between steps ----------------------------------------------------------------------------------------------------


def trainable_params(shape: ModelShape, setup: Setup) -> int:
    """n, section 1.2; DoRA adds one magnitude for each output of a trained layer."""
    if setup.method == "full":
        return shape.params
    outputs = sum(matrix.d_out * matrix.count for matrix in shape.targets(setup.target_modules)) if setup.use_dora else 0
    return shape.lora_params(setup.r, setup.target_modules, setup.trains_experts) + outputs


def weights(shape: ModelShape, setup: Setup) -> float:
    """W in bytes, section 1.1, on the card: of layers that are offloaded two, on average; of a base in parts one of them, and two layers whole."""
    offloaded = min(setup.offload_layers, shape.num_hidden_layers)
    whole = whole_weights(shape, setup)
    if setup.shards > 1:
        in_parts = sharded_weights(shape, setup)
        return whole - in_parts + in_parts / setup.shards + GATHERED_THERE * in_parts / shape.num_hidden_layers
    return whole - (offloaded - OFFLOADED_THERE) * layer_weights(shape, setup) if offloaded > OFFLOADED_THERE else whole


def layer_weights(shape: ModelShape, setup: Setup) -> float:
    """Bytes of a layer, on average: all but embeddings, head and the last norm."""
    beside = shape.embedding_params - shape.per_layer_params + shape.head_params + shape.hidden_size
    return max(0.0, whole_weights(shape, setup) - beside * setup.base_bytes) / shape.num_hidden_layers


def sharded_weights(shape: ModelShape, setup: Setup) -> float:
    """Bytes of what the ranks of a run hold in parts: the layers, but for the scales of 4-bit matrices."""
    four_bit = setup.base_bits == 4 and not shape.is_unpacked
    scales = memory_constants().four_bit_bytes["double" if setup.double_quant else "single"] - 0.5
    return layer_weights(shape, setup) * shape.num_hidden_layers - (shape.four_bit_params * scales if four_bit else 0.0)


def whole_weights(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the base, wherever its layers are. QLoRA holds the matrices of the layers in 4 bit, LLM.int8 in 8 with an fp32 scale for each output;
    embeddings, head, norms, routers, experts
    (3-D parameters, which bitsandbytes passes over) stay as they are; towers for pictures or sound are not there. A repository that is
    quantised already is as large as its files, or in 16 bit where it is unpacked. On a card embeddings in every layer stay in RAM."""
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


def optimizer(n: int, setup: Setup) -> float:
    """O in bytes, section 1.3."""
    constants = memory_constants()
    width = setup.adapter_bytes if setup.optim in constants.optimizer_states_as_wide_as_parameters else 1
    return n * width * constants.optimizer_bytes[setup.optim]


def workspace(setup: Setup) -> float:
    """What cuBLAS keeps for its products, in bytes."""
    return memory_constants().workspace_gib * GIB if setup.device == "card" else 0.0


# ---- in a step --------------------------------------------------------------------------------------------------------


def gradients(n: int, stored: float, setup: Setup) -> float:
    """G in bytes, section 1.3; a gradient has the type of its parameter. Those of a single micro-batch come as what the
    layers kept goes."""
    whole = n * setup.adapter_bytes
    return whole if setup.accumulates else max(0.0, whole - stored)


def kept(shape: ModelShape, setup: Setup) -> Widths:
    """Values that one layer keeps for its backward, a token, by width; section 1.4."""
    found, constants = Widths(setup.trainer.kept[shape.mlp]), memory_constants()
    whole = shape.model_type in constants.kept_whole.families and shape.num_key_value_heads == shape.num_attention_heads
    for more in (
        constants.kept_besides.get(shape.model_type),
        constants.kept_whole.widths if whole and setup.trainer.by_transformers else None,
        constants.kept_with_per_layer_inputs if shape.per_layer_size and setup.trainer.counted else None,
        setup.trainer.kept_4bit if setup.method == "qlora" else None,
    ):
        for width, times in (more or {}).items():
            found[width] = found.get(width, 0) + times
    readers = _readers(shape, setup)
    found["hidden"] += readers["attention"] + readers["up"]
    found["query"] += readers["output"]
    found["mlp"] += readers["down"]
    if shape.num_experts and setup.trainer.counted:
        # Of each expert that a token passes what comes out, weighed; what flows into its last product is kept by nothing trained.
        found["routed"] = found.get("routed", 0) + 1
        found["expert"] = -readers["down"]
        found["hidden"] -= 0 if shape.mlp_matrices else readers["up"]
    elif _makes_again(shape, setup):
        found["hidden"] -= readers["attention"] + readers["up"]
        found["mlp"] -= readers["down"] + 1
    return found


def _makes_again(shape: ModelShape, setup: Setup) -> bool:
    """Whether what a norm and a gate give, and what the gate makes on the way, is made again in the backward: on a processor, where it flows
    into plain LoRA."""
    plain = setup.device == "cpu" and setup.trainer.counted and setup.method != "full" and not _special(setup)
    others = memory_constants().cpu.keeps_as_a_card
    return plain and shape.mlp == "gated" and not shape.num_experts and shape.model_type not in others


def layer_kept(shape: ModelShape, setup: Setup) -> float:
    """Bytes that one layer keeps for its backward, a token, without what some layers keep besides (`windows`, `scans`); section 1.4."""
    return setup.base_bytes * (_values(shape, kept(shape, setup)) + _by_adapters(shape, setup)) + _scores("kept", shape, setup)


def windows(shape: ModelShape, setup: Setup) -> float:
    """Bytes a token of the mask that a layer keeps which sees a window only, where a row is longer: a number for each pair of tokens."""
    cuts = shape.window_layers and setup.max_length > shape.window and setup.trainer.counted
    return setup.base_bytes * setup.max_length if cuts and not _bends_scores(shape, setup) else 0.0


def scans(shape: ModelShape, setup: Setup) -> float:
    """Bytes a token that Mamba 2's scan keeps in a layer, mostly in fp32. Section 1.4."""
    if not (shape.scan_layers and setup.trainer.counted):
        return 0.0
    states = shape.scan_state * shape.scan_head_dim / max(1, shape.scan_chunk)
    sizes = {"chunk": shape.scan_chunk, "state": shape.scan_state, "head": shape.scan_head_dim, "states": states}
    return shape.scan_heads * sum(times * sizes[name] for name, times in memory_constants().scan.items())


def layers_stored(shape: ModelShape, setup: Setup) -> float:
    """Bytes that all layers keep at once: everything, or with checkpointing each layer's input. Section 1.4."""
    if setup.offloads:
        return 0.0
    if share := _kept_share(shape, setup):
        return share * layers_stored(shape, _kept(setup)) + (1 - share) * layers_stored(shape, _not_kept(setup))
    if setup.gradient_checkpointing:
        return setup.tokens * shape.num_hidden_layers * setup.stream_bytes * shape.hidden_size * shape.streams
    wide, others = shape.wide, shape.num_hidden_layers - shape.wide_layers
    kept_by_layers = setup.tokens * others * layer_kept(shape, setup)
    kept_by_layers += setup.tokens * shape.wide_layers * layer_kept(wide, setup) if wide else 0.0
    kept_by_layers += setup.tokens * (shape.window_layers * windows(shape, setup) + shape.scan_layers * scans(shape, setup))
    return kept_by_layers + shape.expert_layers * experts_kept(shape, setup)


def at_work(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the layer that needs most in its own backward, beside what all layers keep. Where some are not checkpointed: one of
    those, or the first that is, when what those kept has gone."""
    if not (share := _kept_share(shape, setup)):
        return layer_at_work(shape, setup) + experts_at_work(shape, setup) + per_layer_inputs("moving", shape, setup)
    gone = share * (layers_stored(shape, _kept(setup)) - layers_stored(shape, _not_kept(setup)))
    return max(at_work(shape, _kept(setup)), at_work(shape, _not_kept(setup)) - gone if share < 1 else 0.0)


def _kept_share(shape: ModelShape, setup: Setup) -> float:
    """Of the layers: those that are not checkpointed where the rest is."""
    counts = setup.gradient_checkpointing and not setup.offloads
    return min(1.0, setup.kept_layers / shape.num_hidden_layers) if counts else 0.0


def _kept(setup: Setup) -> Setup:
    return setup.model_copy(update={"gradient_checkpointing": False, "kept_layers": 0})


def _not_kept(setup: Setup) -> Setup:
    return setup.model_copy(update={"kept_layers": 0})


def most_kept_layers(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> int:
    """How many layers the memory has room to leave without checkpointing, by the estimate with its margin. factor: of earlier runs."""
    counts = range(shape.num_hidden_layers + 1)

    def needed(count: int) -> float:
        return factor * estimate(shape, setup.model_copy(update={"kept_layers": count})).needed_gib

    return max(0, bisect(counts, free_gib, key=needed) - 1)


def per_layer_inputs(place: str, shape: ModelShape, setup: Setup) -> float:
    """Bytes of the rows that an embedding in every layer gives a text, for all layers. Section 1.4."""
    a_token = shape.num_hidden_layers * shape.per_layer_size * setup.base_bytes
    return memory_constants().per_layer_inputs[place] * setup.tokens * a_token if setup.trainer.counted else 0.0


def experts_kept(shape: ModelShape, setup: Setup) -> float:
    """Bytes that one layer keeps where its experts are trained: peft makes W + BA of all of them, whatever a token needs, out of A and
    B in the base's type; and beside them what flows into each product, which its gradient needs. Section 1.4."""
    if not setup.trains_experts:
        return 0.0
    factors = setup.r * shape.expert_width / max(1, shape.expert_layers)
    inputs = setup.tokens * shape.experts_per_token * (shape.hidden_size + shape.expert_size)
    return setup.base_bytes * (3 * _expert_matrix(shape) + factors + inputs)


def experts_at_work(shape: ModelShape, setup: Setup) -> float:
    """Bytes of one layer's experts in its backward: with checkpointing made again, and the gradient of down in full. Section 1.4."""
    if not setup.trains_experts:
        return 0.0
    again = experts_kept(shape, setup) if setup.gradient_checkpointing or setup.offloads else 0.0
    return again + setup.base_bytes * _expert_matrix(shape)


def _expert_matrix(shape: ModelShape) -> int:
    """Numbers of gate, up or down of all experts of a layer."""
    return shape.num_experts * shape.hidden_size * shape.expert_size


def layer_at_work(shape: ModelShape, setup: Setup) -> float:
    """Bytes of one layer's own backward, and with checkpointing what it computed again. The worst place is the product of
    gate and up, when what down_proj kept has gone, or a norm after the MLP, when nothing has. Section 1.4."""
    # Where embeddings lie in every layer, wider heads share keys and values of earlier layers: counted, a layer with its own is the largest
    # (dry run, 4,096 tokens, QLoRA: E2B 2.3 % off and E4B 0.7, with the wider one 5.8 and 3.0).
    if (wide := shape.wide) and not shape.per_layer_size:
        return max(layer_at_work(wide, setup), layer_at_work(shape.model_copy(update={"wide_layers": 0}), setup))
    constants = memory_constants()
    gone = 0 if _makes_again(shape, setup) else _readers(shape, setup)["down"]
    product = _values(shape, setup.trainer.moving) - shape.active_width * gone
    norm = _values(shape, constants.norm_after_mlp.moving) if shape.model_type in constants.norm_after_mlp.families else 0.0
    besides = windows(shape, setup) + scans(shape, setup)
    again = layer_kept(shape, setup) + besides if setup.gradient_checkpointing else 0.0
    # An embedding in every layer comes in behind the MLP: what it kept has gone when backward is there.
    behind = (
        _values(shape, constants.kept_with_per_layer_inputs) if again and shape.per_layer_size and setup.trainer.counted else 0.0
    )
    at_mlp, scores = again + setup.base_bytes * (max(product, norm) - behind), _scores("moving", shape, setup)
    if not _bends_scores(shape, setup):
        return max(setup.tokens * (at_mlp + scores), setup.tokens * again + _magnitudes(shape, setup))
    done = setup.base_bytes * kept(shape, setup)["mlp"] * shape.active_width  # the MLP's, at the softmax's backward
    return setup.tokens * max(at_mlp, again - done + scores)


def logits(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the logits and what is made of them, section 1.5. Ours: of one chunk, on a processor written over by their gradient."""
    at_once, a_logit = setup.tokens, setup.trainer.loss[setup.loss_name].vocabulary
    if setup.loss_name == "supervised":
        at_once = min(setup.learned, rows_at_once(shape.vocab_size, setup.device == "card"))
        a_logit = setup.base_bytes if setup.device == "cpu" else a_logit
    return at_once * shape.vocab_size * a_logit


def head_at_work(shape: ModelShape, setup: Setup) -> float:
    """Bytes at the loss: the logits with the hidden states they come from, or after them the last norm's own backward.
    Section 1.5."""
    loss, wide = setup.trainer.loss[setup.loss_name], shape.hidden_size * setup.base_bytes / 2
    at_logits = logits(shape, setup) + wide * (setup.tokens * loss.hidden + setup.learned * loss.learned)
    return max(at_logits, wide * setup.tokens * setup.trainer.final_norm)


def dequantised(shape: ModelShape, setup: Setup) -> float:
    """Bytes of the largest 4-bit or 8-bit matrix, unpacked for its product: so far as the place where the layer needs most, at which
    nothing is unpacked, does not hide it. Section 1.6."""
    if setup.base_bits == 16 or not shape.four_bit_params:
        return 0.0
    largest = setup.base_bytes * max(matrix.d_in * matrix.d_out for matrix in shape.matrices)
    hidden = setup.tokens * setup.base_bytes * shape.active_width * (2 - _readers(shape, setup)["down"])
    # Ours: the worst place is where the gradient of what flowed into down_proj is made, for which that is unpacked.
    last = shape.mlp_matrices[-1:] if setup.trainer.counted else ()
    last_bytes = sum(setup.base_bytes * matrix.d_in * matrix.d_out for matrix in last)
    return max(0.0, largest - hidden, last_bytes) + kept_unpacked(shape, setup)


UNPACKED_ROWS = 1537  # from so many tokens on bitsandbytes' product unpacks its matrix first


def kept_unpacked(shape: ModelShape, setup: Setup) -> float:
    """Bytes of one layer's 4-bit matrices but the last, unpacked for its second forward and still there at its backward. Section 1.6."""
    counts = setup.keeps_unpacked and setup.gradient_checkpointing and setup.base_bits == 4 and setup.tokens >= UNPACKED_ROWS
    if not counts:
        return 0.0
    last = {matrix.name for matrix in shape.mlp_matrices[-1:]}
    a_layer = [matrix for matrix in shape.targets(setup.target_modules) if matrix.name not in {HEAD, *last}]
    return setup.base_bytes * sum(matrix.d_in * matrix.d_out * matrix.count for matrix in a_layer) / shape.num_hidden_layers


def has_room_to_keep_unpacked(shape: ModelShape, setup: Setup, free_gib: float, factor: float = 1.0) -> bool:
    """Whether that spares anything, and the memory has room for it by the estimate with its margin. factor: of earlier runs."""
    kept = setup.model_copy(update={"keeps_unpacked": True})
    return kept_unpacked(shape, kept) > 0 and factor * estimate(shape, kept).needed_gib <= free_gib


# ---- outside the allocator's count ------------------------------------------------------------------------------------


def context(setup: Setup) -> float:
    """Bytes of the CUDA context and its libraries; on the CPU, of a process that has loaded nothing. Section 1.6."""
    return (memory_constants().cpu.context_gib if setup.device == "cpu" else setup.trainer.context_gib) * GIB


def slack(moving: float, of_logits: float, setup: Setup) -> float:
    """Bytes that the allocator holds beyond what was asked of it: a share of what comes and goes, and a larger one of logits,
    whose blocks fit nothing else. Section 1.6."""
    if setup.device == "cpu":
        return memory_constants().cpu.slack * moving
    share = setup.trainer.slack
    chunk = setup.loss_name == "supervised"  # a chunk is of one size in every step
    return share["activations"] * moving + (0.0 if chunk else share["logits"] * of_logits)


def _readers(shape: ModelShape, setup: Setup) -> dict[str, int]:
    """How often the inputs of a layer's parts are kept because something trained reads them."""
    if setup.method == "full":
        return {"attention": 1, "output": 1, "up": 1, "down": 1}
    if _special(setup) and setup.base_bits != 8:  # bitsandbytes' 8-bit product keeps its input
        return {"attention": 0, "output": 0, "up": 0, "down": 0}
    targets = {matrix.name for matrix in shape.targets(setup.target_modules)}
    attention, mlp = [m.name for m in shape.attention_matrices], [m.name for m in shape.mlp_matrices]
    if not mlp and shape.num_experts and "all-linear" in setup.target_modules:
        mlp, targets = ["gate_up", "down"], targets | {"gate_up", "down"}  # experts: all-linear reaches them

    def count(names: list[str]) -> int:
        found = len(targets & set(names))
        return min(1, found) if setup.trainer.inputs == "once" else found

    return {"attention": count(attention[:-1]), "output": count(attention[-1:]), "up": count(mlp[:-1]), "down": count(mlp[-1:])}


def _values(shape: ModelShape, widths: Widths) -> float:
    """Numbers a token, where widths says how many times each."""
    sizes = {"hidden": shape.hidden_size, "query": shape.q_width, "key_value": shape.kv_width, "mlp": shape.active_width}
    sizes |= {"routed": shape.experts_run * shape.hidden_size, "expert": shape.experts_run * shape.expert_size}
    sizes |= {"per_layer": shape.per_layer_size}
    return sum(times * sizes[name] for name, times in widths.items())


def _special(setup: Setup) -> str | None:
    """What makes the adapters other than plain LoRA."""
    return None if setup.method == "full" else "dora" if setup.use_dora else "dropout" if setup.lora_dropout else None


def _by_adapters(shape: ModelShape, setup: Setup) -> float:
    """Values a token that the adapters of one layer keep where they are not plain LoRA; those of plain LoRA are in `kept`."""
    special = _special(setup)
    if special is None:
        return 0.0
    copies = memory_constants().besides_lora[setup.trainer.inputs][special]
    targets = [matrix for matrix in shape.targets(setup.target_modules) if matrix.name != HEAD]
    a_layer = sum(matrix.count * (copies["input"] * matrix.d_in + copies["output"] * matrix.d_out) for matrix in targets)
    return a_layer / shape.num_hidden_layers


def _magnitudes(shape: ModelShape, setup: Setup) -> float:
    """Bytes while DoRA takes the norm of a whole matrix, in fp32: an identity as wide as its input, A and B multiplied out and
    turned, the weight, and their sum. Where the forward of a layer comes to its largest matrix. Counted by the dry run."""
    if not (setup.use_dora and setup.trainer.counted and setup.method != "full"):
        return 0.0
    targets = [matrix for matrix in shape.targets(setup.target_modules) if matrix.name != HEAD]
    return max((4 * m.d_in * (m.d_in + 4 * m.d_out) for m in targets), default=0)


def _scores(place: str, shape: ModelShape, setup: Setup) -> float:
    """Bytes a token of the scores that eager attention makes of every pair of tokens. Section 1.4."""
    constants = memory_constants()
    if _bends_scores(shape, setup):
        times = constants.eager_families[shape.model_type][place]
    elif setup.attention == "eager":
        times = constants.eager[place]
    else:
        return 0.0
    return setup.base_bytes * times * shape.num_attention_heads * setup.max_length


def _bends_scores(shape: ModelShape, setup: Setup) -> bool:
    """Whether attention is eager because nothing else computes this family's."""
    return shape.model_type in memory_constants().eager_families and setup.trainer.by_transformers


GATHERED_THERE = 2  # layers, of those that are in parts: one that is gathered and one that computes
OFFLOADED_THERE = 2  # layers, of those that are offloaded: the one at work and the next
CHUNK_BYTES = {"cpu": 32 * MIB, "card": 128 * MIB}  # of one copy in fp32
LEAST = 16


def rows_at_once(vocab_size: int, on_card: bool) -> int:
    """Positions whose logits exist at the same time; at least LEAST, whatever the vocabulary."""
    return max(LEAST, CHUNK_BYTES["card" if on_card else "cpu"] // (4 * vocab_size))
