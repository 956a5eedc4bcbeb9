"""The models that the catalogue knows, with their shapes: presets/models.yaml."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from core.errors import ModelError
from core.models.shapes import Held, ModelShape
from core.presets import load

SIZE = re.compile(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*([bm])\s*", re.IGNORECASE | re.ASCII)
SMALLEST, LARGEST = 50e6, 500e9


class KnownModel(BaseModel):
    """A model of presets/models.yaml. hub: what a recipe names as model.id (`starter` for the one that comes along).

    family: models of one name in several sizes. billions: parameters, as the model's own page tells. config: as much of its
    config.json as its class needs, where its size does not follow from widths alone.
    gated: the hub gives it only to people who accepted its licence. note: by language, empty where there is nothing to say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    hub: str
    title: str
    family: str
    billions: float
    licence: str
    gated: bool
    languages: tuple[str, ...]
    note: dict[str, str] = {}
    shape: ModelShape
    config: dict[str, Any] | None = None


@lru_cache(maxsize=1)
def known_models() -> tuple[KnownModel, ...]:
    """Models worth a first try, the starter first, then by family."""
    return tuple(KnownModel.model_validate(_with_shape(dict(entry))) for entry in load("models")["models"])


@lru_cache(maxsize=1)
def typical_shapes() -> dict[str, ModelShape]:
    """What bare sizes such as 7B stand for."""
    known = {model.id: model.shape for model in known_models()}
    typical = load("models")["typical"]
    return {size: known[value] if isinstance(value, str) else _shape(value) for size, value in typical.items()}


def shape_of_size(size: str) -> ModelShape:
    """A typical model of a bare size such as 7B, 1.5B or 500M; where none is of that very size, the nearest one with more or fewer
    layers. Raises ModelError for what is no size."""
    match = SIZE.fullmatch(size)
    params = float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6) if match else 0.0
    if match is None or not SMALLEST <= params <= LARGEST:
        raise ModelError("shape.bad_size", found=size[:60])
    typical = typical_shapes()
    name = f"{match[1]}{match[2].upper()}"
    shape = typical.get(name)
    if shape is None:
        name = min(typical, key=lambda size: abs(params / typical[size].params - 1) / max(1, params / typical[size].params))
        nearest = typical[name]
        outside = nearest.embedding_params + nearest.head_params
        a_layer = (nearest.params - outside) / nearest.num_hidden_layers
        shape = nearest.model_copy(update={"num_hidden_layers": max(1, round((params - outside) / a_layer))})
    return shape.model_copy(update={"source": "size", "stands_for": f"{name} ({shape.describe()})"})


def _with_shape(entry: dict[str, Any]) -> dict[str, Any]:
    held = entry.pop("held", None)
    if held is None:
        return entry | {"shape": _shape(entry["shape"])}
    shape = ModelShape.from_config(entry["config"]).with_held(Held(**held))
    return entry | {"shape": shape.model_copy(update={"source": "catalogue"})}


def _shape(value: dict[str, Any]) -> ModelShape:
    return ModelShape(**value, source="catalogue")
