"""Names and widths of the linear layers of each family, and which of them get no adapter. No torch."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Matrix(NamedTuple):
    """One linear layer (d_in -> d_out), `count` times in the model."""

    name: str
    d_in: int
    d_out: int
    count: int  # type: ignore[assignment]  # hides tuple.count

    @property
    def params(self) -> int:
        """Return the number of weights in all `count` of these layers together."""
        return self.d_in * self.d_out * self.count


class Names(NamedTuple):
    """The names of a family's linear layers. One attention name: query, key and value are a single matrix.

    mlp: (gate, up, down); (gate_up, down) if gated and joined; (up, down) if plain.
    """

    attention: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    output: str = "o_proj"
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    gated: bool = True


def _plain(up: str, down: str, attention: tuple[str, ...] = Names().attention, output: str = "o_proj") -> Names:
    """Return the names of a family whose MLP has no gate."""
    return Names(attention, output, (up, down), gated=False)


_NEOX = _plain("dense_h_to_4h", "dense_4h_to_h", ("query_key_value",), "dense")
_GPT2 = _plain("c_fc", "c_proj", ("c_attn",), "c_proj")
_FAMILIES = {
    "phi3": Names(("qkv_proj",), mlp=("gate_up_proj", "down_proj")),
    "glm": Names(mlp=("gate_up_proj", "down_proj")),
    "glm4": Names(mlp=("gate_up_proj", "down_proj")),
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

# Layers with other names in files than in the class that loads them (transformers' conversion_mapping).
NAMES_IN_FILES = {"lfm3": {"gate_proj": "g_proj"}}
# Linear layers whose weight a family uses without calling the layer, at least in training: an adapter there would have
# no effect, or only later.
WEIGHT_BYPASSES_LAYER = {
    **dict.fromkeys(("falcon_mamba", "jamba", "mamba"), ("dt_proj",)),
    **dict.fromkeys(("gemma3n", "gemma3n_text"), ("correction_coefs",)),
}
# Linear layers that select experts, or weight a shared one: no adapter, and 16 bit.
ROUTERS = {
    **dict.fromkeys(("gemma4", "gemma4_text"), ("proj",)),
    **dict.fromkeys(("qwen2_moe", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next"), ("shared_expert_gate",)),
    "hunyuan_v1_moe": ("wg",),
    "jetmoe": ("layer",),
}
# Linear layers that get no adapter (core/engine/families/parts): in these families peft 0.21 mistakes these names for
# experts (transformers' conversion_mapping), and it refuses those of Mamba.
_NOT_BY_PEFT = {
    **dict.fromkeys(("minimax", "minimax_m2", "mixtral"), ("gate", "w1", "w2", "w3")),
    **dict.fromkeys(
        ("afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1", "ernie4_5_moe",
            "exaone_moe", "flex_olmo",
         "glm4_moe", "glm4_moe_lite", "glm4v_moe", "glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum", "olmoe",
         "qwen3_moe", "qwen3_next", "qwen3_omni_moe", "qwen3_omni_moe_text", "qwen3_omni_moe_thinker", "sarvam_mla",
         "solar_open"),
        ("gate", "gate_proj", "up_proj", "down_proj"),
    ),
    **dict.fromkeys(("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"), ("out_proj", "conv1d")),
}  # fmt: skip
WITHOUT_ADAPTER = {
    family: tuple(name for names in (_NOT_BY_PEFT, WEIGHT_BYPASSES_LAYER, ROUTERS) for name in names.get(family, ()))
    for family in {**_NOT_BY_PEFT, **WEIGHT_BYPASSES_LAYER, **ROUTERS}
}


def names_in(target_modules: str) -> set[str]:
    """Return the names in a list with commas."""
    return {name.strip() for name in target_modules.split(",") if name.strip()}


def names_of(model_type: str) -> Names:
    """Return a family's names of its layers, the usual ones of a family that has no own."""
    return _FAMILIES.get(model_type, Names())


# Cached: advice asks for the same few models some hundred times.
@lru_cache(maxsize=512)
def attention_of(model_type: str, h: int, layers: int, query: int, key_value: int) -> tuple[Matrix, ...]:
    """Return the matrices of attention in all layers. h: hidden size; query, key_value: widths of these projections."""
    names = names_of(model_type)
    widths = (query, key_value, key_value) if len(names.attention) == 3 else (query + 2 * key_value,)
    inputs = [Matrix(name, h, width, layers) for name, width in zip(names.attention, widths, strict=True)]
    return (*inputs, Matrix(names.output, query, h, layers))


@lru_cache(maxsize=512)
def mlp_of(model_type: str, kind: str, h: int, parts: tuple[tuple[int, int], ...]) -> tuple[Matrix, ...]:
    """Return the matrices of a family's MLPs; kind "gated" with two names has gate and up in one. h: hidden size;
    parts: (width, number of layers that have it)."""
    names, matrices = names_of(model_type), []
    joined = kind == "gated" and len(names.mlp) == 2
    for width, count in parts:
        if width and count:
            matrices += [Matrix(name, h, 2 * width if joined else width, count) for name in names.mlp[:-1]]
            matrices.append(Matrix(names.mlp[-1], width, h, count))
    return tuple(matrices)
