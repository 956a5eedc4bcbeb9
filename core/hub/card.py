"""Values of a repository's card and tags. Anybody can write them: a value in an unexpected form is ignored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import yaml
from huggingface_hub.hf_api import ModelInfo

from core.files import JsonObject
from core.hub.cached import REPO_ID
from core.messages import YAML_ERRORS

if TYPE_CHECKING:
    from huggingface_hub import RepoCardData


_TAG = "base_model:"


def front_matter(card: str) -> JsonObject:
    """Return the YAML between the first two lines of three dashes of a card; {} without any, or if it is no mapping."""
    parts = re.split(r"^---\s*$", card, maxsplit=2, flags=re.MULTILINE)
    if len(parts) < 3 or parts[0].strip():
        return {}
    try:
        settings = yaml.safe_load(parts[1])
    except YAML_ERRORS:
        return {}
    return settings if isinstance(settings, dict) else {}


def texts(card: RepoCardData | None, key: str) -> list[str]:
    """Return the strings of a field of the card, which may hold one string or a list; anything else is skipped."""
    value = card.get(key) if card else None
    return (
        [value]
        if isinstance(value, str)
        else [each for each in value if isinstance(each, str)]
        if isinstance(value, list)
        else []
    )


def licences(card: RepoCardData | None) -> list[str]:
    """Licences as the card names them: "apache-2.0", or the name of a custom one."""
    return texts(card, "license_name") or texts(card, "license")


def base_of(row: ModelInfo) -> str | None:
    """Return the hub id of the model that this one was made from, to train instead of a GGUF file or an adapter. None
    if nothing names it, or several are named, as for a merge."""
    tagged = [tag.rpartition(":")[2] for tag in row.tags or [] if isinstance(tag, str) and tag.startswith(_TAG)]
    named = set(texts(row.card_data, "base_model")) or set(tagged)
    candidates = {name for name in named if name != row.id and REPO_ID.fullmatch(name)}
    return candidates.pop() if len(candidates) == len(named) == 1 else None
