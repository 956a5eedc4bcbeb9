"""Sends a parcel with huggingface_hub's HfApi: checks token and repository, uploads large files, commits. Blocks until
done; it is stopped by killing its process.

Nothing is visible on the hub before the commit, which takes all files at once. Parts that have arrived are not sent
again: whole files with the hub's large file storage, pieces of files with its Xet storage, which is tried first. No
message contains text of a server or a library, which may hold signed addresses.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, set_client_factory
from huggingface_hub.errors import (
    BadRequestError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import _xet, _xet_progress_reporting
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils._runtime import is_xet_available

from core.errors import ExportError
from core.export.hub.parcel import Parcel, ParcelFile
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
    """Sends a parcel. report: called with the stages asking_hub, sending and committing, and the fraction of
    sending."""

    def __init__(self, parcel: Parcel, private: bool, report: Report, endpoint: str | None = None):
        self.parcel, self.private, self._report = parcel, private, report
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._arrived: dict[str, int] = {}  # bytes by file
        self._hub = HfApi(endpoint=self.endpoint)

    def send(self) -> Sent:
        """Send the parcel. Raises ExportError with one sentence for any error of hub, network or disk."""
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
        adds = [_Counted(piece, partial(self._set_arrived, piece.name)) for piece in self.parcel.pieces]
        self._upload(adds)
        self._report("committing", None)
        # One commit at the end: an upload that breaks leaves the repository's files as they were.
        commit = self._hub.create_commit(
            repo,
            [*adds, *(CommitOperationDelete(name) for name in self._stale(existing))],
            commit_message=f"{self.parcel.kind.capitalize()} by LoRA Garage",
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
        """Return the names of an earlier merged model's shards that the new one lacks: loaders would read them or
        fail."""
        if existing is None or self.parcel.kind != "merged":
            return []
        ours = {piece.name for piece in self.parcel.pieces}
        names = [sibling.rfilename for sibling in existing.siblings or ()]
        return [name for name in fnmatch.filter(names, KIND_PATTERNS["merged"][0]) if name not in ours]

    def _upload(self, adds: list[_Counted]) -> None:
        """Upload the large files one after the other, by Xet if available, else, or if Xet fails, over plain HTTP from
        the start. Small ones go with the commit."""
        _xet_progress_reporting.XetUploadProgressReporter = partial(_XetProgress, partial(self._set_arrived, ""))
        _xet.get_xet_session = xet.session  # without telemetry, and with limits of time
        send = partial(self._hub.preupload_lfs_files, self.parcel.repo, adds, num_threads=1, free_memory=False)
        try:
            return send()
        except EXPECTED_ERRORS as error:
            if not is_xet_available() or not any(add._upload_mode == "lfs" for add in adds):
                raise
            # Its text may hold signed addresses; its type is enough to investigate.
            logging.getLogger(__name__).warning("Xet takes nothing (%s), going on over HTTP", type(error).__name__)
        constants.HF_HUB_DISABLE_XET = True
        self._arrived.clear()
        send()

    def _set_arrived(self, name: str, size: int) -> None:
        """Record and report bytes read. size: of the named file; of all files together by Xet, whose name is ""."""
        self._arrived[name] = size
        self._report("sending", min(1.0, sum(self._arrived.values()) / max(1, self.parcel.size)))

    # ---- what went wrong ------------------------------------------------------------------------------------------
    def sentence(self, error: BaseException) -> ExportError:
        """Return the ExportError for an error, one for each thing that the user can do something about."""
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
            case HfHubHTTPError():
                return self._status_error(error, values)
            case HTTPError():
                if not (arrived := sum(self._arrived.values())):
                    return ExportError("publish.no_network", **values)
                done, total = format_size(arrived), format_size(self.parcel.size)
                return ExportError("publish.interrupted", done=done, total=total, **values)
            case OSError():
                return ExportError("publish.cannot_read", reason=error.strerror or type(error).__name__, **values)
        return ExportError("publish.not_a_hub", **values)

    def _status_error(self, error: HfHubHTTPError, values: JsonObject) -> ExportError:
        """Return the error for an HTTP status of the hub."""
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


class _Counted(CommitOperationAdd):
    """One file that reports how far it was read."""

    def __init__(self, piece: ParcelFile, on_progress: Callable[[int], None]):
        self.piece, self.on_progress = piece, on_progress
        super().__init__(piece.name, piece.content)

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        """Open the content as huggingface_hub does; while it is uploaded (with_tqdm), report the file's position after
        each read."""
        if not with_tqdm or isinstance(self.piece.content, bytes):
            with super().as_file() as file:
                yield file
            return
        with open(self.piece.content, "rb") as file:
            read = file.read

            def counted(size: int | None = -1) -> bytes:
                content = read(size)
                self.on_progress(file.tell())
                return content

            file.read = counted  # type: ignore[method-assign]
            yield file


class _XetProgress:
    """Replacement for huggingface_hub's progress bars."""

    def __init__(self, on_progress: Callable[[int], None]):
        self._on_progress = on_progress

    def update_progress(self, group: Any, items: object) -> None:
        self._on_progress(int(group.total_bytes_completed))

    def close(self) -> None: ...


def _client() -> httpx.Client:
    """huggingface_hub's HTTP client with timeouts; by default it waits for a silent server for ever."""
    client = default_client_factory()
    client.timeout = (WRITE_S, ANSWER_S, WRITE_S, WRITE_S)  # to connect, read, write, and for a free connection
    return client
