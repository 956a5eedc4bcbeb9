"""Turns each error of a hub into one sentence: what happened, and what to try."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from core.errors import ModelError
from core.hub.cached import REPO_ID, REVISION, cache_folder
from core.messages import Message, msg

PAGE = re.compile(r"https?://[^/\s]+/(?:datasets/)?([^/\s]+/[^/\s?#]+)\S*")  # a copied address of a repository


def page(repo_id: str) -> str:
    """Return the address of a model's page on the Hub in use."""
    return f"{endpoint_of()}/{repo_id}"


class NotAHub(Exception):
    """Something other than a hub answered: a sign-in page, a proxy."""


class TooSlow(HTTPError):
    """A small file did not arrive within the time limit."""


class Interrupted(Exception):
    """The transfer broke off, and several retries brought no further bytes."""


# --- texts
def format_size(size: float) -> Message:
    """Format a size in decimal units, as disks and the hub's pages do: "2.3 GB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return msg("hub.size", value=size / unit, unit=name)
    return msg("hub.bytes", value=round(size))


def endpoint_of(endpoint: str | None = None) -> str:
    """Return the Hub's address, the usual one for None, without a slash at its end."""
    return (endpoint or constants.ENDPOINT).rstrip("/")


def host_of(endpoint: str) -> str:
    """Return the host of an address, with its port and without user and password."""
    return urlsplit(endpoint).netloc.rpartition("@")[2]


@dataclass(frozen=True)
class HubRequest:
    """A request to a hub and its progress. folder: of the cache. done, total: bytes. pages: path prefix of such
    repositories' pages."""

    repo: str
    endpoint: str
    revision: str
    folder: Path
    done: float = 0
    total: float = 0
    pages: str = ""  # "datasets/"

    @classmethod
    def create(cls, repo: str, revision: str | None = None, endpoint: str | None = None, pages: str = "") -> HubRequest:
        """Return a request with defaults filled in. Raises ModelError for an invalid name or revision."""
        revision = revision or constants.DEFAULT_REVISION
        if not REPO_ID.fullmatch(repo):
            raise ModelError("hub.bad_id", found=repo[:100])
        if not REVISION.fullmatch(revision):
            raise ModelError("hub.bad_revision", repo=repo, revision=revision[:100])
        return cls(repo, endpoint_of(endpoint), revision, cache_folder(None), pages=pages)


def hub_error(error: Exception, request: HubRequest) -> ModelError:
    """Return the ModelError that tells an error in one sentence, with this app's own names and numbers, without text of
    a server or a library."""
    repo, host = request.repo, host_of(request.endpoint)
    page = f"{urlsplit(request.endpoint).scheme}://{host}/{request.pages}{repo}"
    match error:
        case NotAHub():
            return ModelError("hub.not_a_hub", repo=repo, host=host)
        case Interrupted():
            done, total = format_size(request.done), format_size(request.total)
            return ModelError("hub.interrupted", repo=repo, host=host, done=done, total=total)
        case GatedRepoError():
            return ModelError("hub.gated_token" if get_token() else "hub.gated", repo=repo, page=page)
        case RepositoryNotFoundError():
            return ModelError("hub.missing", repo=repo, host=host)
        case RevisionNotFoundError():
            return ModelError("hub.no_revision", repo=repo, revision=request.revision)
        case DisabledRepoError():
            return ModelError("hub.disabled", repo=repo, page=page)
        case HfHubHTTPError():
            return _status_sentence(error, repo, host, page)
        case OfflineModeIsEnabled():
            return ModelError("hub.offline_mode", repo=repo)
        case HTTPError():
            return ModelError("hub.no_network", repo=repo, host=host)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            done, total = format_size(request.done), format_size(request.total)
            return ModelError("hub.disk_full_midway", repo=repo, done=done, total=total, folder=request.folder)
        case _:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return ModelError("hub.cannot_write", repo=repo, folder=request.folder, reason=reason)


def _status_sentence(error: HfHubHTTPError, repo: str, host: str, page: str) -> ModelError:
    """Return the error for an HTTP status; 401 and 403 differ with and without a token, 429 with and without a time to
    wait."""
    status = error.response.status_code
    if status == 429:
        if (seconds := wait_of(error)) is None:
            return ModelError("hub.rate_limit", repo=repo, host=host)
        return ModelError("hub.rate_limit_until", repo=repo, host=host, seconds=seconds)
    if status == 401 and get_token():
        return ModelError("hub.bad_token", repo=repo, host=host)
    if status in (401, 403):
        return ModelError("hub.gated_token" if get_token() else "hub.gated", repo=repo, page=page)
    if status == 404:
        return ModelError("hub.missing", repo=repo, host=host)
    if status >= 500:
        return ModelError("hub.server_trouble", repo=repo, host=host, status=status)
    return ModelError("hub.refused", repo=repo, host=host, status=status)


@dataclass(frozen=True)
class Search:
    """A search: its words, and the host that is searched."""

    words: str
    host: str

    @classmethod
    def create(cls, words: str, endpoint: str | None) -> Search:
        """Return the search for words, in which a copied address of a repository becomes its name."""
        return cls(PAGE.sub(r"\1", " ".join(words.split())), host_of(endpoint_of(endpoint)))


def search_error(error: Exception, request: Search) -> ModelError:
    """Return the error of a search as one sentence; like `hub_error`, but no repository was named."""
    values = {"host": request.host, "words": request.words}
    match error:
        case NotAHub():
            return ModelError("hub_search.not_a_hub", **values)
        case OfflineModeIsEnabled():
            return ModelError("hub_search.offline_mode")
        case TooSlow():
            return ModelError("hub_search.slow", **values)
        case HfHubHTTPError():
            status = error.response.status_code
            if status == 429:
                if (seconds := wait_of(error)) is None:
                    return ModelError("hub_search.rate_limit", **values)
                return ModelError("hub_search.rate_limit_until", seconds=seconds, **values)
            if status == 401 and get_token():
                return ModelError("hub_search.bad_token", **values)
            return ModelError(
                "hub_search.server_trouble" if status >= 500 else "hub_search.refused", status=status, **values
            )
        case _:
            return ModelError("hub_search.no_network", **values)


def wait_of(error: HfHubHTTPError) -> int | None:
    """Seconds that a hub demands to wait; None if it does not say."""
    header, limit = error.response.headers.get("Retry-After", ""), parse_ratelimit_headers(error.response.headers)
    return int(header) if header.isdecimal() else limit.reset_in_seconds if limit else None
