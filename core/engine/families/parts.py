"""Which parts a model has beside those that read and write text: towers for pictures and sound, heads that guess ahead. Torch.

A model that also sees is loaded as its makers ship it, so that its weights have the names of its files. Nobody here shows it
a picture: its towers stay as they are, get no adapter and no 4 bit, and give their memory back. What of the text part lies in RAM, or
keeps its 16 bits, is here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
import transformers
from accelerate import init_empty_weights
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert

from core.models.shapes.matrices import ROUTERS, WITHOUT_ADAPTER

PER_LAYER = "embed_tokens_per_layer"
# Layers whose weights a family changes in place in its forward, which packed bytes do not bear.
_NOT_QUANTISED = {"gemma3n_text": ("prediction_coefs", "correction_coefs")}


def auto_class(config: Any) -> Any:
    """The class of transformers that makes what config.architectures names: causal language models, and those that also see or hear,
    where that is how they are shipped or the only way to have them."""
    kinds = (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText, transformers.AutoModelForMultimodalLM)
    made = [(kind, _name(kind._model_mapping.get(type(config), None))) for kind in kinds]
    there = [kind for kind, name in made if name]
    as_shipped = [kind for kind, name in made if name in (config.architectures or ())]
    return next(iter((*as_shipped, *there)), kinds[0])


def _name(found: Any) -> str:
    return "" if found is None else str(getattr(found, "__name__", ""))


def text(model: Any) -> nn.Module:
    """The decoder, without the head."""
    return model.get_decoder()


def beside(model: Any) -> list[str]:
    """Names of the largest modules with weights that text does not pass through; none for a plain causal model."""
    decoder, head = text(model), model.get_output_embeddings()
    used = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}

    def found(module: nn.Module, name: str) -> list[str]:
        if id(module) in used:
            return []
        if any(id(inner) in used for inner in module.modules()):
            return [one for child, inner in module.named_children() for one in found(inner, f"{name}.{child}" if name else child)]
        return [name] if next(module.parameters(), None) is not None else []

    return found(model, "") if decoder is not model else []


def per_layer_embeddings(model: Any) -> str | None:
    """The name of the embedding that gives each layer a row of its own (Gemma 3n and 4 E), which is as large as all layers together."""
    return next((name for name, _ in model.named_modules() if name.rpartition(".")[2] == PER_LAYER), None)


def all_but(model: Any, left_out: str) -> list[str]:
    """Names that cover every weight and buffer of the model but those of one module: modules, as large as can be, and weights where a
    module's name is how the other's begins (embed_tokens), which transformers, that compares beginnings, would take for it too."""

    def found(module: nn.Module, name: str) -> list[str]:
        if name == left_out:
            return []
        if f"{left_out}.".startswith(f"{name}." if name else ""):
            within = [one for child, inner in module.named_children() for one in found(inner, f"{name}.{child}" if name else child)]
            return [*within, *_own(module, name)]
        return list(_own(module, name)) if left_out.startswith(name) else [name]

    return found(model, "")


def _own(module: nn.Module, name: str) -> Iterator[str]:
    for own, _ in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        yield f"{name}.{own}" if name else own


def places(kind: Any, config: Any, device: torch.device) -> dict[str, torch.device]:
    """Where transformers is to put what. On a card all but an embedding in every layer, of which a text needs a few rows and which
    would take half of the card (Gemma 4 E4B: 5.3 of 15 GiB); what a device_map does not name stays in RAM, without accelerate's hooks,
    which would bring all of it to the card at each forward (so transformers does itself with its Qwen4's)."""
    if not (device.type == "cuda" and getattr(config.get_text_config(), "hidden_size_per_layer_input", None)):
        return {"": device}
    with init_empty_weights():
        model = kind.from_config(config)
    left_out = per_layer_embeddings(model)
    return dict.fromkeys(all_but(model, left_out), device) if left_out else {"": device}


def look_up_in_ram(model: Any) -> None:
    """Let the embedding in every layer be looked up where it lies; only the rows of a text travel to where the text is."""
    embedding = model.get_submodule(per_layer_embeddings(model))
    look_up = embedding.forward

    def forward(ids: torch.Tensor) -> torch.Tensor:
        return look_up(ids.to(embedding.weight.device)).to(ids.device)

    embedding.forward = forward


# Gemma 3n looks there whether a token is one of a picture or a sound.
ASKED_FOR_TEXT = {"gemma3n": ("embed_vision", "embed_audio")}


class Absent(nn.Module):
    """Stands where a part was that nothing is asked of."""


def set_aside(model: Any) -> None:
    """Let go of what `beside` names, and of its memory."""
    for name in beside(model):
        if name.rpartition(".")[2] in ASKED_FOR_TEXT.get(model.config.model_type, ()):
            continue
        place, _, child = name.rpartition(".")
        setattr(model.get_submodule(place), child, Absent())


def absent(model: Any) -> str:
    """A regular expression for names of layers in what was set aside; of no name where nothing was."""
    places = [name for name, module in model.named_modules() if isinstance(module, Absent)]
    return "|".join(rf"{re.escape(place)}\..*" for place in places)


def linear_layers(model: Any) -> list[str]:
    """Names of the layers that all-linear means: every linear layer of the text part that can have an adapter. Not the head; not a
    router; not experts that are one parameter, nor, where peft takes a dense layer of this family for such
    experts by its name, that one."""
    decoder, kind = text(model), getattr(model.config, "model_type", "")
    passed_over = WITHOUT_ADAPTER.get(kind, ())
    head = model.get_output_embeddings()
    inside = {id(module) for module in decoder.modules()} - ({id(head)} if head is not None else set())
    return [
        name
        for name, module in model.named_modules()
        if id(module) in inside and _is_linear(module) and name.rpartition(".")[2] not in passed_over
    ]


def routers(model: Any) -> list[str]:
    """Names of the linear layers that choose experts or weigh the shared one, of those that are no class of their own."""
    names = ROUTERS.get(getattr(model.config, "model_type", ""), ())
    inside = {id(module) for module in text(model).modules()}
    return [name for name, module in model.named_modules() if id(module) in inside and name.rpartition(".")[2] in names]


def skipped(kind: Any, config: Any) -> list[str] | None:
    """What bitsandbytes is told to leave out; None: what transformers leaves out itself (the head), which it does only where nothing is named."""
    if config.get_text_config() is config and config.model_type not in {*_NOT_QUANTISED, *ROUTERS}:
        return None
    with init_empty_weights():
        return not_quantised(kind.from_config(config))


def not_quantised(model: Any) -> list[str]:
    """Names of what stays in 16 bit where the linear layers do not: the head, towers, routers, and what a family's forward writes into."""
    named = _NOT_QUANTISED.get(model.config.get_text_config().model_type, ())
    return [*get_keys_to_not_convert(model), *beside(model), *routers(model), *named]


def expert_parameters(model: Any) -> list[str]:
    """Names of the parameters that hold the routed experts of the text part, all of a layer in one (experts, ., .): what peft's
    target_parameters reach. Of a parameter of two dimensions, as biases are, nothing."""
    inside = {id(module) for module in text(model).modules()}
    return [
        f"{name}.{own}"
        for name, module in model.named_modules()
        if id(module) in inside and name.rpartition(".")[2] == "experts"
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3
    ]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D) and "router" not in type(module).__name__.lower()
