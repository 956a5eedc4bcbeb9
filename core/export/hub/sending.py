"""Sends a parcel with huggingface_hub's own HfApi: looks at token and repository, uploads large files, commits. Blocks;
killed to stop.

Nothing of it is seen on the hub before the commit, which takes all files at once. What has arrived is not sent again:
whole files by the hub's large file storage, pieces of files by its Xet storage, which is tried first. No sentence holds
text of a server or a library.
"""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

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
from core.hub import xet
from core.hub.answers import host_of, in_words, wait_of

ANSWER_S, WRITE_S = 120.0, 60.0  # the commit of a large repository takes a minute
# By which files a repository shows what it holds.
SIGNS = {"adapter": ("adapter_model.*",), "merged": ("model*.safetensors*", "pytorch_model*"), "gguf": ("*.gguf",)}
ODD = (HTTPError, OfflineModeIsEnabled, OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError)

Told = Callable[[str, float | None], None]  # a stage, and how much of it is done


@dataclass(frozen=True)
class Sent:
    """page: of the repository. is_new: it was made for this."""

    page: str
    commit: str
    is_new: bool


class Sender:
    """told: the stages asking_hub, sending and committing, with how much of sending is done."""

    def __init__(self, parcel: Parcel, private: bool, told: Told, endpoint: str | None = None):
        self.parcel, self.private, self._told = parcel, private, told
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._arrived: dict[str, int] = {}  # bytes by file
        self._hub = HfApi(endpoint=self.endpoint)

    def send(self) -> Sent:
        """Raises ExportError with one sentence for whatever a hub, a network or a disk may do."""
        set_client_factory(_client)
        try:
            return self._send()
        except ODD as error:
            raise self.sentence(error) from error

    def _send(self) -> Sent:
        repo = self.parcel.repo
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        if not get_token():
            raise ExportError("publish.no_token", host=host_of(self.endpoint))
        self._told("asking_hub", None)
        self._refuse_reader()
        found = self._there()
        if found is None:
            self._hub.create_repo(repo, private=self.private)
        adds = [_Counted(piece, partial(self._grown, piece.name)) for piece in self.parcel.pieces]
        self._upload(adds)
        self._told("committing", None)
        commit = self._hub.create_commit(
            repo,
            [*adds, *(CommitOperationDelete(name) for name in self._stale(found))],
            commit_message=f"{self.parcel.kind.capitalize()} by LoRA Garage",
            parent_commit=found.sha if found else None,
        )
        return Sent(f"{self.endpoint}/{repo}", commit.oid, found is None)

    # ---- before anything is sent ----------------------------------------------------------------------------------
    def _refuse_reader(self) -> None:
        """A token that may only read, before anything is made. A mirror may not know whose token it is: then its
        answers tell."""
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

    def _there(self) -> ModelInfo | None:
        """The repository as it is now, where it may take this: of the same kind, and seen by those by whom this is to
        be seen."""
        repo = self.parcel.repo
        try:
            found = self._hub.model_info(repo, timeout=ANSWER_S)
        except RepositoryNotFoundError:
            return None
        if bool(found.private) != self.private:
            raise ExportError("publish.is_private" if found.private else "publish.is_public", repo=repo)
        names = [sibling.rfilename for sibling in found.siblings or ()]
        holds = [kind for kind, signs in SIGNS.items() if any(fnmatch.filter(names, sign) for sign in signs)]
        if others := [kind for kind in holds if kind != self.parcel.kind]:
            raise ExportError("publish.other_kind", repo=repo, holds=others[0], kind=self.parcel.kind)
        return found

    def _stale(self, found: ModelInfo | None) -> list[str]:
        """Shards of an earlier merged model: beside the new ones they would be loaded, or be in the way."""
        if found is None or self.parcel.kind != "merged":
            return []
        ours = {piece.name for piece in self.parcel.pieces}
        names = [sibling.rfilename for sibling in found.siblings or ()]
        return [name for name in fnmatch.filter(names, SIGNS["merged"][0]) if name not in ours]

    def _upload(self, adds: list[_Counted]) -> None:
        """The large ones, one after the other; small ones go with the commit. By Xet where it can be had, else over
        plain HTTP."""
        _xet_progress_reporting.XetUploadProgressReporter = partial(_XetProgress, partial(self._grown, ""))
        _xet.get_xet_session = xet.session  # without telemetry, and with limits of time
        send = partial(self._hub.preupload_lfs_files, self.parcel.repo, adds, num_threads=1, free_memory=False)
        try:
            return send()
        except ODD as error:
            if not is_xet_available() or not any(add._upload_mode == "lfs" for add in adds):
                raise
            # Its words hold signed addresses; its kind is enough to look further.
            logging.getLogger(__name__).warning("Xet takes nothing (%s), going on over HTTP", type(error).__name__)
        constants.HF_HUB_DISABLE_XET = True
        self._arrived.clear()
        send()

    def _grown(self, name: str, size: int) -> None:
        """size: of a file as far as it was read; of all together by Xet, whose name is ""."""
        self._arrived[name] = size
        self._told("sending", min(1.0, sum(self._arrived.values()) / max(1, self.parcel.size)))

    # ---- what went wrong ------------------------------------------------------------------------------------------
    def sentence(self, error: BaseException) -> ExportError:
        """One for each thing that a person can do something about."""
        said: dict[str, Any] = {"repo": self.parcel.repo, "host": host_of(self.endpoint)}
        match error:
            case ExportError():
                return error
            case RuntimeError() if error.__cause__:  # huggingface_hub's word for a file that did not arrive
                return self.sentence(error.__cause__)
            case OfflineModeIsEnabled():
                return ExportError("publish.offline")
            case ValueError() if isinstance(error.__cause__, BadRequestError):
                return ExportError("publish.card_refused", **said)
            case HfHubHTTPError():
                return self._of_status(error, said)
            case HTTPError():
                if not (arrived := sum(self._arrived.values())):
                    return ExportError("publish.no_network", **said)
                done, total = in_words(arrived), in_words(self.parcel.size)
                return ExportError("publish.interrupted", done=done, total=total, **said)
            case OSError():
                return ExportError("publish.cannot_read", reason=error.strerror or type(error).__name__, **said)
        return ExportError("publish.not_a_hub", **said)

    def _of_status(self, error: HfHubHTTPError, said: dict[str, Any]) -> ExportError:
        status = error.response.status_code
        if status == 429:
            seconds = wait_of(error)
            return (
                ExportError("publish.rate_limit", **said)
                if seconds is None
                else ExportError("publish.rate_limit_until", seconds=seconds, **said)
            )
        named = {401: "bad_token", 403: "may_not", 404: "gone", 409: "conflict", 412: "moved"}
        if status in named:
            return ExportError(f"publish.{named[status]}", owner=self.parcel.repo.partition("/")[0], **said)
        return ExportError("publish.server_trouble" if status >= 500 else "publish.refused", status=status, **said)


class _Counted(CommitOperationAdd):
    """One file that tells how far it was read."""

    def __init__(self, piece: ParcelFile, grown: Callable[[int], None]):
        self.piece, self.grown = piece, grown
        super().__init__(piece.name, piece.content)

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        if not with_tqdm or isinstance(self.piece.content, bytes):
            with super().as_file() as file:
                yield file
            return
        with open(self.piece.content, "rb") as file:
            read = file.read

            def counted(size: int | None = -1) -> bytes:
                content = read(size)
                self.grown(file.tell())
                return content

            file.read = counted  # type: ignore[method-assign]
            yield file


class _XetProgress:
    """In place of huggingface_hub's bars."""

    def __init__(self, grown: Callable[[int], None]):
        self._grown = grown

    def update_progress(self, group: Any, items: Any) -> None:
        self._grown(int(group.total_bytes_completed))

    def close(self) -> None: ...


def _client() -> Any:
    """huggingface_hub's own, which would wait for a silent server for ever."""
    client: Any = default_client_factory()
    client.timeout = (WRITE_S, ANSWER_S, WRITE_S, WRITE_S)  # to connect, read, write, and for a free connection
    return client
