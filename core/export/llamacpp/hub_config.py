"""config.json in the hub's notation where transformers 5 writes it differently: llama.cpp's converter reads it through
transformers, but compares with the hub's values, or needs fields that transformers no longer writes."""

from __future__ import annotations

from core.files import JsonObject

# Kinds of layers, and a class, that transformers 5 renames on reading.
LAYERS = {"linear_attention": "mamba", "full_attention": "attention"}
NEMOTRON_H = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "moe": "E", "mlp": "-"}
CLASSES = {"PhimoeForCausalLM": "PhiMoEForCausalLM"}
# Fields that the converter needs and transformers omits as the family's default: RoPE on the whole head; no experts.
LACKING: dict[str, JsonObject] = {
    "cohere2": {"rotary_pct": 1.0},
    **dict.fromkeys(("gemma4_text", "gemma4_unified_text"), {"moe_intermediate_size": None}),
}


def to_hub_config(config: JsonObject) -> JsonObject:
    """Change config in place to what the converter expects (class names, fields that transformers leaves out, layer
    names of Granite and Nemotron-H), and return it."""
    config["architectures"] = [CLASSES.get(name, name) for name in config.get("architectures") or ()]
    inner = config.get("text_config") or config
    family = str(inner.get("model_type"))
    for key, value in LACKING.get(family, {}).items():
        inner.setdefault(key, value)
    if family == "granitemoehybrid" and inner.get("layer_types"):
        inner["layer_types"] = [LAYERS.get(kind, kind) for kind in inner["layer_types"]]
    if family == "nemotron_h" and (kinds := inner.get("layers_block_type")):
        inner["hybrid_override_pattern"] = "".join(NEMOTRON_H[kind] for kind in kinds)
        if "moe" not in kinds:
            # transformers writes this for models without experts too, and the converter takes it for a sign of experts
            inner.pop("num_experts_per_tok", None)
    return config
