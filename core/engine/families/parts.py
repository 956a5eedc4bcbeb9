"""The parts of a model besides its text model: vision and audio towers, multi-token prediction heads. Torch.

A multimodal model is loaded with its published class, so that its weights have the names of its files. It is trained on
text only: its towers stay unchanged, get no adapter, are not quantized, and their memory is freed. Which parts of the
text model lie in RAM, or keep their 16 bits, is decided here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from core.models.shapes.matrices import ROUTERS, WITHOUT_ADAPTER

if TYPE_CHECKING:
    from transformers.models.auto.auto_factory import _BaseAutoModelClass


PER_LAYER = "embed_tokens_per_layer"
# Layers whose weights a family's forward changes in place, which is impossible for packed 4-bit weights.
_NOT_QUANTIZED = {"gemma3n_text": ("prediction_coefs", "correction_coefs")}


def auto_class(config: transformers.PreTrainedConfig) -> type[_BaseAutoModelClass]:
    """Return the Auto class to load the model with, by config.architectures: causal language models, or multimodal ones
    if the model is published as one or has no other class."""
    kinds = (
        transformers.AutoModelForCausalLM,
        transformers.AutoModelForImageTextToText,
        transformers.AutoModelForMultimodalLM,
    )
    classes = [(kind, getattr(kind._model_mapping.get(type(config), None), "__name__", "")) for kind in kinds]
    available = [kind for kind, name in classes if name]
    as_shipped = [kind for kind, name in classes if name in (config.architectures or ())]
    return next(iter((*as_shipped, *available)), kinds[0])


def text(model: transformers.PreTrainedModel) -> nn.Module:
    """Return the decoder, without the head."""
    return model.get_decoder()


def beside(model: transformers.PreTrainedModel) -> list[str]:
    """Return the names of the outermost modules with weights that belong neither to the text model nor to the output
    head (towers, prediction heads); none for a plain causal model."""
    decoder, head = text(model), model.get_output_embeddings()
    # By identity, not by name: the head may be tied to an embedding deep inside the decoder.
    used = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}

    def unused_modules(module: nn.Module, name: str) -> list[str]:
        """Return the names of the largest modules inside this one that the text model does not use."""
        if id(module) in used:
            return []
        if any(id(inner) in used for inner in module.modules()):
            return [
                one
                for child, inner in module.named_children()
                for one in unused_modules(inner, f"{name}.{child}" if name else child)
            ]
        return [name] if next(module.parameters(), None) is not None else []

    return unused_modules(model, "") if decoder is not model else []


def per_layer_embeddings(model: transformers.PreTrainedModel) -> str | None:
    """Return the name of the per-layer embedding (Gemma 3n and 4 E), which is as large as all layers together, or
    None."""
    return next((name for name, _ in model.named_modules() if name.rpartition(".")[2] == PER_LAYER), None)


def all_but(model: transformers.PreTrainedModel, left_out: str) -> list[str]:
    """Return names that cover every weight and buffer of the model except one module's.

    They are modules, as large as possible; or weights, if a module's name is a prefix of the other's (embed_tokens),
    because transformers compares prefixes.
    """

    def modules_covering(module: nn.Module, name: str) -> list[str]:
        """Return the names of the fewest modules that together are this one without left_out."""
        if name == left_out:
            return []
        if f"{left_out}.".startswith(f"{name}." if name else ""):
            within = [
                one
                for child, inner in module.named_children()
                for one in modules_covering(inner, f"{name}.{child}" if name else child)
            ]
            return [*within, *_own(module, name)]
        # "embed_tokens" would also match "embed_tokens_per_layer".
        return list(_own(module, name)) if left_out.startswith(name) else [name]

    return modules_covering(model, "")


def _own(module: nn.Module, name: str) -> Iterator[str]:
    """Yield the names in the model of a module's own weights and buffers, without its children's. name: the module's,
    "" for the model itself."""
    for own, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield f"{name}.{own}" if name else own


def places(
    kind: type[_BaseAutoModelClass], config: transformers.PreTrainedConfig, device: torch.device
) -> dict[str, torch.device]:
    """Return the device_map by module name: everything on the GPU except per-layer embeddings. On a CPU, or without
    them, it is {"": device}.

    A text needs few of their rows, and they would take much of the GPU (Gemma 4 E4B: 5.3 of 15 GiB). What a device_map
    does not name stays in RAM, without accelerate's hooks, which would copy all of it to the GPU in each forward
    (transformers itself does so for its Qwen4).
    """
    if not (device.type == "cuda" and getattr(config.get_text_config(), "hidden_size_per_layer_input", None)):
        return {"": device}
    # Without weights: only the names of the modules are needed.
    with init_empty_weights():
        model = kind.from_config(config)
    left_out = per_layer_embeddings(model)
    return dict.fromkeys(all_but(model, left_out), device) if left_out else {"": device}


def look_up_in_ram(model: transformers.PreTrainedModel) -> None:
    """Replace the forward of the per-layer embeddings by one that looks them up in RAM; only the rows that a text needs
    are copied to its device."""
    embedding = model.get_submodule(per_layer_embeddings(model))
    look_up = embedding.forward

    def forward_in_ram(ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of ids, looked up on the device of the embedding's weight and copied to the device of
        ids."""
        return look_up(ids.to(embedding.weight.device)).to(ids.device)

    embedding.forward = forward_in_ram


