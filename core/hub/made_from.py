"""Which model a repository was made from, as the hub's tags and its card tell: what is trained instead of a GGUF file or an adapter."""

from __future__ import annotations

from collections.abc import Iterable

from huggingface_hub.hf_api import ModelInfo

from core.hub.cached import REPO_ID

_TAG = "base_model:"


def base_of(row: ModelInfo) -> str | None:
    """Its hub id; None where nothing tells, or several are told, as of a merge."""
    card = row.card_data.get("base_model") if row.card_data else None
    tagged = [tag.rpartition(":")[2] for tag in row.tags or () if isinstance(tag, str) and tag.startswith(_TAG)]
    named = set(_texts(card)) or set(tagged)
    found = {name for name in named if name != row.id and REPO_ID.fullmatch(name)}
    return found.pop() if len(found) == len(named) == 1 else None


def _texts(value: object) -> Iterable[str]:
    return (
        [value] if isinstance(value, str) else [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
    )
