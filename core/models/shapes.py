"""The shape of a language model: what config.json says of its size, and what follows from it by counting. No torch.

Counts leave out biases and the norms inside attention: under 0.1 % of any model that was checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ModelError, RecipeError
from core.messages import Message, msg
from core.values import GIB

ALL_LINEAR = "all-linear"
HEAD = "lm_head"

# A config.json may come from anywhere, so every number has a ceiling that no real model reaches.
_Count = Annotated[int, Field(strict=True, ge=1, le=2048)]
_Width = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
_Vocabulary = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
_Optional = Annotated[int, Field(strict=True, ge=0, le=1_000_000)]


class Matrix(NamedTuple):
    """One linear layer (d_in -> d_out), `count` times in the model."""

    name: str
    d_in: int
    d_out: int
    count: int  # type: ignore[assignment]  # nobody counts in a matrix as in a tuple

    @property
    def params(self) -> int:
        return self.d_in * self.d_out * self.count


class _Names(NamedTuple):
    """What a family calls its linear layers. One attention name: query, key and value are a single matrix.

    mlp: (gate, up, down); (gate_up, down) where gated and joined; (up, down) where plain.
    """

    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    output: str = "o_proj"
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    gated: bool = True


def _plain(up: str, down: str, attention: tuple[str, ...] = _Names().attention, output: str = "o_proj") -> _Names:
    return _Names(attention, output, (up, down), gated=False)


_NEOX = _plain("dense_h_to_4h", "dense_4h_to_h", ("query_key_value",), "dense")
_GPT2 = _plain("c_fc", "c_proj", ("c_attn",), "c_proj")
_FAMILIES = {
    "phi3": _Names(("qkv_proj",), mlp=("gate_up_proj", "down_proj")),
    "glm": _Names(mlp=("gate_up_proj", "down_proj")),
    "glm4": _Names(mlp=("gate_up_proj", "down_proj")),
    **dict.fromkeys(("gpt_neox", "falcon", "bloom", "persimmon"), _NEOX),
    **dict.fromkeys(("gpt2", "gpt_bigcode"), _GPT2),
    **dict.fromkeys(("nemotron", "apertus", "arcee"), _plain("up_proj", "down_proj")),
    "starcoder2": _plain("c_fc", "c_proj"),
    "phi": _plain("fc1", "fc2", output="dense"),
    "opt": _plain("fc1", "fc2", output="out_proj"),
    "gpt_neo": _plain("c_fc", "c_proj", output="out_proj"),
    "gptj": _plain("fc_in", "fc_out", output="out_proj"),
    "codegen": _plain("fc_in", "fc_out", ("qkv_proj",), "out_proj"),
    "mpt": _plain("up_proj", "down_proj", ("Wqkv",), "out_proj"),
}

# What transformers 5.24 takes where config.json is silent, read from its configuration classes.
_TIED_BY_DEFAULT = {
    "bloom", "cohere", "cohere2", "ernie4_5", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text",
    "gemma4", "gemma4_text", "gpt2", "gpt_bigcode", "gpt_neo", "granite_swa", "lfm2", "mpt", "opt", "smollm3", "starcoder2", "xglm",
}  # fmt: skip
_DEFAULTS: dict[str, dict[str, int]] = {
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256, "num_key_value_heads": 4},
    "gemma3_text": {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208},
    "mistral": {"num_key_value_heads": 8},
    "qwen3": {"head_dim": 128},
    "seed_oss": {"head_dim": 128},
    "starcoder2": {"num_key_value_heads": 2},
}
# Linear layers whose weight a family takes past the layer, in training at least: an adapter there would do nothing, or only later.
TAKEN_PAST_THE_LAYER = {
    **dict.fromkeys(("falcon_mamba", "jamba", "mamba"), ("dt_proj",)),
    **dict.fromkeys(("gemma3n", "gemma3n_text"), ("correction_coefs",)),
}
# Linear layers that say which experts are asked, or how much of a shared one is taken: no adapter, and 16 bit.
ROUTERS = {
    **dict.fromkeys(("gemma4", "gemma4_text"), ("proj",)),
    **dict.fromkeys(("qwen2_moe", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next"), ("shared_expert_gate",)),
    "hunyuan_v1_moe": ("wg",),
    "jetmoe": ("layer",),
}
# Linear layers that get no adapter (core/engine/parts): peft 0.21 takes these names for experts in these families (transformers'
# conversion_mapping), and refuses those of Mamba.
_NOT_BY_PEFT = {
    **dict.fromkeys(("minimax", "minimax_m2", "mixtral"), ("gate", "w1", "w2", "w3")),
    **dict.fromkeys(
        ("afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe", "exaone_moe", "flex_olmo",
         "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum", "olmoe",
         "qwen3_moe", "qwen3_next", "qwen3_omni_moe", "qwen3_omni_moe_text", "qwen3_omni_moe_thinker", "sarvam_mla", "solar_open"),
        ("gate", "gate_proj", "up_proj", "down_proj"),
    ),
    **dict.fromkeys(("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"), ("out_proj", "conv1d")),
}  # fmt: skip
WITHOUT_ADAPTER = {
    family: tuple(name for names in (_NOT_BY_PEFT, TAKEN_PAST_THE_LAYER, ROUTERS) for name in names.get(family, ()))
    for family in {**_NOT_BY_PEFT, **TAKEN_PAST_THE_LAYER, **ROUTERS}
}
_EVERY_EXPERT_FOR_EACH_TOKEN = {"llama4_text"}
_LEARNED_POSITIONS = {"gpt2", "gpt_bigcode", "gpt_neo", "opt"}

_KEYS = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "vocab_size": ("vocab_size",),
    "head_dim": ("head_dim",),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len"),
    "num_experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": ("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"),
    "expert_size": ("moe_intermediate_size",),
    "per_layer_size": ("hidden_size_per_layer_input",),
    "streams": ("altup_num_inputs",),
    "per_layer_vocabulary": ("vocab_size_per_layer_input",),
}
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_HYBRID_KEYS = ("linear_num_value_heads", "hybrid_override_pattern", "attn_layer_period", "ssm_cfg", "state_size")
_HYBRID_PREFIXES = ("mamba_", "ssm_", "lru_", "conv_L")
_ORDINARY_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


class Held(BaseModel):
    """What the weight files themselves hold (core/models/headers), in parameters. params: of the text, without beside, the towers for
    pictures and sound, which give their memory back (core/engine/parts). four_bit: in matrices that QLoRA would
    hold in 4 bit. lora_width: inputs and outputs of all layers that all-linear means, 0 where that is not known; widths: by their names, as far as known.
    expert_width: inputs and outputs of all routed experts that are one parameter; None where that is not known. stored_bytes: of a repository that is quantised already, by `quantised`; it is loaded as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    params: int = Field(ge=1)
    beside: int = Field(default=0, ge=0)
    four_bit: int = Field(ge=0)
    lora_width: int = Field(default=0, ge=0)
    widths: tuple[tuple[str, int], ...] = ()
    expert_width: int | None = Field(default=None, ge=0)
    stored_bytes: int | None = None
    quantised: str | None = None


