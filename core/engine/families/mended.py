"""Families of transformers 5.24 that do not do what their makers' files say, or ask for what nothing here computes with. Workers only.

Each is known by its model_type; `config` mends before a model is made of it, `model` afterwards. Never changes a file.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import transformers
from transformers import PreTrainedModel


class NoTower(PreTrainedModel):
    """Stands for Gemma 3n's eyes. transformers makes them with timm, which brings torchvision, and no text passes through them."""

    config_class = transformers.Gemma3nVisionConfig

    def __init__(self, config: Any):
        super().__init__(config)
        self.post_init()


def config(found: Any) -> Any:
    """A configuration as its family is to be made of it, changed in place."""
    text = found.get_text_config()
    if text.model_type == "lfm3":
        _turn_by_half(text)
    if found.model_type == "gemma3n":
        transformers.AutoModel.register(NoTower.config_class, NoTower, exist_ok=True)
    return found


def model(made: Any) -> Any:
    """A model whose class ends a forward in an error, calls the text with its head the decoder, or keeps what nothing asks for."""
    if made.config.model_type in ("llama4", "llama4_text"):
        made.get_decoder = MethodType(_text_alone, made)
        if hasattr(made, "language_model"):
            made.language_model.register_forward_hook(_without_pictures)
    if "reuse" not in (getattr(made.config.get_text_config(), "kv_sharing_modes", None) or ("reuse",)):
        _share_nothing(made)
    return made


def _share_nothing(made: Any) -> None:
    """Gemma 4's last layer of each kind leaves its keys and values where a drafter would look for them. Computed again for a backward, they
    hold all that they were made of until the step ends: 0.6 GiB of the 12B at 8,192 tokens, by the dry run."""
    for layer in made.modules():
        if hasattr(layer, "store_full_length_kv"):
            layer.store_full_length_kv = False


def lacks_tower(made: Any) -> bool:
    """Whether a model that is written down would not be the one that was shipped."""
    return any(isinstance(module, NoTower) for module in made.modules())


def _turn_by_half(text: Any) -> None:
    """LFM3 turns half of each head by its position, and its released config.json calls that rope_type "default" with a
    partial_rotary_factor, which transformers 5.24 does not read: it turns all of it, and says nothing. The type that reads it is
    "proportional", which transformers' own default for LFM3 names."""
    for how in (getattr(text, "rope_parameters", None) or {}).values():
        if isinstance(how, dict) and how.get("rope_type") == "default" and how.get("partial_rotary_factor", 1.0) != 1.0:
            how["rope_type"] = "proportional"


def _text_alone(made: Any) -> Any:
    return getattr(made, "language_model", made).model


def _without_pictures(text: Any, given: Any, output: Any) -> Any:
    """Llama4ForConditionalGeneration asks what its text part answers for `image_outputs`, which it never has."""
    output.image_outputs = None
    return output
