"""Decides before any work which adapters can be exported as a LoRA in GGUF. No torch.

llama.cpp computes W x + B A x for matrices that it multiplies with adapter support, and supports nothing else of an
adapter.
"""

from __future__ import annotations

from pathlib import Path

from core import files
from core.errors import ExportError
from core.files import JsonObject
from core.messages import Message, msg
from core.models.adapters import layer_of
from core.models.weights import open_tensors

# Settings of PEFT's config with which an adapter is more than A and B -> the reason's key below `gguf.lora_`.
MORE_THAN_FACTORS = {
    "use_dora": "dora", "modules_to_save": "modules", "lora_bias": "bias", "trainable_token_indices": "tokens",
    "target_parameters": "experts", "layer_replication": "variant", "use_qalora": "variant",
    "alora_invocation_tokens": "variant",
    "use_bdlora": "variant", "arrow_config": "variant", "kasa_config": "variant", "monteclora_config": "variant",
    "fan_in_fan_out": "variant",
}  # fmt: skip
# Matrices that llama.cpp multiplies without adapter support (src/models/gemma4.cpp, b11549).
UNSUPPORTED = {"per_layer_model_projection"}


def refuse(adapter: Path, base: JsonObject) -> None:
    """Raise ExportError with the reason and an alternative if adapter cannot be exported. base: its config.json, as far
    as it is known."""
    if reason := why_not(files.read_object(adapter / "adapter_config.json"), names_in(adapter), base):
        raise ExportError("gguf.lora_cannot", reason=reason)


def names_in(adapter: Path) -> list[str]:
    with open_tensors(adapter / "adapter_model.safetensors", "np") as file:
        return list(file.keys())


def why_not(config: JsonObject, names: list[str], base: JsonObject) -> Message | None:
    """The reason why an adapter cannot be a LoRA in GGUF, or None."""
    for setting, reason in MORE_THAN_FACTORS.items():
        if config.get(setting):
            return msg(f"gguf.lora_{reason}", found=setting)
    if config.get("bias", "none") != "none":
        return msg("gguf.lora_bias", found="bias")
    modules = {layer_of(name).rpartition(".")[2] for name in names}
    if unsupported := sorted(modules & UNSUPPORTED):
        return msg("gguf.lora_not_asked", found=unsupported)
    if trains_tied_head(names, base):
        return msg("gguf.lora_tied_head")
    if others := sorted(name for name in names if not name.endswith((".lora_A.weight", ".lora_B.weight"))):
        return msg("gguf.lora_variant", found=others[0])
    return None


def trains_tied_head(names: list[str], base: JsonObject) -> bool:
    """Return whether the adapter has factors of an output head tied to the embedding: merging would change both."""
    tied = (base.get("text_config") or base).get("tie_word_embeddings", base.get("tie_word_embeddings"))
    return bool(tied) and any(layer_of(name).rpartition(".")[2] == "lm_head" for name in names if ".lora_" in name)