class ModelShape(BaseModel):
    """Widths and counts of one model, named as in config.json. Sizes without unit are numbers of parameters.

    held: what its files hold, where that was read; it then counts, and what is computed from the widths does not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    widest_mlp: _Optional = 0  # of layers that are wider than intermediate_size (Gemma 4 E2B: those that share keys and values)
    wide_layers: _Optional = 0  # that have heads of another width (Gemma 4: those that see all tokens), and those heads
    wide_head_dim: _Optional = 0
    wide_kv_heads: _Optional = 0
    window: _Optional = 0  # tokens that layers with sliding attention see, and how many such layers there are
    window_layers: _Optional = 0
    scan_layers: _Optional = 0  # with Mamba 2's chunked scan: its heads, how wide each is, its states and tokens of a chunk
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
    def from_config(cls, config: Any) -> ModelShape:
        """The shape that a parsed config.json describes. Raises ModelError with what is missing or impossible."""
        if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
            raise ModelError("shape.no_config")
        inner = next((config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)), config)
        model_type = str(inner["model_type"] if isinstance(inner.get("model_type"), str) else config["model_type"])
        values = _derived(_read(inner, model_type), inner, model_type)
        missing = [name for name in _NEEDED if name not in values]
        if missing:
            raise ModelError("shape.missing", model_type=model_type[:60], missing=missing)
        tied = config.get("tie_word_embeddings", inner.get("tie_word_embeddings"))
        try:
            return cls(
                **values,
                model_type=model_type,
                tie_word_embeddings=tied if isinstance(tied, bool) else bool(_TIED_BY_DEFAULT & {model_type, config["model_type"]}),
                mlp="gated" if _names(model_type).gated else "plain",
                low_confidence=_doubts(config, inner, values),
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ModelError("shape.bad_value", field=str(first["loc"][0]), found=str(first["input"])[:60]) from None

    def __hash__(self) -> int:  # its own, because sentences of doubt have none
        widths = (self.hidden_size, self.num_hidden_layers, self.intermediate_size, self.vocab_size)
        return hash((self.model_type, *widths, self.held))

    def describe(self) -> str:
        """ "llama, 32 x 4096, MLP 11008, 32/32 heads of 128, V 32000": the same in every language."""
        heads = f"{self.num_attention_heads}/{self.num_key_value_heads} heads of {self.head_dim}"
        return f"{self.model_type}, {self.num_hidden_layers} x {self.hidden_size}, MLP {self.intermediate_size}, {heads}, V {self.vocab_size}"

    def with_held(self, held: Held | None) -> ModelShape:
        """This shape with what the model's files hold; what was doubtful about its weights alone is no doubt any more."""
        if held is None:
            return self
        settled = ("shape.quantised", "shape.other_senses") if held.stored_bytes or not held.quantised else ()
        doubts = tuple(doubt for doubt in self.low_confidence if doubt.key not in settled)
        return self.model_copy(update={"held": held, "source": "headers", "low_confidence": doubts})

    def config(self) -> dict[str, Any]:
        """As much of a config.json as the widths say, for what reads one."""
        names = ("model_type", *_NEEDED, "num_key_value_heads", "head_dim", "tie_word_embeddings", "max_position_embeddings")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def q_width(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def kv_width(self) -> int:
        return self.num_key_value_heads * self.head_dim

    @property
    def wide(self) -> ModelShape | None:
        """The same where its heads are wide; None for a family whose layers all have the same."""
        if not self.wide_layers:
            return None
        return self.model_copy(update={"head_dim": self.wide_head_dim, "num_key_value_heads": self.wide_kv_heads, "wide_layers": 0})

    @property
    def active_width(self) -> int:
        """Width of the MLP that one token passes through: with experts, those it is routed to and the shared one."""
        routed = self.experts_run * self.expert_size + self.shared_expert_size
        dense = self.intermediate_size if self.expert_layers < self.num_hidden_layers else 0
        return max(routed, dense, self.widest_mlp)

    @property
    def experts_run(self) -> int:
        """Of a layer, for each token: those it is routed to, or all, weighed by what the router says."""
        return self.num_experts if self.model_type in _EVERY_EXPERT_FOR_EACH_TOKEN else self.experts_per_token

    @property
    def attention_matrices(self) -> tuple[Matrix, ...]:
        return _attention(self.model_type, self.hidden_size, self.num_hidden_layers, self.q_width, self.kv_width)

    @property
    def mlp_matrices(self) -> tuple[Matrix, ...]:
        """Of dense layers and shared experts; routed experts are no linear layers (expert_params)."""
        dense = (self.intermediate_size, self.num_hidden_layers - self.expert_layers)
        return _mlp(self.model_type, self.mlp, self.hidden_size, (dense, (self.shared_expert_size, self.expert_layers)))

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The linear layers inside the blocks, which QLoRA holds in 4 bit."""
        return self.attention_matrices + self.mlp_matrices

    @property
    def embedding_params(self) -> int:
        positions = (self.max_position_embeddings or 0) if self.model_type in _LEARNED_POSITIONS else 0
        return (self.vocab_size + positions) * self.hidden_size + self.per_layer_params

    @property
    def per_layer_params(self) -> int:
        """Of an embedding in every layer; on a card they stay in RAM (core/engine/base_model)."""
        return (self.per_layer_vocabulary or self.vocab_size) * self.num_hidden_layers * self.per_layer_size

    @property
    def head_params(self) -> int:
        """0 where the head is tied to the embeddings."""
        return 0 if self.tie_word_embeddings else self.vocab_size * self.hidden_size

    @property
    def linear_params(self) -> int:
        return sum(matrix.params for matrix in self.matrices)

    @property
    def expert_params(self) -> int:
        """Routed experts with their routers; transformers 5 holds them as 3-D parameters, not as linear layers."""
        per_layer = self.num_experts * self.hidden_size * (3 * self.expert_size + 1)
        return self.expert_layers * per_layer

    @property
    def expert_width(self) -> int:
        """Inputs and outputs of all routed experts: gate and up are one matrix, down is another."""
        if self.held and self.held.expert_width is not None:
            return self.held.expert_width
        return self.expert_layers * self.num_experts * (2 * self.hidden_size + 3 * self.expert_size)

    def refuse_experts(self) -> None:
        """Raises RecipeError where its experts can have no adapter: there are none, or they are packed."""
        if not self.num_experts or not self.expert_width:
            raise RecipeError("shape.no_experts", model_type=self.model_type)
        if self.quantised:
            raise RecipeError("shape.experts_quantised", method=self.quantised)

    @property
    def four_bit_params(self) -> int:
        """What QLoRA holds in 4 bit."""
        return self.held.four_bit if self.held else self.linear_params

    @property
    def in_files(self) -> int:
        """All parameters that are downloaded."""
        return self.params + (self.held.beside if self.held else 0)

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of a repository that is quantised already; None for all others."""
        return self.held.stored_bytes if self.held else None

    @property
    def quantised(self) -> str | None:
        """The method by which a repository is quantised already, as far as its config tells; None for all others."""
        if self.held and self.held.quantised:
            return self.held.quantised
        return next((str(doubt.params["method"]) for doubt in self.low_confidence if doubt.key == "shape.quantised"), None)

    @property
    def params(self) -> int:
        """All parameters, tied ones once."""
        return self.held.params if self.held else self.counted_params

    @property
    def counted_params(self) -> int:
        """All parameters as they follow from the widths."""
        norms = (2 * self.num_hidden_layers + 1) * self.hidden_size
        return self.embedding_params + self.head_params + self.linear_params + self.expert_params + norms

    @property
    def params_billion(self) -> float:
        return self.params / 1e9

    def targets(self, target_modules: str) -> tuple[Matrix, ...]:
        """The matrices that get an adapter, of those that the widths tell: all-linear (every one but the head, as in peft), or names with
        commas. Raises RecipeError for a name that this family does not have, or that gets none in it.
        """
        left_out = WITHOUT_ADAPTER.get(self.model_type, ())
        if target_modules.strip() == ALL_LINEAR:
            return tuple(matrix for matrix in self.matrices if matrix.name not in left_out)
        names = _names_in(target_modules)
        if without := names.intersection(left_out):
            raise RecipeError("shape.targets_left_out", found=sorted(without), model_type=self.model_type)
        matrices = (*self.matrices, Matrix(HEAD, self.hidden_size, self.vocab_size, 1))
        held = [name for name, _ in self.held.widths] if self.held else []
        there = dict.fromkeys([HEAD, *held] if held else [matrix.name for matrix in matrices])
        # Of layers that the arithmetic does not model nobody knows the names before the files are read.
        unknown = names - there.keys() if held or not self._is_hybrid else set()
        if unknown or not names:
            raise RecipeError("shape.unknown_targets", found=sorted(unknown) or target_modules, expected=[ALL_LINEAR, *there])
        return tuple(matrix for matrix in matrices if matrix.name in names)

    def lora_params(self, r: int, target_modules: str, with_experts: bool = False) -> int:
        """r * (d_in + d_out) for each target, with_experts also for each routed expert.

        Raises RecipeError for a name that this family does not have, and where it has no experts that could be trained.
        """
        if with_experts:
            self.refuse_experts()
            return r * self.expert_width + self.lora_params(r, target_modules)
        if target_modules.strip() == ALL_LINEAR and self.held and self.held.lora_width:
            return r * self.held.lora_width
        found, known = self.targets(target_modules), dict(self.held.widths) if self.held else {}
        more = sum(known.get(name, 0) for name in _names_in(target_modules))
        return r * (more + sum((m.d_in + m.d_out) * m.count for m in found if m.name not in known))

    @property
    def _is_hybrid(self) -> bool:
        return any(doubt.key in ("shape.hybrid", "shape.latent_attention") for doubt in self.low_confidence)


def _names_in(target_modules: str) -> set[str]:
    return {name.strip() for name in target_modules.split(",") if name.strip()}


def _names(model_type: str) -> _Names:
    return _FAMILIES.get(model_type, _Names())


# Cached: advice asks for the same few models some hundred times.
@lru_cache(maxsize=512)
def _attention(model_type: str, h: int, layers: int, query: int, key_value: int) -> tuple[Matrix, ...]:
    names = _names(model_type)
    widths = (query, key_value, key_value) if len(names.attention) == 3 else (query + 2 * key_value,)
    inputs = [Matrix(name, h, width, layers) for name, width in zip(names.attention, widths, strict=True)]
    return (*inputs, Matrix(names.output, query, h, layers))


@lru_cache(maxsize=512)
def _mlp(model_type: str, kind: str, h: int, parts: tuple[tuple[int, int], ...]) -> tuple[Matrix, ...]:
    """parts: width and number of layers that have it."""
    names, found = _names(model_type), []
    joined = kind == "gated" and len(names.mlp) == 2
    for width, count in parts:
        if width and count:
            found += [Matrix(name, h, 2 * width if joined else width, count) for name in names.mlp[:-1]]
            found.append(Matrix(names.mlp[-1], width, h, count))
    return tuple(found)


def _read(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """The numbers that config.json gives, under our names. A width that differs by layer is its largest."""
    values: dict[str, Any] = dict(_DEFAULTS.get(model_type, {}))
    for name, keys in _KEYS.items():
        found = next((config[key] for key in keys if config.get(key) is not None), None)
        if isinstance(found, list) and _is_by_layer(found):
            found = max(found)
        if found is None:
            continue
        if not _is_number(found):
            raise ModelError("shape.bad_value", field=name, found=str(found)[:60])
        values[name] = found
    return values


def _derived(values: dict[str, Any], config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """values with what transformers itself derives from them."""
    h, heads, layers = (values.get(name, 0) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        values["num_key_value_heads"] = 1
    listed_layers = config.get("layers_block_type")
    if isinstance(listed_layers, list):
        layers = values.setdefault("num_hidden_layers", len(listed_layers))  # Nemotron-H says it no other way
    values.setdefault("num_key_value_heads", heads)
    values.setdefault("head_dim", h // heads if heads else 0)
    if h and not _names(model_type).gated:
        values.setdefault("intermediate_size", 4 * h)
    _wide_heads(values, config)
    _kinds_of_layers(values, config)
    if config.get("use_double_wide_mlp") and _number(config, "num_kv_shared_layers"):
        values["widest_mlp"] = 2 * values.get("intermediate_size", 0)
    if experts := values.get("num_experts", 0):
        values.setdefault("expert_size", values.get("intermediate_size", 0))
        values.setdefault("intermediate_size", values["expert_size"])
        values.setdefault("experts_per_token", min(2, experts))
        shared = _number(config, "n_shared_experts") * values["expert_size"]
        values["shared_expert_size"] = shared or _number(config, "shared_expert_intermediate_size")
        listed = config.get("mlp_only_layers")
        first = _number(config, "first_k_dense_replace") or _number(config, "num_dense_layers")
        dense = first + (len(listed) if isinstance(listed, list) else 0)
        values["expert_layers"] = max(0, layers - dense) // max(1, _number(config, "decoder_sparse_step"))
        _told_otherwise(values, config)
    else:
        values = {name: value for name, value in values.items() if name not in ("num_experts", "experts_per_token", "expert_size")}
    return values


def _wide_heads(values: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Gemma 4 says them by the words that its makers write, or by layer, as transformers writes them; every sixth layer and the last see
    all tokens where it does not say which."""
    kinds, listed, layers = config.get("layer_types"), config.get("per_layer_config"), values.get("num_hidden_layers", 0)
    if isinstance(listed, dict) and listed:
        found = [one for one in listed.values() if isinstance(one, dict)]
        count, width, heads = (
            len(found),
            *(max((_number(one, key) for one in found), default=0) for key in ("head_dim", "num_key_value_heads")),
        )
    else:
        count = kinds.count("full_attention") if isinstance(kinds, list) else -(-layers // 6)
        width, heads = _number(config, "global_head_dim"), 0
        if config.get("attention_k_eq_v"):
            heads = _number(config, "num_global_key_value_heads")
    if 0 < count <= layers and width and width != values.get("head_dim"):
        values |= {"wide_layers": count, "wide_head_dim": width, "wide_kv_heads": heads or values["num_key_value_heads"]}


def _kinds_of_layers(values: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Layers that see a window, and those with Mamba 2's scan, where config.json lists them; of Falcon-H1 every layer has one."""
    listed = config.get("layer_types") or config.get("layers_block_type") or ()
    kinds = [str(kind) for kind in listed] if isinstance(listed, list) else []
    if window := _number(config, "sliding_window"):
        see_all = values.get("wide_layers", 0)
        some = kinds.count("sliding_attention") if kinds or not see_all else values["num_hidden_layers"] - see_all
        values |= {"window": window, "window_layers": some}
    heads = _number(config, "mamba_n_heads") or _number(config, "mamba_num_heads")
    if not heads:
        return
    scans = kinds.count("mamba") + kinds.count("linear_attention")  # as transformers writes it since 5.24
    width = _number(config, "mamba_d_head") or _number(config, "mamba_head_dim")
    values |= {
        "scan_layers": scans or values.get("num_hidden_layers", 0),
        "scan_heads": heads,
        "scan_head_dim": width or (_number(config, "mamba_expand") or 2) * values.get("hidden_size", 0) // heads,
        "scan_state": _number(config, "mamba_d_state") or _number(config, "ssm_state_size"),
        "scan_chunk": _number(config, "mamba_chunk_size") or _number(config, "chunk_size") or 256,
    }


def _told_otherwise(values: dict[str, Any], config: Mapping[str, Any]) -> None:
    """Families that say in words of their own how wide experts are, and which layers have them."""
    listed = config.get("layers_block_type")
    if wide := _number(
        config, "intermediate_size_mlp"
    ):  # Llama 4: intermediate_size is an expert's, and a shared one is always there
        values["expert_size"] = values["shared_expert_size"] = values["intermediate_size"]
        values["intermediate_size"] = wide
        values["expert_layers"] = values["num_hidden_layers"] // max(1, _number(config, "interleave_moe_layer_step"))
    elif config.get("enable_moe_block"):  # Gemma 4: beside a dense one in every layer
        values["shared_expert_size"] = values["intermediate_size"]
    elif every := _number(config, "expert_layer_period"):  # Jamba
        values["expert_layers"] = len(range(_number(config, "expert_layer_offset"), values["num_hidden_layers"], every))
    elif isinstance(listed, list):  # Nemotron-H: a layer is one thing alone
        values["expert_layers"] = listed.count("moe")
        values["shared_expert_size"] = _number(config, "moe_shared_expert_intermediate_size")


def _doubts(config: Mapping[str, Any], inner: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[Message, ...]:
    """What the arithmetic does not model, a sentence each."""
    kinds = inner.get("layer_types") or inner.get("layers_block_type") or ()
    strange = {str(kind) for kind in kinds} - _ORDINARY_LAYERS if isinstance(kinds, list) else set()
    hybrid = bool(strange) or any(inner.get(key) for key in inner if key in _HYBRID_KEYS or key.startswith(_HYBRID_PREFIXES))
    quantised = config.get("quantization_config") or inner.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    doubts = {
        "shape.experts": bool(values.get("num_experts")),
        "shape.latent_attention": bool(inner.get("kv_lora_rank")),
        "shape.hybrid": hybrid,
        "shape.per_layer_embeddings": bool(values.get("per_layer_size")),
        "shape.other_senses": any(isinstance(config.get(key), dict) for key in ("vision_config", "audio_config")),
        "shape.uneven": any(_is_by_layer(inner.get(key)) and len(set(inner[key])) > 1 for keys in _KEYS.values() for key in keys),
    }
    found = [msg(key, **_facts(key, values)) for key, doubtful in doubts.items() if doubtful]
    return (*found, msg("shape.quantised", method=str(method or "-")[:30])) if quantised else tuple(found)


def _facts(key: str, values: Mapping[str, Any]) -> dict[str, float]:
    if key != "shape.per_layer_embeddings":
        return {}
    vocabulary = values.get("per_layer_vocabulary") or values.get("vocab_size", 0)
    return {"gib": vocabulary * values.get("num_hidden_layers", 0) * values["per_layer_size"] * 2 / GIB}


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_by_layer(value: Any) -> bool:
    return isinstance(value, list) and 2 < len(value) <= 2048 and all(map(_is_number, value))


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and _is_number(value) else 0
