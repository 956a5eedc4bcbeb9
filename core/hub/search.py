"""Searches models on the hub in one request. Only when the user asks for it.

A search is one request of at most MOST rows, within about peek.PEEK_S. `HfApi.list_models` is not used: it has no time
limit, and retries five times on 429 or 500 with pauses, while the user waits. Its ModelInfo parses the rows.
HF_ENDPOINT, the token and offline mode apply as in every other request. Each failure is one ModelError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled
from huggingface_hub.hf_api import ModelInfo

from core.errors import ModelError
from core.files import JsonObject
from core.hub import peek
from core.hub.cached import REPO_ID
from core.hub.card import base_of, licences, texts
from core.hub.hub_errors import NotAHub, Search, endpoint_of, search_error
from core.messages import Message, msg

MOST = 50  # rows
LONGEST = 100  # characters of the search words
LARGEST_ANSWER = 4 << 20  # bytes; a row with its card is 2 to 20 kB
EXPAND = [
    "safetensors", "likes", "downloads", "gated", "tags", "cardData", "lastModified", "library_name", "pipeline_tag",
]  # fmt: skip
# Errors of a request and of parsing its answer.
FAILURES = (
    HTTPError,
    NotAHub,
    OfflineModeIsEnabled,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
)
_IMAGES = ("text-to-image", "image-to-image", "text-to-video", "unconditional-image-generation")


@dataclass(frozen=True)
class FoundModel:
    """A model as the hub describes it. None: unknown.

    params: of its safetensors, as stored. gated: its licence has to be accepted first. modified: ISO date. why_not: why
    it cannot be a base here, as far as its tags show; made_from: then the model that can, if its tags or its card name
    it.
    """

    id: str
    params: int | None = None
    likes: int | None = None
    downloads: int | None = None
    gated: bool = False
    license: str | None = None
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    modified: str | None = None
    why_not: Message | None = None
    made_from: str | None = None


def search(words: str, most: int = MOST, endpoint: str | None = None) -> list[FoundModel]:
    """Return the models that the hub finds for words, at most `most`, the most downloaded first. Raises ModelError with
    one sentence."""
    request = Search.create(words, endpoint)
    try:
        models = [_parse_row(ModelInfo(**row)) for row in rows_of("models", request.words, EXPAND, most, endpoint)]
    except FAILURES as error:
        raise search_error(as_hub_error(error), request) from None
    return [row for row in models if REPO_ID.fullmatch(row.id)]


def rows_of(kind: str, words: str, expand: Sequence[str], most: int, endpoint: str | None = None) -> list[JsonObject]:
    """Return the hub's rows, the most downloaded first. kind: models or datasets; expand: fields to include. Raises
    ModelError for invalid words or offline mode, and the errors in FAILURES."""
    if not words or len(words) > LONGEST or not words.isprintable():
        raise ModelError("hub_search.bad_words", characters=len(words), most=LONGEST)
    if constants.HF_HUB_OFFLINE:
        raise ModelError("hub_search.offline_mode")
    url = f"{endpoint_of(endpoint)}/api/{kind}?" + urlencode(
        {"search": words, "sort": "downloads", "limit": max(1, min(most, MOST)), "expand": list(expand)}, True
    )
    return list(json.loads(peek.answer_with_or_without_token(url, LARGEST_ANSWER)))


def as_hub_error(error: Exception) -> Exception:
    """Return an error of the network or the system, or a NotAHub, as it is; any other becomes a new NotAHub, because an
    answer that cannot be parsed is not from a hub."""
    return error if isinstance(error, NotAHub | OSError | HTTPError) else NotAHub()


def _parse_row(row: ModelInfo) -> FoundModel:
    """Return a row of the hub as a found model, with the reason if it cannot be trained."""
    card, tags = row.card_data, [str(tag) for tag in row.tags or []]
    tagged = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    base = base_of(row)
    why_not = _why_not(row, tags, base)
    return FoundModel(
        id=row.id,
        params=row.safetensors.total if row.safetensors else None,
        likes=row.likes,
        downloads=row.downloads,
        gated=bool(row.gated),
        license=next(iter(licences(card)), tagged),
        languages=tuple(texts(card, "language")),
        tags=tuple(tags),
        modified=row.last_modified.date().isoformat() if row.last_modified else None,
        why_not=why_not,
        made_from=base if why_not else None,
    )


def _why_not(row: ModelInfo, tags: list[str], base: str | None) -> Message | None:
    """Return the reason why a model cannot be trained, by tags alone, else None; the listing of files, which is read
    before a download, decides."""
    library = row.library_name or ""
    if library == "peft" or "adapter" in tags or any(tag.startswith("base_model:adapter:") for tag in tags):
        return msg("hub_search.adapter_of" if base else "hub_search.adapter")
    if library == "diffusers" or row.pipeline_tag in _IMAGES:
        return msg("hub_search.images", kind=row.pipeline_tag or library)
    if "gguf" in tags and row.safetensors is None:
        return msg("hub_search.only_gguf_of" if base else "hub_search.only_gguf")
    return None
