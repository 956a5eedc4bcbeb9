"""The models of the catalogue, with their shapes: presets/models.yaml."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Field

from core.errors import ModelError
from core.files import JsonObject
from core.models.shapes.shape import Held, ModelShape
from core.presets import load
from core.values import Strict

SIZE = re.compile(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*([bm])\s*", re.IGNORECASE | re.ASCII)
SMALLEST, LARGEST = 50e6, 500e9


Commercial = Literal["allowed", "limited", "forbidden"]
Thinking = Literal["never", "optional", "always"]
# The hub's tags of licences, except for SPDX names in lower case.
LICENCES = {
    "gemma": "Gemma Terms of Use", "lfm1.0": "LFM Open License v1.0", "llama2": "Llama 2 Community License",
    "llama3": "Llama 3 Community License", "llama3.1": "Llama 3.1 Community License",
    "llama3.2": "Llama 3.2 Community License",
    "llama3.3": "Llama 3.3 Community License", "qwen": "Qwen License", "qwen-research": "Qwen Research License",
    "mrl": "Mistral Research License", "falcon-llm-license": "Falcon LLM License 2.0",
    "exaone": "EXAONE AI Model License 1.2 NC",
    "nvidia-open-model-license": "NVIDIA Open Model License", "tencent-hunyuan-community": ("Tencent Hunyuan Community "
                                                                                            "License"),
}  # fmt: skip


class KnownModel(Strict):
    """A model of presets/models.yaml.

    hub: the model.id of recipes (`starter` for the bundled one). family: models of one name in several sizes. billions:
    parameters of its text part, by the model's own page. in_files: parameters in all of its weight files as the hub
    counts them, None if unlisted. beside: why that exceeds its text part: its files repeat the tied head, or hold
    towers (pictures, sound, tokens predicted ahead). released: the month, 2026-02. commercial: whether products made
    from it may be sold; limited by revenue, users, country or use as its licence says. gated: the hub requires
    accepting its licence. languages: codes, as its makers name them. thinking: before it answers. tools: whether its
    template calls them; each None if undocumented. flags: source of those two. note: by language, why to choose it.
    source: of its shape. config: the part of its config.json that its class needs, if its size does not follow from
    widths alone.
    """

    id: str
    hub: str
    title: str
    family: str
    billions: float
    in_files: int | None = None
    beside: Literal["head", "towers"] | None = None
    released: Annotated[str, Field(pattern=r"^20\d\d-(0[1-9]|1[0-2])$")]
    licence: str
    commercial: Commercial
    gated: bool
    languages: tuple[str, ...]
    thinking: Thinking | None = None
    tools: bool | None = None
    flags: str | None = None
    note: dict[str, str]
    source: str
    shape: ModelShape
    config: JsonObject | None = None


@lru_cache(maxsize=1)
def known_models() -> tuple[KnownModel, ...]:
    """Return the catalogue in its order: the starter, then by popularity, then models that have a successor."""
    content = load("models")
    return tuple(model_of(dict(entry), content["spoken"]) for entry in content["models"])


def with_hub_id(hub: str) -> KnownModel | None:
    """Return the known model with this id on the hub; None for another."""
    return next((model for model in known_models() if model.hub == hub), None)


@lru_cache(maxsize=1)
def typical_shapes() -> dict[str, ModelShape]:
    """Return the shapes that bare sizes such as 7B stand for."""
    known = {model.id: model.shape for model in known_models()}
    typical = load("models")["typical"]
    return {size: known[value] if isinstance(value, str) else _shape(value) for size, value in typical.items()}


def shape_of_size(size: str) -> ModelShape:
    """Return a typical model of a bare size such as 7B, 1.5B or 500M. Raises ModelError if it is not a size.

    For an unlisted size it is the nearest listed one with more or fewer layers; `stands_for` names it.
    """
    match = SIZE.fullmatch(size)
    params = float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6) if match else 0.0
    if match is None or not SMALLEST <= params <= LARGEST:
        raise ModelError("shape.bad_size", found=size[:60])
    typical = typical_shapes()
    name = f"{match[1]}{match[2].upper()}"
    shape = typical.get(name)
    if shape is None:
        name = min(
            typical, key=lambda size: abs(params / typical[size].params - 1) / max(1, params / typical[size].params)
        )
        nearest = typical[name]
        outside = nearest.embedding_params + nearest.head_params
        a_layer = (nearest.params - outside) / nearest.num_hidden_layers
        shape = nearest.model_copy(update={"num_hidden_layers": max(1, round((params - outside) / a_layer))})
    return shape.model_copy(update={"source": "size", "stands_for": f"{name} ({shape.describe()})"})


def model_of(entry: JsonObject, spoken: dict[str, list[str]]) -> KnownModel:
    """Return an entry of presets/models.yaml as a KnownModel. spoken: the file's lists of language codes by name; an
    entry's `languages` is such a name or a list of its own. Raises pydantic's ValidationError for wrong fields."""
    languages = entry["languages"]
    return KnownModel.model_validate(
        _with_shape(entry) | {"languages": spoken[languages] if isinstance(languages, str) else languages}
    )


def _with_shape(entry: JsonObject) -> JsonObject:
    """Return an entry with its ModelShape: from its widths, or from its config and the counts in `held`, which is
    removed from the argument."""
    held = entry.pop("held", None)
    if held is None:
        return entry | {"shape": _shape(entry["shape"])}
    shape = ModelShape.from_config(entry["config"]).with_held(Held(**held))
    return entry | {"shape": shape.model_copy(update={"source": "catalogue"})}


def _shape(value: JsonObject) -> ModelShape:
    """Return the ModelShape of these fields, with "catalogue" as its source. Raises pydantic's ValidationError for
    wrong fields."""
    return ModelShape(**value, source="catalogue")
