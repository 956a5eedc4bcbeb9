"""Facts about one hub model: its commit, month, gate, licence, languages, parameters. One request, not stored."""

from __future__ import annotations

import json
from dataclasses import dataclass

from huggingface_hub.errors import HTTPError
from huggingface_hub.hf_api import ModelInfo

from core.hub import peek
from core.hub.card import licences, texts
from core.hub.hub_errors import HubRequest, NotAHub, hub_error


@dataclass(frozen=True)
class HubFacts:
    """The facts; None: unknown to the hub. created: the month, 2026-02. licence: as its card names it, "apache-2.0" or
    a licence_name. params: of its safetensors, as the hub counts them."""

    id: str
    commit: str | None = None
    created: str | None = None
    gated: bool = False
    licence: str | None = None
    languages: tuple[str, ...] = ()
    params: int | None = None


def facts(repo_id: str) -> HubFacts:
    """Read the facts within about peek.PEEK_S. Raises ModelError with the messages of a download."""
    request = HubRequest.create(repo_id, None, None)
    try:
        row = ModelInfo(
            **json.loads(peek.answer_with_or_without_token(f"{request.endpoint}/api/models/{repo_id}", peek.SMALL_FILE))
        )
    except (NotAHub, HTTPError, OSError) as error:
        raise hub_error(error, request) from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not JSON, or JSON of another kind
        raise hub_error(NotAHub(), request) from None
    card = row.card_data
    return HubFacts(
        id=row.id,
        commit=row.sha,
        created=f"{row.created_at:%Y-%m}" if row.created_at else None,
        gated=bool(row.gated),
        licence=next(iter(licences(card)), None),
        languages=tuple(texts(card, "language")),
        params=row.safetensors.total if row.safetensors else None,
    )
