"""presets/: what comes with the project as data. The one module that knows the folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from core.errors import ModelError, RecipeError
from core.memory.documented import VramTable
from core.models.shapes import ModelShape
from core.workspace.folder import PROJECT

PRESETS = PROJECT / "presets"
SIZE = re.compile(r"\s*(\d{1,4}(?:\.\d{1,3})?)\s*([bm])\s*", re.IGNORECASE | re.ASCII)
SMALLEST, LARGEST = 50e6, 500e9


def load(name: str) -> Any:
    """presets/<name>.yaml as plain values."""
    return yaml.safe_load((PRESETS / f"{name}.yaml").read_text("utf-8"))


@dataclass(frozen=True)
class Sample:
    """presets/samples/<name>.yaml. title and description by language; adapter and train as in a recipe."""

    title: dict[str, str]
    description: dict[str, str]
    goal: str | None
    adapter: dict[str, Any]
    train: dict[str, Any]


def sample_of(dataset_id: str | None) -> Sample | None:
    """What comes along with `sample:<name>`, or None for any other data set."""
    match = re.fullmatch(r"sample:([A-Za-z0-9_-]{1,60})", dataset_id or "")
    path = match and PRESETS / "samples" / f"{match[1]}.yaml"
    if not path or not path.is_file():
        return None
    value = yaml.safe_load(path.read_text("utf-8"))
    return Sample(
        title=value.get("title", {}),
        description=value.get("description", {}),
        goal=value.get("goal"),
        adapter=value.get("adapter", {}),
        train=value.get("train", {}),
    )


@dataclass(frozen=True)
class Goal:
    """presets/goals/<id>.yaml: what a model should become better at. Sentences by language.

    suitable: whether LoRA suits it; where not, `instead` says what to do. r_floor: smallest rank to advise. sample: the
    data set that shows it. example: one row by language, as question and answer. source: section of the document.
    """

    id: str
    order: int
    title: dict[str, str]
    description: dict[str, str]
    why: dict[str, str]
    suitable: bool
    r_floor: int
    source: str
    example: dict[str, dict[str, str]]
    sample: str | None = None
    instead: dict[str, str] | None = None


@lru_cache(maxsize=1)
def goals() -> tuple[Goal, ...]:
    """All goals, in the order in which they are offered."""
    files = (PRESETS / "goals").glob("*.yaml")
    found = [Goal(id=file.stem, **yaml.safe_load(file.read_text("utf-8"))) for file in files]
    return tuple(sorted(found, key=lambda goal: goal.order))


def goal_of(goal_id: str) -> Goal:
    """Raises RecipeError that lists the goals there are."""
    for found in goals():
        if found.id == goal_id:
            return found
    raise RecipeError("advise.no_such_goal", found=goal_id[:60], goals=[known.id for known in goals()])


@lru_cache(maxsize=1)
def vram_table() -> VramTable:
    return VramTable.model_validate(load("vram_table"))


class KnownModel(BaseModel):
    """A model of presets/models.yaml. hub: what a recipe names as model.id (`starter` for the one that comes along).

    family: models of one name in several sizes. billions: parameters, as the model's own page tells.
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


@lru_cache(maxsize=1)
def known_models() -> tuple[KnownModel, ...]:
    """Models worth a first try, the starter first, then by family."""
    return tuple(KnownModel.model_validate(entry | {"shape": _shape(entry["shape"])}) for entry in _models_file()["models"])


@lru_cache(maxsize=1)
def typical_shapes() -> dict[str, ModelShape]:
    """What bare sizes such as 7B stand for."""
    known = {model.id: model.shape for model in known_models()}
    typical = _models_file()["typical"]
    return {size: known[value] if isinstance(value, str) else _shape(value) for size, value in typical.items()}


def shape_of_size(size: str) -> ModelShape:
    """A typical model of a bare size such as 7B, 1.5B or 500M; where none is of that very size, the nearest one with more or fewer
    layers. Raises ModelError for what is no size."""
    match = SIZE.fullmatch(size)
    params = float(match[1]) * (1e9 if match[2].lower() == "b" else 1e6) if match else 0.0
    if not SMALLEST <= params <= LARGEST:
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


def _models_file() -> dict[str, Any]:
    return load("models")


def _shape(value: dict[str, Any]) -> ModelShape:
    return ModelShape(**value, source="catalogue")


class Neutral(BaseModel):
    """presets/neutral.yaml: prompts and texts by language that no data set is about (core/runs/scenes)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: dict[str, tuple[str, ...]]
    texts: dict[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def neutral_prompts() -> Neutral:
    return Neutral.model_validate(load("neutral"))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LossBytes(_Part):
    """Bytes a (token, vocabulary entry), a (token, hidden value) and a (learned token, hidden value)."""

    vocabulary: float
    hidden: float
    learned: float = 0


class Stack(_Part):
    """One trainer of presets/memory.yaml, which says what each number means."""

    inputs: Literal["once", "each"]
    kept: dict[str, dict[str, float]]
    kept_4bit: dict[str, float] = {}
    moving: dict[str, float]
    loss: dict[str, LossBytes]
    final_norm: float = 0
    slack: dict[str, float]
    context_gib: float

    def loss_of(self, name: str) -> LossBytes:
        """Raises RecipeError for a loss that is not known of this trainer."""
        if name not in self.loss:
            raise RecipeError("memory.no_such_loss", found=name, expected=list(self.loss))
        return self.loss[name]


class NormAfterMlp(_Part):
    families: tuple[str, ...]
    moving: dict[str, float]


class KeptWhole(_Part):
    families: tuple[str, ...]
    widths: dict[str, float]


class CpuConstants(_Part):
    context_gib: float
    slack: float


class MemoryConstants(_Part):
    """presets/memory.yaml: the numbers of core.memory.arithmetic and the stacks that they describe."""

    version: int
    stack: str
    four_bit_bytes: dict[str, float]
    optimizer_bytes: dict[str, float]
    optimizer_states_as_wide_as_parameters: tuple[str, ...]
    workspace_gib: float
    stacks: dict[str, Stack]
    kept_besides: dict[str, dict[str, float]]
    norm_after_mlp: NormAfterMlp
    eager: dict[str, float]
    eager_families: dict[str, dict[str, float]]
    kept_whole: KeptWhole
    besides_lora: dict[str, dict[str, dict[str, float]]]
    cpu: CpuConstants
    margin: dict[str, float]


@lru_cache(maxsize=1)
def memory_constants() -> MemoryConstants:
    return MemoryConstants.model_validate(load("memory"))
