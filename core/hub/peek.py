"""Reads small files of a hub model over the network before a download: config.json, the start of its weights."""

from __future__ import annotations

import json
import time
from pathlib import Path

from huggingface_hub import get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RemoteEntryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from core import files
from core.errors import ModelError
from core.files import JsonObject
from core.hub import listing
from core.hub.cached import cached_folder
from core.hub.hub_errors import HubRequest, NotAHub, TooSlow, endpoint_of, host_of, hub_error

SMALL_FILE = 1 << 20  # bytes; limit for a config.json
PEEK_S = 8.0


def fetch_config(
    repo_id: str, revision: str | None = None, endpoint: str | None = None, cache_dir: str | Path | None = None
) -> JsonObject:
    """Return the content of config.json: from the cache, else over the network within about PEEK_S. It is not stored.
    Raises ModelError with the sentences of `fetch`."""
    cached = cached_folder(repo_id, revision, cache_dir)
    if cached and (config := files.read_object(cached / "config.json")):
        return config
    try:
        content = fetch_start(repo_id, "config.json", revision, endpoint)
    except ModelError as error:
        if error.message.key == "hub.no_config":
            _refuse_unusable(repo_id, revision, endpoint)  # with a message that names what it has instead
        raise
    try:
        config = json.loads(content)
        if not isinstance(config, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise ModelError("hub.not_a_hub", repo=repo_id, host=host_of(endpoint_of(endpoint))) from None
    return config


def fetch_start(
    repo_id: str, name: str, revision: str | None = None, endpoint: str | None = None, first: int | None = None
) -> bytes:
    """Return a small file of a repository, or with `first` its first bytes only, within about PEEK_S. Nothing is
    stored.

    Without `first` the file may have at most SMALL_FILE bytes; a larger answer counts as that of no hub. Raises
    ModelError with the sentences of `fetch`; hub.no_config for a file that the repository lacks.
    """
    request = HubRequest.create(repo_id, revision, endpoint)
    url = hf_hub_url(repo_id, name, revision=request.revision, endpoint=request.endpoint)
    try:
        return answer_with_or_without_token(url, SMALL_FILE, first)
    except RemoteEntryNotFoundError:
        raise ModelError("hub.no_config", repo=repo_id) from None
    except (NotAHub, HTTPError, OSError) as error:
        raise hub_error(error, request) from None


def _refuse_unusable(repo_id: str, revision: str | None, endpoint: str | None) -> None:
    """Raise ModelError if the repository's listing is available and shows no model that could be trained."""
    request = HubRequest.create(repo_id, revision, endpoint)
    try:
        repository = listing.fetch_listing(repo_id, request.revision, request.endpoint)
    except (NotAHub, HTTPError, OSError):
        return
    repository.refuse_unusable()


def answer_with_or_without_token(url: str, most: int, first: int | None = None) -> bytes:
    """Return the result of small_answer, which describes the arguments; if the token is refused, retry without it: an
    expired one is refused even for open repositories."""
    try:
        return small_answer(url, None, first, most)
    except HfHubHTTPError as error:
        if error.response.status_code != 401 or not get_token():
            raise
        return small_answer(url, False, first, most)


def small_answer(url: str, token: bool | None, first: int | None = None, most: int = SMALL_FILE) -> bytes:
    """Return the bytes at url, or its first ones (first: how many). Raises NotAHub for more than `most`, TooSlow if
    they do not arrive in PEEK_S, HTTPError. token: None for the one that huggingface_hub finds, False for none."""
    end = time.monotonic() + PEEK_S
    content = bytearray()
    headers = build_hf_headers(token=token) | ({"Range": f"bytes=0-{first - 1}"} if first else {})
    try:
        with get_session().stream("GET", url, headers=headers, timeout=PEEK_S) as response:
            hf_raise_for_status(response)
            for chunk in response.iter_bytes(chunk_size=16 << 10):
                content += chunk
                if first and len(content) >= first:
                    return bytes(content[:first])
                if len(content) > most:
                    raise NotAHub
                if time.monotonic() > end:
                    raise TooSlow("")
    except HfHubHTTPError:
        raise
    except HTTPError as error:
        raise (TooSlow("") if time.monotonic() >= end else error) from None
    return bytes(content)
