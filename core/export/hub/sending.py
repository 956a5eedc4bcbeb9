"""Sends a parcel with huggingface_hub's HfApi: checks token and repository, uploads large files, commits. Blocks until
done; it is stopped by killing its process.

Nothing is visible on the hub before the commit, which takes all files at once. Parts that have arrived are not sent
again: whole files with the hub's large file storage, pieces of files with its Xet storage, which is tried first. No
message contains text of a server or a library, which may hold signed addresses.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, set_client_factory
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import _xet
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils._runtime import is_xet_available

from core.errors import ExportError
from core.export.hub.parcel import Parcel
from core.files import JsonObject
from core.hub import xet
from core.hub.hub_errors import format_size, host_of, wait_of

if TYPE_CHECKING:
    import httpx


ANSWER_S, WRITE_S = 120.0, 60.0  # the commit of a large repository takes a minute
# File patterns that show which kind of model a repository holds.
KIND_PATTERNS = {
    "adapter": ("adapter_model.*",),
    "merged": ("model*.safetensors*", "pytorch_model*"),
    "gguf": ("*.gguf",),
}
# The last ones are what huggingface_hub raises when an address answers that is no hub.
EXPECTED_ERRORS = (
    HTTPError,
    OfflineModeIsEnabled,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
)

Report = Callable[[str, float | None], None]  # stage and fraction


@dataclass(frozen=True)
class Sent:
    """A finished publication. page: address of the repository. is_new: the repository was created for it."""

    page: str
    commit: str
    is_new: bool


class Sender:
    """Sends a parcel. report: called with the stages asking_hub, sending and committing; while sending with the
    fraction of bytes in files that have arrived, None before the first one."""

    def __init__(self, parcel: Parcel, private: bool, report: Report, endpoint: str | None = None):
        self.parcel, self.private, self._report = parcel, private, report
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._arrived: int | None = None  # bytes of the files that have arrived; None before sending
        self._hub = HfApi(endpoint=self.endpoint)

    def send(self) -> Sent:
        """Send the parcel; huggingface_hub's client has timeouts from then on. Raises ExportError with one sentence for
        any error of hub, network or disk."""
        set_client_factory(_client)
        try:
            return self._send()
        except EXPECTED_ERRORS as error:
            raise self.sentence(error) from error

    def _send(self) -> Sent:
        """Check the token, create the repository if it is missing, upload all files and commit them as one. Shards of
        an earlier merged model that no longer belong are deleted. Returns address, commit and whether the repository is
        new. Raises ExportError and errors of the hub."""
        repo = self.parcel.repo
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        if not get_token():
            raise ExportError("publish.no_token", host=host_of(self.endpoint))
        self._report("asking_hub", None)
        self._check_token()
        existing = self._existing()
        if existing is None:
            self._hub.create_repo(repo, private=self.private)
        adds = [CommitOperationAdd(piece.name, piece.content) for piece in self.parcel.pieces]
        self._arrived = 0
        for piece, add in zip(self.parcel.pieces, adds, strict=True):
            self._report("sending", self._arrived / max(1, self.parcel.size) or None)
            self._upload(add)
            self._arrived += piece.size
        self._report("committing", None)
        # One commit at the end: an upload that breaks leaves the repository's files as they were.
        commit = self._hub.create_commit(
            repo,
            [*adds, *(CommitOperationDelete(name) for name in self._stale(existing))],
            commit_message=f"{self.parcel.kind.capitalize()} by LoRA Garage",
            # If somebody commits meanwhile, the hub answers 412 instead of taking this one on top.
            parent_commit=existing.sha if existing else None,
        )
        return Sent(f"{self.endpoint}/{repo}", commit.oid, existing is None)

    # ---- before anything is sent ----------------------------------------------------------------------------------
    def _check_token(self) -> None:
        """Raise ExportError for a token that may only read, before anything is created.

        A mirror may not know the token's role: then its answer to the first write decides.
        """
        try:
            role = self._hub.whoami()["auth"]["accessToken"]["role"]
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
        except (KeyError, TypeError, ValueError):
            return
        else:
            if role == "read":
                raise ExportError("publish.only_reads", host=host_of(self.endpoint))

    def _existing(self) -> ModelInfo | None:
        """Return the repository, or None if it does not exist. Raises ExportError if it holds another kind of model or
        has another visibility."""
        repo = self.parcel.repo
        try:
            existing = self._hub.model_info(repo, timeout=ANSWER_S)
        except RepositoryNotFoundError:
            return None
        if bool(existing.private) != self.private:
            raise ExportError("publish.is_private" if existing.private else "publish.is_public", repo=repo)
        names = [sibling.rfilename for sibling in existing.siblings or ()]
        holds = [
            kind
            for kind, patterns in KIND_PATTERNS.items()
            if any(fnmatch.filter(names, pattern) for pattern in patterns)
        ]
        if others := [kind for kind in holds if kind != self.parcel.kind]:
            raise ExportError("publish.other_kind", repo=repo, holds=others[0], kind=self.parcel.kind)
        return existing

    def _stale(self, existing: ModelInfo | None) -> list[str]:
        """Return the names of an earlier merged model's shards that the new one lacks: loaders would read them or fail.
        [] for other kinds."""
        if existing is None or self.parcel.kind != "merged":
            return []
        ours = {piece.name for piece in self.parcel.pieces}
        names = [sibling.rfilename for sibling in existing.siblings or ()]
        return [name for name in fnmatch.filter(names, KIND_PATTERNS["merged"][0]) if name not in ours]

    def _upload(self, add: CommitOperationAdd) -> None:
        """Upload a large file, by Xet if available, else over plain HTTP. A small one goes with the commit. Once Xet
        has failed, this process no longer uses it."""
        _xet.get_xet_session = xet.session  # without telemetry, and with limits of time
        try:
            return self._hub.preupload_lfs_files(self.parcel.repo, [add], free_memory=False)
        except EXPECTED_ERRORS as error:
            if not is_xet_available() or add._upload_mode != "lfs":
                raise
            # Its text may hold signed addresses; its type is enough to investigate.
            logging.getLogger(__name__).warning("Xet takes nothing (%s), going on over HTTP", type(error).__name__)
        # For the files after this one too.
        constants.HF_HUB_DISABLE_XET = True
        self._hub.preupload_lfs_files(self.parcel.repo, [add], free_memory=False)

    # ---- what went wrong ------------------------------------------------------------------------------------------
    def sentence(self, error: BaseException) -> ExportError:
        """Return the ExportError that explains an error of hub, network or disk to the user; an ExportError is returned
        as it is. That of a connection lost while sending names the bytes that have arrived and those of all files."""
        values: JsonObject = {"repo": self.parcel.repo, "host": host_of(self.endpoint)}
        match error:
            case ExportError():
                return error
            case RuntimeError() if error.__cause__:  # huggingface_hub raises this for a file that did not arrive
                return self.sentence(error.__cause__)
            case OfflineModeIsEnabled():
                return ExportError("publish.offline")
            case ValueError() if isinstance(error.__cause__, BadRequestError):
                return ExportError("publish.card_refused", **values)
            # Before the two below, both of which it is.
            case HfHubHTTPError():
                return self._status_error(error, values)
            case HTTPError():
                if self._arrived is None:
                    return ExportError("publish.no_network", **values)
                done, total = format_size(self._arrived), format_size(self.parcel.size)
                return ExportError("publish.interrupted", done=done, total=total, **values)
            case OSError():
                return ExportError("publish.cannot_read", reason=error.strerror or type(error).__name__, **values)
        return ExportError("publish.not_a_hub", **values)

    def _status_error(self, error: HfHubHTTPError, values: JsonObject) -> ExportError:
        """Return the error for an HTTP status of the hub; that of 429 names the seconds to wait, if the hub does."""
        status = error.response.status_code
        if status == 429:
            seconds = wait_of(error)
            return (
                ExportError("publish.rate_limit", **values)
                if seconds is None
                else ExportError("publish.rate_limit_until", seconds=seconds, **values)
            )
        keys = {401: "bad_token", 403: "may_not", 404: "gone", 409: "conflict", 412: "moved"}
        if status in keys:
            return ExportError(f"publish.{keys[status]}", owner=self.parcel.repo.partition("/")[0], **values)
        return ExportError("publish.server_trouble" if status >= 500 else "publish.refused", status=status, **values)


def _client() -> httpx.Client:
    """huggingface_hub's HTTP client with timeouts; by default it waits for a silent server for ever."""
    client = default_client_factory()
    client.timeout = (WRITE_S, ANSWER_S, WRITE_S, WRITE_S)  # to connect, read, write, and for a free connection
    return client
