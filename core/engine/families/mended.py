"""Fixes for families that transformers 5.24 computes differently from their authors, or that need parts unused here.
Workers only.

Each is recognized by its model_type; `config` applies before the model is created, `model` afterwards. Never changes a
file.
"""

from __future__ import annotations

from types import MethodType

import transformers
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class NoTower(PreTrainedModel):
    """Replaces Gemma 3n's vision tower. transformers builds it with timm, which requires torchvision, and no text
    passes through it."""

    config_class = transformers.Gemma3nVisionConfig

    def __init__(self, config: PreTrainedConfig):
        super().__init__(config)
        self.post_init()


def config(loaded: PreTrainedConfig) -> PreTrainedConfig:
    """Fix a configuration in place before the model is created, and return it: LFM3's rotary type; for Gemma 3n an
    empty module takes the place of its vision tower."""
    text = loaded.get_text_config()
    if text.model_type == "lfm3":
        _fix_lfm3_rotary(text)
    if loaded.model_type == "gemma3n":
        transformers.AutoModel.register(NoTower.config_class, NoTower, exist_ok=True)
    return loaded


def model(loaded: PreTrainedModel) -> PreTrainedModel:
    """Change a loaded model in place where its class has a fault, and return it: Llama 4's decoder, which is its text
    model with the head, and Gemma 4's layers, which would keep unused keys and values."""
    if loaded.config.model_type in ("llama4", "llama4_text"):
        loaded.get_decoder = MethodType(_text_model, loaded)
        if hasattr(loaded, "language_model"):
            loaded.language_model.register_forward_hook(_without_image_outputs)
    if "reuse" not in (getattr(loaded.config.get_text_config(), "kv_sharing_modes", None) or ("reuse",)):
        # Gemma 4's last layer of each kind stores its keys and values for a draft model. Recomputed for a backward,
        # they keep their whole graph until the step ends: 0.6 GiB of the 12B at 8,192 tokens, by the dry run.
        for layer in loaded.modules():
            if hasattr(layer, "store_full_length_kv"):
                layer.store_full_length_kv = False
    return loaded


def lacks_vision_tower(loaded: PreTrainedModel) -> bool:
    """Return whether an empty module stands for Gemma 3n's vision tower, so that saving the model would lose that
    tower. Towers that core/engine/families/parts removed do not count."""
    return any(isinstance(module, NoTower) for module in loaded.modules())


def _fix_lfm3_rotary(text: PreTrainedConfig) -> None:
    """LFM3 rotates half of each head. Its released config.json says so by rope_type "default" with a
    partial_rotary_factor, which transformers 5.24 ignores: it rotates the whole head, without an error. The type that
    uses the factor is "proportional", transformers' own default for LFM3."""
    for how in (getattr(text, "rope_parameters", None) or {}).values():
        if isinstance(how, dict) and how.get("rope_type") == "default" and how.get("partial_rotary_factor", 1.0) != 1.0:
            how["rope_type"] = "proportional"


def _text_model(loaded: PreTrainedModel) -> PreTrainedModel:
    """Return Llama 4's text model without the head; it replaces the get_decoder of a loaded model."""
    return getattr(loaded, "language_model", loaded).model


def _without_image_outputs(text: PreTrainedModel, given: tuple[object, ...], output: ModelOutput) -> ModelOutput:
    """Set image_outputs of a text model's output to None and return the output, as a forward hook.

    Llama4ForConditionalGeneration reads that field, which its text model never sets.
    """
    output.image_outputs = None
    return output
