"""The numbers of a config.json under our names, with what transformers derives from them, and what the arithmetic does
not model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeGuard

from core.errors import ModelError
from core.files import JsonObject
from core.messages import Message, msg
from core.models.shapes.matrices import names_of
from core.values import GIB

# Defaults of transformers 5.24 for keys missing in config.json, from its configuration classes.
TIED_BY_DEFAULT = {
    "bloom", "cohere", "cohere2", "ernie4_5", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n",
    "gemma3n_text",
    "gemma4", "gemma4_text", "gpt2", "gpt_bigcode", "gpt_neo", "granite_swa", "lfm2", "mpt", "opt", "smollm3",
    "starcoder2", "xglm",
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
_KEYS = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv"),
    "intermediate_size": ("block_ff_dim", "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
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
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
_HYBRID_KEYS = ("linear_num_value_heads", "hybrid_override_pattern", "attn_layer_period", "ssm_cfg", "state_size")
_HYBRID_PREFIXES = ("mamba_", "ssm_", "lru_", "conv_L")
_ORDINARY_LAYERS = {"attention", "full_attention", "sliding_attention", "chunked_attention"}


def read(config: Mapping[str, object], model_type: str) -> dict[str, int]:
    """Return the numbers in config.json under our names, the family's defaults for missing ones. A width that differs
    by layer is its largest. Raises ModelError for a value that is no number."""
    values: dict[str, int] = dict(_DEFAULTS.get(model_type, {}))
    for name, keys in _KEYS.items():
        value = next((config[key] for key in keys if config.get(key) is not None), None)
        if isinstance(value, list) and _is_by_layer(value):
            value = max(value)
        if value is None:
            continue
        if not _is_number(value):
            raise ModelError("shape.bad_value", field=name, found=str(value)[:60])
        values[name] = value
    return values


def derived(values: dict[str, int], config: Mapping[str, object], model_type: str) -> dict[str, int]:
    """Return values with those that transformers derives from others, or whose keys differ between families: heads, MLP
    widths, kinds of layers, experts. values is changed too."""
    h, heads, layers = (values.get(name, 0) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        values["num_key_value_heads"] = 1
    listed_layers = config.get("layers_block_type")
    if isinstance(listed_layers, list):
        layers = values.setdefault("num_hidden_layers", len(listed_layers))  # Nemotron-H has no other key for it
    values.setdefault("num_key_value_heads", heads)
    values.setdefault("head_dim", h // heads if heads else 0)
    if h and not names_of(model_type).gated:
        values.setdefault("intermediate_size", 4 * h)
    if model_type == "lfm2" and values.get("intermediate_size"):
        values["intermediate_size"] = _of_lfm2(values["intermediate_size"], config)
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
        _special_experts(values, config)
    else:
        values = {
            name: value
            for name, value in values.items()
            if name not in ("num_experts", "experts_per_token", "expert_size")
        }
    return values


def _of_lfm2(width: int, config: Mapping[str, object]) -> int:
    """Return the width of LFM2's MLP: two thirds of the number in config.json, times a multiplier, rounded up to a
    multiple, unless that is the width itself."""
    if config.get("block_auto_adjust_ff_dim") is False:
        return width
    narrow, factor = 2 * width // 3, config.get("block_ffn_dim_multiplier", 1.0)
    multiple = _number(config, "block_multiple_of") or 256
    return (
        -(-int(factor * narrow) // multiple) * multiple
        if isinstance(factor, int | float) and math.isfinite(factor)
        else narrow
    )


def _wide_heads(values: dict[str, int], config: Mapping[str, object]) -> None:
    """Add number, head width and KV heads of Gemma 4's layers with wider heads, listed by its makers' keys, or by
    layer, as transformers writes them. If no layers are listed, every sixth layer and the last see all tokens."""
    kinds, listed, layers = (
        config.get("layer_types"),
        config.get("per_layer_config"),
        values.get("num_hidden_layers", 0),
    )
    if isinstance(listed, dict) and listed:
        layers_listed = [one for one in listed.values() if isinstance(one, dict)]
        count, width, heads = (
            len(layers_listed),
            *(
                max((_number(one, key) for one in layers_listed), default=0)
                for key in ("head_dim", "num_key_value_heads")
            ),
        )
    else:
        count = kinds.count("full_attention") if isinstance(kinds, list) else -(-layers // 6)
        width, heads = _number(config, "global_head_dim"), 0
        if config.get("attention_k_eq_v"):
            heads = _number(config, "num_global_key_value_heads")
    if 0 < count <= layers and width and width != values.get("head_dim"):
        values |= {
            "wide_layers": count,
            "wide_head_dim": width,
            "wide_kv_heads": heads or values["num_key_value_heads"],
        }


def _kinds_of_layers(values: dict[str, int], config: Mapping[str, object]) -> None:
    """Add to values, in place, the size of the sliding window and the number of layers with one, and for Mamba 2 the
    sizes of the scan and the number of layers with one. If config.json lists no kinds of layers, all layers have the
    scan (as in Falcon-H1), and all but values["wide_layers"] of them the window."""
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
        "scan_layers": scans if kinds else values.get("num_hidden_layers", 0),
        "scan_heads": heads,
        "scan_head_dim": width or (_number(config, "mamba_expand") or 2) * values.get("hidden_size", 0) // heads,
        "scan_state": _number(config, "mamba_d_state") or _number(config, "ssm_state_size"),
        "scan_chunk": _number(config, "mamba_chunk_size") or _number(config, "chunk_size") or 256,
    }


def _special_experts(values: dict[str, int], config: Mapping[str, object]) -> None:
    """Add widths and number of layers of experts for families with their own keys for them (Llama 4, Gemma 4, Jamba,
    Nemotron-H)."""
    listed = config.get("layers_block_type")
    if wide := _number(config, "intermediate_size_mlp"):
        # Llama 4: intermediate_size is an expert's, a shared one is always there
        values["expert_size"] = values["shared_expert_size"] = values["intermediate_size"]
        values["intermediate_size"] = wide
        values["expert_layers"] = values["num_hidden_layers"] // max(1, _number(config, "interleave_moe_layer_step"))
    elif config.get("enable_moe_block"):  # Gemma 4: next to a dense MLP in every layer
        values["shared_expert_size"] = values["intermediate_size"]
    elif every := _number(config, "expert_layer_period"):  # Jamba
        values["expert_layers"] = len(range(_number(config, "expert_layer_offset"), values["num_hidden_layers"], every))
    elif isinstance(listed, list):  # Nemotron-H: a layer is either attention, scan, MLP or experts
        values["expert_layers"] = listed.count("moe")
        values["shared_expert_size"] = _number(config, "moe_shared_expert_intermediate_size")


def doubts_about(config: Mapping[str, object], inner: JsonObject, values: Mapping[str, int]) -> tuple[Message, ...]:
    """Return a message for each property that the arithmetic does not model: experts, latent attention, unusual layers,
    per-layer embeddings, towers, uneven layers, quantization."""
    kinds = inner.get("layer_types") or inner.get("layers_block_type") or ()
    strange = {str(kind) for kind in kinds} - _ORDINARY_LAYERS if isinstance(kinds, list) else set()
    says = any(inner.get(key) for key in inner if key in _HYBRID_KEYS or key.startswith(_HYBRID_PREFIXES))
    hybrid = bool(strange) if kinds else says  # Granite 4 Micro has the keys of a scan, and layers of attention alone
    quantized = config.get("quantization_config") or inner.get("quantization_config")
    method = quantized.get("quant_method") if isinstance(quantized, dict) else None
    doubts = {
        "shape.experts": bool(values.get("num_experts")),
        "shape.latent_attention": bool(inner.get("kv_lora_rank")),
        "shape.hybrid": hybrid,
        "shape.per_layer_embeddings": bool(values.get("per_layer_size")),
        "shape.other_senses": any(isinstance(config.get(key), dict) for key in ("vision_config", "audio_config")),
        "shape.uneven": any(
            _is_by_layer(inner.get(key)) and len(set(inner[key])) > 1 for keys in _KEYS.values() for key in keys
        ),
    }
    sentences = [msg(key, **_sentence_values(key, values)) for key, doubtful in doubts.items() if doubtful]
    return (*sentences, msg("shape.quantised", method=str(method or "-")[:30])) if quantized else tuple(sentences)


def _sentence_values(key: str, values: Mapping[str, int]) -> dict[str, float]:
    """Return the values of a doubt's sentence: the memory of per-layer embeddings; others have none."""
    if key != "shape.per_layer_embeddings":
        return {}
    vocabulary = values.get("per_layer_vocabulary") or values.get("vocab_size", 0)
    return {"gib": vocabulary * values.get("num_hidden_layers", 0) * values["per_layer_size"] * 2 / GIB}


def _is_number(value: object) -> TypeGuard[int]:
    """Return whether value is a whole number from 0 to 2**40."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40


def _is_by_layer(value: object) -> bool:
    """Return whether value is a list with a number for each layer."""
    return isinstance(value, list) and 2 < len(value) <= 2048 and all(map(_is_number, value))


def _number(config: Mapping[str, object], key: str) -> int:
    """Return the number at key; 0 if it is missing or none."""
    value = config.get(key)
    return value if isinstance(value, int) and _is_number(value) else 0
