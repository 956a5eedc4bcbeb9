"""Decides by config.json alone which exports a model allows: also GGUF, or only a merged folder and its adapter. No
torch.

What llama.cpp's converter knows is data (presets/gguf.yaml), so that an unknown family is reported before a model is
downloaded. For a user's own checkout of llama.cpp its lists are parsed, not executed.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from core.files import JsonObject
from core.messages import Message, msg
from core.models.known import KnownModel
from core.presets import load

LISTS = Path("conversion") / "__init__.py"  # in a llama.cpp: the classes that its converter knows
TEXT, TOWERS = "TEXT_MODEL_MAP", "MMPROJ_MODEL_MAP"


@dataclass(frozen=True)
class ExportSupport:
    """Exports that a family allows. best: the furthest; tower: the vision or audio part is exported too, as mmproj;
    why: the reason against GGUF."""

    best: Literal["gguf", "merged"]
    tower: bool = False
    why: Message | None = None


def export_support(config: JsonObject, own_checkout: Path | None = None) -> ExportSupport:
    """Exports that a model allows. config: its config.json, or only the text part's model_type. own_checkout: a
    llama.cpp to use instead of ours."""
    family, names = str(config.get("model_type"))[:60], config.get("architectures")
    if own_checkout and isinstance(names, list) and names and (known := classes(own_checkout)):
        inner = config.get("text_config")
        text = inner.get("architectures") if isinstance(inner, dict) else None
        knows = not known[TEXT].isdisjoint((*names[:1], *(text or ())))
        return (
            ExportSupport("gguf", names[0] in known[TOWERS])
            if knows
            else ExportSupport("merged", why=msg("gguf.other_family", family=names[0]))
        )
    data = load_data()
    if {family, family.removesuffix("_text")} & data["families"]:
        return ExportSupport("gguf", family in data["towers"])
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
    data = load("gguf")
    return data | {"families": frozenset(data["families"]), "towers": frozenset(data["towers"])}


def classes(llama_cpp: Path) -> dict[str, frozenset[str]] | None:
    """Classes that a llama.cpp's converter lists, by TEXT and TOWERS; None if it has no such lists and has to
    be tried."""
    try:
        code = ast.parse((llama_cpp / LISTS).read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    maps = {
        line.target.id: frozenset(ast.literal_eval(line.value))
        for line in code.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(line.value, ast.Dict)
        if line.target.id in (TEXT, TOWERS)
    }
    return maps if len(maps) == 2 else None