# Gemma 3n reads it to tell image and audio tokens.
READ_FOR_TEXT = {"gemma3n": ("embed_vision", "embed_audio")}


class Absent(nn.Module):
    """Takes the place of a removed part that is never called."""


def set_aside(model: transformers.PreTrainedModel) -> None:
    """Replace the modules that `beside` names by empty ones, which frees their memory, except those that the family
    reads for text too."""
    for name in beside(model):
        if name.rpartition(".")[2] in READ_FOR_TEXT.get(model.config.model_type, ()):
            continue
        place, _, child = name.rpartition(".")
        setattr(model.get_submodule(place), child, Absent())


def absent(model: transformers.PreTrainedModel) -> str:
    """Return a regular expression, for re.fullmatch, of the names of layers below removed parts; "" if there are
    none."""
    places = [name for name, module in model.named_modules() if isinstance(module, Absent)]
    return "|".join(rf"{re.escape(place)}\..*" for place in places)


def linear_layers(model: transformers.PreTrainedModel) -> list[str]:
    """Return the layers of all-linear: every linear layer of the text model that can have an adapter. Not the head,
    routers, experts stored as one parameter, or dense layers that peft takes for such experts because of their
    names."""
    decoder, kind = text(model), getattr(model.config, "model_type", "")
    passed_over = WITHOUT_ADAPTER.get(kind, ())
    head = model.get_output_embeddings()
    # By identity: the decoder's names lack a prefix.
    inside = {id(module) for module in decoder.modules()} - ({id(head)} if head is not None else set())
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and _is_linear(module) and name.rpartition(".")[2] not in passed_over
    ]


def routers(model: transformers.PreTrainedModel) -> list[str]:
    """Return the names of the linear layers that route tokens to experts or gate the shared one, if they have no class
    of their own."""
    names = ROUTERS.get(getattr(model.config, "model_type", ""), ())
    inside = {id(module) for module in text(model).modules()}
    return [name for name, module in model.named_modules() if id(module) in inside and name.rpartition(".")[2] in names]


def skip_modules(kind: type[_BaseAutoModelClass], config: transformers.PreTrainedConfig) -> list[str] | None:
    """Return bitsandbytes' llm_int8_skip_modules, read from the model's structure without weights: the modules that
    stay unquantized. None: transformers' own choice (the head), which it makes only if nothing is named."""
    # Nothing stands beside the text model: its structure need not be built to see that.
    if config.get_text_config() is config and config.model_type not in {*_NOT_QUANTIZED, *ROUTERS}:
        return None
    with init_empty_weights():
        return not_quantized(kind.from_config(config))


def not_quantized(model: transformers.PreTrainedModel) -> list[str]:
    """Return the modules that stay in 16 bits when the linear layers are quantized: head, towers, routers, and weights
    that a family's forward writes to."""
    named = _NOT_QUANTIZED.get(model.config.get_text_config().model_type, ())
    return [*get_keys_to_not_convert(model), *beside(model), *routers(model), *named]


def expert_parameters(model: transformers.PreTrainedModel) -> list[str]:
    """Return the names of the parameters with the text model's routed experts, all of a layer in one (experts, ., .),
    for peft's target_parameters. Parameters of two dimensions (biases) are left out."""
    inside = {id(module) for module in text(model).modules()}
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        if id(module) in inside and name.rpartition(".")[2] == "experts"
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3
    ]


def _is_linear(module: nn.Module) -> bool:
    """Return whether the module is a linear layer that adapters may take: of torch or GPT-2, no router."""
    # Conv1D is GPT-2's linear layer; the routers of Llama 4 and Phi-MoE are subclasses of nn.Linear.
    return isinstance(module, nn.Linear | Conv1D) and "router" not in type(module).__name__.lower()
