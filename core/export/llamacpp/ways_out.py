"""Which exports a model allows, by its config.json alone: also GGUF, or only a merged folder and its adapter. No torch.

What llama.cpp's converter knows is data (presets/gguf.yaml), so that a family which it does not know is told before a
model is downloaded, let alone merged. A person's own checkout of llama.cpp is asked itself: its lists are read, not
run.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from core.messages import Message, msg
from core.models.known import KnownModel
from core.presets import load

LISTS = Path("conversion") / "__init__.py"  # of a llama.cpp: the classes that its converter knows
TEXT, TOWERS = "TEXT_MODEL_MAP", "MMPROJ_MODEL_MAP"


@dataclass(frozen=True)
class FamilyWayOut:
    """best: the furthest way. tower: whether what it sees or hears by leaves with a GGUF file, as mmproj. why: why
    there is no GGUF."""

    best: Literal["gguf", "merged"]
    tower: bool = False
    why: Message | None = None


def way_out(config: Mapping[str, Any], own_checkout: Path | None = None) -> FamilyWayOut:
    """config: of config.json; a text part's own model_type will do. own_checkout: a llama.cpp that is used in place of
    ours."""
    family, names = str(config.get("model_type"))[:60], config.get("architectures")
    if own_checkout and isinstance(names, list) and names and (there := classes(own_checkout)):
        inner = config.get("text_config")
        text = inner.get("architectures") if isinstance(inner, dict) else None
        knows = not there[TEXT].isdisjoint((*names[:1], *(text or ())))
        return (
            FamilyWayOut("gguf", names[0] in there[TOWERS])
            if knows
            else FamilyWayOut("merged", why=msg("gguf.other_family", family=names[0]))
        )
    data = load_data()
    if {family, family.removesuffix("_text")} & data["families"]:
        return FamilyWayOut("gguf", family in data["towers"])
    if newer := data["newer"].get(family):
        return FamilyWayOut(
            "merged", why=msg("gguf.newer", family=family, llama_cpp=newer["llama_cpp"], ollama=newer["ollama"])
        )
    return FamilyWayOut("merged", why=msg("gguf.other_family", family=family))


def way_of(model: KnownModel) -> FamilyWayOut:
    """Of a model of the catalogue."""
    return way_out(model.config or {"model_type": model.shape.model_type})


@lru_cache(maxsize=1)
def load_data() -> dict[str, Any]:
    found = load("gguf")
    return found | {"families": frozenset(found["families"]), "towers": frozenset(found["towers"])}


def classes(llama_cpp: Path) -> dict[str, frozenset[str]] | None:
    """What a llama.cpp's converter says that it knows, by TEXT and TOWERS; None where it keeps no such lists: then it
    has to be tried."""
    try:
        code = ast.parse((llama_cpp / LISTS).read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    found = {
        line.target.id: frozenset(ast.literal_eval(line.value))
        for line in code.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(line.value, ast.Dict)
        if line.target.id in (TEXT, TOWERS)
    }
    return found if len(found) == 2 else None
