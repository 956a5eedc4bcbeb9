"""Decides by config.json alone which exports a model allows: also GGUF, or only a merged folder and its adapter. No
torch.

What llama.cpp's converter knows is data (presets/gguf.yaml), so that an unknown family is reported before a model is
downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from core.files import JsonObject
from core.messages import Message, msg
from core.models.known import KnownModel
from core.presets import load


@dataclass(frozen=True)
class ExportSupport:
    """Exports that a family allows. best: the furthest; why: the reason against GGUF."""

    best: Literal["gguf", "merged"]
    why: Message | None = None


def export_support(config: JsonObject) -> ExportSupport:
    """Return which exports a model allows, with a reason if GGUF is not among them: a family newer than this llama.cpp,
    or an unknown one. config: its config.json, or only the text part's model_type."""
    family = str(config.get("model_type"))[:60]
    data = load_data()
    # The text part of a multimodal family has a model_type of its own, such as gemma3_text.
    if {family, family.removesuffix("_text")} & data["families"]:
        return ExportSupport("gguf")
    if newer := data["newer"].get(family):
        return ExportSupport(
            "merged", why=msg("gguf.newer", family=family, llama_cpp=newer["llama_cpp"], ollama=newer["ollama"])
        )
    return ExportSupport("merged", why=msg("gguf.other_family", family=family))


def support_of_known(model: KnownModel) -> ExportSupport:
    """Exports that a model of the catalogue allows."""
    return export_support(model.config or {"model_type": model.shape.model_type})


@lru_cache(maxsize=1)
def load_data() -> JsonObject:
    """Return presets/gguf.yaml, read once, with its families as a set."""
    data = load("gguf")
    return data | {"families": frozenset(data["families"])}
