"""The shape of a language model: its sizes in config.json, and the counts that follow from them. No torch.

Counts leave out biases and the norms inside attention: under 0.1 % of any model that was checked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError

from core.errors import ModelError, RecipeError
from core.files import JsonObject
from core.messages import Message
from core.models.shapes.config import NEEDED, TIED_BY_DEFAULT, derived, doubts_about, read
from core.models.shapes.matrices import WITHOUT_ADAPTER, Matrix, attention_of, mlp_of, names_in, names_of
from core.values import Strict

ALL_LINEAR = "all-linear"
HEAD = "lm_head"

# A config.json may come from anywhere, so every number has a ceiling that no real model reaches.
_Count = Annotated[int, Field(strict=True, ge=1, le=2048)]
_Width = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
_Vocabulary = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
_Optional = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]
_EVERY_EXPERT_FOR_EACH_TOKEN = {"llama4_text"}
# Methods that transformers unpacks to 16 bit as it loads, by torch alone: such a base is held in 16 bit.
UNPACKED = ("fp8", "mxfp4")
_LEARNED_POSITIONS = {"gpt2", "gpt_bigcode", "gpt_neo", "opt"}


class Held(Strict):
    """The contents of the weight files (core/models/headers), in parameters.

    params: of the text, without `beside`, the towers for pictures and sound, whose memory is freed
    (core/engine/families/parts). four_bit: in matrices that QLoRA would hold in 4 bit. lora_width: inputs and outputs
    of all layers in all-linear, 0 if unknown; widths: by their names, as far as known. expert_width: inputs and outputs
    of all routed experts that are one parameter; None if unknown. stored_bytes: of a repository already quantized by
    `quantised`.
    """

    params: int = Field(ge=1)
    beside: int = Field(default=0, ge=0)
    four_bit: int = Field(ge=0)
    lora_width: int = Field(default=0, ge=0)
    widths: tuple[tuple[str, int], ...] = ()
    expert_width: int | None = Field(default=None, ge=0)
    stored_bytes: int | None = None
    quantised: str | None = None


class ModelShape(Strict):
    """Widths and counts of one model, named as in config.json. Sizes without unit are numbers of parameters.

    held: counts of its files, if they were read; they replace counts computed from the widths.
    """

    model_type: str = Field(min_length=1, max_length=60)
    hidden_size: _Width
    num_hidden_layers: _Count
    num_attention_heads: _Count
    num_key_value_heads: _Count
    head_dim: _Width
    intermediate_size: _Width
    vocab_size: _Vocabulary
    tie_word_embeddings: bool
    mlp: Literal["gated", "plain"] = "gated"
    num_experts: _Optional = 0
    experts_per_token: _Optional = 0
    expert_size: _Optional = 0
    shared_expert_size: _Optional = 0
    expert_layers: _Optional = 0
    per_layer_size: _Optional = 0  # width of an embedding of its own in each layer (Gemma 3n)
    per_layer_vocabulary: _Optional = 0  # of that embedding, where it is another
    # of layers that are wider than intermediate_size (Gemma 4 E2B: those that share keys and values)
    widest_mlp: _Optional = 0
    wide_layers: _Optional = 0  # that have heads of another width (Gemma 4: those that see all tokens), and those heads
    wide_head_dim: _Optional = 0
    wide_kv_heads: _Optional = 0
    window: _Optional = 0  # tokens that layers with sliding attention see, and how many such layers there are
    window_layers: _Optional = 0
    # with Mamba 2's chunked scan: its heads, how wide each is, its states and tokens of a chunk
    scan_layers: _Optional = 0
    scan_heads: _Optional = 0
    scan_head_dim: _Optional = 0
    scan_state: _Optional = 0
    scan_chunk: _Optional = 0
    streams: _Count = 1  # of hidden states that go through the layers side by side (Gemma 3n)
    max_position_embeddings: Annotated[int, Field(ge=1)] | None = None
    low_confidence: tuple[Message, ...] = ()
    source: Literal["headers", "config", "catalogue", "size"] = "config"
    stands_for: str | None = None  # a bare size: the model whose shape was taken
    held: Held | None = None

    @classmethod
    def from_config(cls, config: object) -> ModelShape:
        """Return the shape of a parsed config.json. Raises ModelError with what is missing or impossible."""
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ModelError("shape.no_config")
        inner = next(
            (config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), config
        )
        model_type = str(inner["model_type"] if isinstance(inner.get("model_type"), str) else config["model_type"])
        values = derived(read(inner, model_type), inner, model_type)
        missing = [name for name in NEEDED if name not in values]
        if missing:
            raise ModelError("shape.missing", model_type=model_type[:60], missing=missing)
        tied = config.get("tie_word_embeddings", inner.get("tie_word_embeddings"))
        try:
            return cls(
                **values,
                model_type=model_type,
                tie_word_embeddings=tied
                if isinstance(tied, bool)
                else bool(TIED_BY_DEFAULT & {model_type, config["model_type"]}),
                mlp="gated" if names_of(model_type).gated else "plain",
                low_confidence=doubts_about(config, inner, values),
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ModelError("shape.bad_value", field=str(first["loc"][0]), found=str(first["input"])[:60]) from None

    def __hash__(self) -> int:  # custom, because messages are not hashable
        """Return a hash of the family, the main widths and held, as messages (low_confidence) cannot be hashed."""
        widths = (self.hidden_size, self.num_hidden_layers, self.intermediate_size, self.vocab_size)
        return hash((self.model_type, *widths, self.held))

    def describe(self) -> str:
        """Return the shape as text, the same in every language: "llama, 32 x 4096, MLP 11008, 32/32 heads of 128, V
        32000"."""
        heads = f"{self.num_attention_heads}/{self.num_key_value_heads} heads of {self.head_dim}"
        return (
            f"{self.model_type}, {self.num_hidden_layers} x {self.hidden_size}, MLP {self.intermediate_size}, "
            f"{heads}, V {self.vocab_size}"
        )

    def with_held(self, held: Held | None) -> ModelShape:
        """Return this shape with the counts of the model's files, which settle doubts about quantization and towers;
        the same shape for None."""
        if held is None:
            return self
        settled = ("shape.quantised", "shape.other_senses") if held.stored_bytes or not held.quantised else ()
        doubts = tuple(doubt for doubt in self.low_confidence if doubt.key not in settled)
        return self.model_copy(update={"held": held, "source": "headers", "low_confidence": doubts})

    def config(self) -> JsonObject:
        """Return the part of a config.json that follows from the widths, as far as they are known."""
        names = (
            "model_type",
            *NEEDED,
            "num_key_value_heads",
            "head_dim",
            "tie_word_embeddings",
            "max_position_embeddings",
        )
        values = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.wide_layers:  # Gemma 4, by its makers' keys
            values |= {
                "global_head_dim": self.wide_head_dim,
                "num_global_key_value_heads": self.wide_kv_heads,
                "attention_k_eq_v": self.wide_kv_heads != self.num_key_value_heads,
                "sliding_window": self.window,
                "hidden_size_per_layer_input": self.per_layer_size,
            }
        return values

    @property
    def q_width(self) -> int:
        """Width of the query projection: heads times head_dim."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Width of the key projection, and of the value projection: key-value heads times head_dim."""
        return self.num_key_value_heads * self.head_dim

    @property
    def wide(self) -> ModelShape | None:
        """The same shape with the wider heads; None for a family whose layers all have the same."""
        if not self.wide_layers:
            return None
        return self.model_copy(
            update={"head_dim": self.wide_head_dim, "num_key_value_heads": self.wide_kv_heads, "wide_layers": 0}
        )

    @property
    def active_width(self) -> int:
        """Width of the widest MLP that a token passes through in a layer: a dense one's, or with experts that of the
        experts that it is routed to and the shared one together."""
        routed = self.experts_run * self.expert_size + self.shared_expert_size
        dense = self.intermediate_size if self.expert_layers < self.num_hidden_layers else 0
        return max(routed, dense, self.widest_mlp)

    @property
    def experts_run(self) -> int:
        """Experts of a layer that each token runs: those it is routed to, or all, weighted by the router."""
        return self.num_experts if self.model_type in _EVERY_EXPERT_FOR_EACH_TOKEN else self.experts_per_token

    @property
    def attention_matrices(self) -> tuple[Matrix, ...]:
        """Return the linear layers of attention (its input and output projections), each with the number of layers that
        have it."""
        return attention_of(self.model_type, self.hidden_size, self.num_hidden_layers, self.q_width, self.kv_width)

    @property
    def mlp_matrices(self) -> tuple[Matrix, ...]:
        """Matrices of dense layers and shared experts; routed experts are not linear layers (expert_params)."""
        dense = (self.intermediate_size, self.num_hidden_layers - self.expert_layers)
        return mlp_of(
            self.model_type, self.mlp, self.hidden_size, (dense, (self.shared_expert_size, self.expert_layers))
        )

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The linear layers inside the blocks, which QLoRA holds in 4 bit."""
        return self.attention_matrices + self.mlp_matrices

    @property
    def embedding_params(self) -> int:
        """Parameters of all embeddings: of tokens, learned positions, and in every layer."""
        positions = (self.max_position_embeddings or 0) if self.model_type in _LEARNED_POSITIONS else 0
        return (self.vocab_size + positions) * self.hidden_size + self.per_layer_params

    @property
    def per_layer_params(self) -> int:
        """Parameters of an embedding in every layer; with a GPU they stay in RAM (core/engine/base_model)."""
        return (self.per_layer_vocabulary or self.vocab_size) * self.num_hidden_layers * self.per_layer_size

    @property
    def head_params(self) -> int:
        """Parameters of the head, 0 if it is tied to the embeddings."""
        return 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size

    @property
    def linear_params(self) -> int:
        """Parameters of `matrices`, computed from the widths; routed experts, embeddings and head are not among
        them."""
        return sum(matrix.params for matrix in self.matrices)

    @property
    def expert_params(self) -> int:
        """Parameters of the routed experts in all layers with their routers, computed from the widths; transformers 5
        holds them as 3-D parameters, not as linear layers."""
        per_layer = self.num_experts * self.hidden_size * (3 * self.expert_size + 1)
        return self.expert_layers * per_layer

    @property
    def expert_width(self) -> int:
        """Inputs and outputs of all routed experts: gate and up are one matrix, down is another."""
        if self.held and self.held.expert_width is not None:
            return self.held.expert_width
        return self.expert_layers * self.num_experts * (2 * self.hidden_size + 3 * self.expert_size)

    def refuse_experts(self) -> None:
        """Raise RecipeError if its experts can have no adapter: there are none, or they are packed."""
        if not self.num_experts or not self.expert_width:
            raise RecipeError("shape.no_experts", model_type=self.model_type)
        if self.quantized and not self.is_unpacked:
            raise RecipeError("shape.experts_quantised", method=self.quantized)

    @property
    def four_bit_params(self) -> int:
        """Parameters that QLoRA holds in 4 bit."""
        return self.held.four_bit if self.held else self.linear_params

    @property
    def in_files(self) -> int:
        """All parameters in the model's files, which are downloaded: those for text, and those of towers if its files
        were counted."""
        return self.params + (self.held.beside if self.held else 0)

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of a repository that is quantized already and stays so; None for all others."""
        return self.held.stored_bytes if self.held and not self.is_unpacked else None

    @property
    def is_unpacked(self) -> bool:
        """True if it is quantized by a method that is unpacked on loading."""
        return self.quantized in UNPACKED

    @property
    def quantized(self) -> str | None:
        """The quantization method of a repository, as its config names it; None for all others."""
        if self.held and self.held.quantised:
            return self.held.quantised
        return next(
            (str(doubt.params["method"]) for doubt in self.low_confidence if doubt.key == "shape.quantised"), None
        )

    @property
    def params(self) -> int:
        """Parameters of the model for text, tied ones once, without towers for pictures and sound: as counted in its
        files, else computed from the widths."""
        return self.held.params if self.held else self.counted_params

    @property
    def counted_params(self) -> int:
        """All parameters, computed from the widths."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        return self.embedding_params + self.head_params + self.linear_params + self.expert_params + norms

    @property
    def params_billion(self) -> float:
        return self.params / 1e9

    def targets(self, target_modules: str) -> tuple[Matrix, ...]:
        """Return the matrices that get an adapter, among those known from the widths (the head only by its name).

        target_modules: all-linear (all but the head, as in peft), or names with commas. Raises RecipeError for a name
        that this family does not have, or that gets no adapter in it.
        """
        left_out = WITHOUT_ADAPTER.get(self.model_type, ())
        if target_modules.strip() == ALL_LINEAR:
            return tuple(matrix for matrix in self.matrices if matrix.name not in left_out)
        names = names_in(target_modules)
        if without := names.intersection(left_out):
            raise RecipeError("shape.targets_left_out", found=sorted(without), model_type=self.model_type)
        matrices = (*self.matrices, Matrix(HEAD, self.hidden_size, self.vocab_size, 1))
        held = [name for name, _ in self.held.widths] if self.held else []
        available = dict.fromkeys([HEAD, *held] if held else [matrix.name for matrix in matrices])
        # Names of layers that the arithmetic does not model are unknown before the files are read.
        is_modelled = not any(doubt.key in ("shape.hybrid", "shape.latent_attention") for doubt in self.low_confidence)
        unknown = names - available.keys() if held or is_modelled else set()
        if unknown or not names:
            raise RecipeError(
                "shape.unknown_targets", found=sorted(unknown) or target_modules, expected=[ALL_LINEAR, *available]
            )
        return tuple(matrix for matrix in matrices if matrix.name in names)

    def lora_params(self, r: int, target_modules: str, with_experts: bool = False) -> int:
        """Return the adapter's parameters: r * (d_in + d_out), summed over the targets, with_experts also over the
        routed experts.

        Raises RecipeError for a name that this family does not have, and without trainable experts.
        """
        if with_experts:
            self.refuse_experts()
            return r * self.expert_width + self.lora_params(r, target_modules)
        if target_modules.strip() == ALL_LINEAR and self.held and self.held.lora_width:
            return r * self.held.lora_width
        targets, known = self.targets(target_modules), dict(self.held.widths) if self.held else {}
        more = sum(known.get(name, 0) for name in names_in(target_modules))
        return r * (more + sum((m.d_in + m.d_out) * m.count for m in targets if m.name not in known))
