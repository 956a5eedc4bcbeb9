"""What a hub says of one model: its commit, month, gate, licence, languages, parameters. One request, kept nowhere."""

from __future__ import annotations

import json
from dataclasses import dataclass

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.hf_api import ModelInfo

from core.errors import ModelError
from core.hub import peek
from core.hub.answers import HubRequest, NotAHub, sentence
from core.hub.cached import REPO_ID, cache_folder


@dataclass(frozen=True)
class Told:
    """None: the hub does not say. created: the month, 2026-02. licence: as its card names it, "apache-2.0" or a licence_name.
    params: of its safetensors, as the hub counts them."""

    id: str
    commit: str | None = None
    created: str | None = None
    gated: bool = False
    licence: str | None = None
    languages: tuple[str, ...] = ()
    params: int | None = None


def told(repo_id: str, endpoint: str | None = None) -> Told:
    """Within about peek.TIMEOUT_S. Raises ModelError with the sentences of a download."""
    if not REPO_ID.fullmatch(repo_id):
        raise ModelError("hub.bad_id", found=repo_id[:100])
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    url = f"{endpoint}/api/models/{repo_id}"
    asked = HubRequest(repo_id, endpoint, constants.DEFAULT_REVISION, cache_folder(None))
    try:
        row = ModelInfo(**json.loads(peek.answer_with_or_without_token(url, peek.SMALL_FILE)))
    except (NotAHub, HTTPError, OSError) as error:
        raise sentence(error, asked) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not JSON, or JSON of another kind
        raise sentence(NotAHub(), asked) from None
    card = row.card_data
    licence = (card.get("license_name") or card.get("license")) if card else None
    languages = card.get("language") if card else None
    return Told(
        id=row.id,
        commit=row.sha,
        created=f"{row.created_at:%Y-%m}" if row.created_at else None,
        gated=bool(row.gated),
        licence=licence if isinstance(licence, str) else None,
        languages=tuple(each for each in ([languages] if isinstance(languages, str) else languages or ()) if isinstance(each, str)),
        params=row.safetensors.total if row.safetensors else None,
    )
