"""A hub's error answers as one sentence each: what was found, what to try."""

from __future__ import annotations

import errno
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


def page(repo_id: str) -> str:
    return f"{endpoint_of()}/{repo_id}"


class NotAHub(Exception):
    """Something answered, but not in the hub's words: a sign-in page, a proxy."""


class TooSlow(HTTPError):
    """It answers, but a small file had not come in the time that a person waits for one."""


class Interrupted(Exception):
    """The transfer broke off and several more tries brought nothing."""


# --- what a person is told
def in_words(size: float) -> Message:
    """A size in decimal units, as disks and the hub's pages have them: "2.3 GB"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return msg("hub.size", value=size / unit, unit=name)
    return msg("hub.bytes", value=round(size))


def endpoint_of(endpoint: str | None = None) -> str:
    return (endpoint or constants.ENDPOINT).rstrip("/")


def host_of(endpoint: str) -> str:
    return urlsplit(endpoint).netloc.rpartition("@")[2]


@dataclass(frozen=True)
class HubRequest:
    """What was asked of a hub, and how far it came. folder: of the cache. done, total: bytes. pages: where it has the
    pages of such things."""

    repo: str
    endpoint: str
    revision: str
    folder: Path
    done: float = 0
    total: float = 0
    pages: str = ""  # "datasets/"

    @classmethod
    def of(cls, repo: str, revision: str | None = None, endpoint: str | None = None, pages: str = "") -> HubRequest:
        """Raises ModelError for a name or a revision that no hub can have."""
        revision = revision or constants.DEFAULT_REVISION
        if not REPO_ID.fullmatch(repo):
            raise ModelError("hub.bad_id", found=repo[:100])
        if not REVISION.fullmatch(revision):
            raise ModelError("hub.bad_revision", repo=repo, revision=revision[:100])
        return cls(repo, endpoint_of(endpoint), revision, cache_folder(None), pages=pages)


def sentence(error: Exception, asked: HubRequest) -> ModelError:
    """The one sentence for what went wrong. It carries names and numbers of ours, no text of a server or a library."""
    repo, host = asked.repo, host_of(asked.endpoint)
    page = f"{urlsplit(asked.endpoint).scheme}://{host}/{asked.pages}{repo}"
    match error:
        case NotAHub():
            return ModelError("hub.not_a_hub", repo=repo, host=host)
        case Interrupted():
            done, total = in_words(asked.done), in_words(asked.total)
            return ModelError("hub.interrupted", repo=repo, host=host, done=done, total=total)
        case GatedRepoError():
            return ModelError("hub.gated_token" if get_token() else "hub.gated", repo=repo, page=page)
        case RepositoryNotFoundError():
            return ModelError("hub.missing", repo=repo, host=host)
        case RevisionNotFoundError():
            return ModelError("hub.no_revision", repo=repo, revision=asked.revision)
        case DisabledRepoError():
            return ModelError("hub.disabled", repo=repo, page=page)
        case HfHubHTTPError():
            return _status_sentence(error, repo, host, page)
        case OfflineModeIsEnabled():
            return ModelError("hub.offline_mode", repo=repo)
        case HTTPError():
            return ModelError("hub.no_network", repo=repo, host=host)
        case OSError() if error.errno in (errno.ENOSPC, errno.EDQUOT):
            done, total = in_words(asked.done), in_words(asked.total)
            return ModelError("hub.disk_full_midway", repo=repo, done=done, total=total, folder=asked.folder)
        case _:
            reason = getattr(error, "strerror", None) or type(error).__name__
            return ModelError("hub.cannot_write", repo=repo, folder=asked.folder, reason=reason)


def _status_sentence(error: HfHubHTTPError, repo: str, host: str, page: str) -> ModelError:
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
    """A search: its words, and which host was asked."""

    words: str
    host: str

    @classmethod
    def of(cls, words: str, endpoint: str | None) -> Search:
        return cls(" ".join(words.split()), host_of(endpoint_of(endpoint)))


def sentence_of_search(error: Exception, asked: Search) -> ModelError:
    """As `sentence`, where no model was named yet."""
    said = {"host": asked.host, "words": asked.words}
    match error:
        case NotAHub():
            return ModelError("hub_search.not_a_hub", **said)
        case OfflineModeIsEnabled():
            return ModelError("hub_search.offline_mode")
        case TooSlow():
            return ModelError("hub_search.slow", **said)
        case HfHubHTTPError():
            status = error.response.status_code
            if status == 429:
                if (seconds := wait_of(error)) is None:
                    return ModelError("hub_search.rate_limit", **said)
                return ModelError("hub_search.rate_limit_until", seconds=seconds, **said)
            if status == 401 and get_token():
                return ModelError("hub_search.bad_token", **said)
            return ModelError(
                "hub_search.server_trouble" if status >= 500 else "hub_search.refused", status=status, **said
            )
        case _:
            return ModelError("hub_search.no_network", **said)


def wait_of(error: HfHubHTTPError) -> int | None:
    """Seconds that a hub wants a pause for; None where it does not say."""
    told, limit = error.response.headers.get("Retry-After", ""), parse_ratelimit_headers(error.response.headers)
    return int(told) if told.isdecimal() else limit.reset_in_seconds if limit else None
