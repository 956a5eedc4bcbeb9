"""Models of the Hugging Face hub: what a repository holds, and its needed files in the ordinary Hugging Face cache.

Only safetensors and the files around them are ever downloaded: no pickles, no Python. No token is needed for open
models; one that `huggingface_hub` finds (HF_TOKEN, `hf auth login`) is used and never shown, logged or written.

Why not `snapshot_download`: in huggingface_hub 2.4 a broken or cancelled download starts again at byte 0 (its pull
request 4228: each call writes a file of its own name and deletes it on failure), and a waiting call cannot be left.
Here one thread streams over HTTP into `blobs/<etag>.incomplete`, the caller's thread polls, and the next call goes on
where the last one ended. The price: no Xet transport, files one after the other.

What a crash leaves behind: an `.incomplete` file that only grows at its end, checked against the hub's sha256 before
it becomes a blob. `refs/<revision>` is written last, so a revision that resolves was whole when it was written.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout
from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from core import files
from core.errors import ModelError, StopRequested
from core.hub.answers import HubRequest, Interrupted, NotAHub, in_words, sentence
from core.hub.cached import (
    _COMMIT,
    INDEX,
    REPO_ID,
    REVISION,
    SHARD,
    SINGLE,
    TOKENIZERS,
    CachedRepo,
    _has,
    _is_small,
    _shards,
    cache_folder,
)
from core.progress import Progress

Report = Callable[[Progress], None]
Check = Callable[[], None]
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
POLL_S = 0.2  # how often the caller is told and asked
TIMEOUT_S = 10.0  # a server that sends nothing for so long is asked again
LEAVE_S = 0.5  # how long a stop waits for the thread; it writes nothing after a stop in any case
TRIES_WITHOUT_A_BYTE = 4
RETRY_WAIT_S = 1.0
DISK_MARGIN = 1.1


def fetch(
    repo_id: str,
    revision: str | None,
    report: Report,
    check: Check,
    endpoint: str | None = None,
    cache_dir: str | Path | None = None,
    accept: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """The snapshot folder of a model, downloaded as far as it is not here yet.

    revision: branch, tag or commit; None is `main`. A branch that is complete here is not asked for again, so its
    model does not change under the person; name a commit to move on. report: at most 5 times a second, on the
    caller's thread, bytes over all needed files. check: as often; what it raises (StopRequested) ends the download
    within a second and is passed on. endpoint: HF_ENDPOINT, else huggingface.co. cache_dir: HF_HUB_CACHE.
    accept: called with the folder as soon as config.json lies in it, before anything large; what it raises is passed on.
    Raises ModelError with one sentence for everything a person can act on.
    """
    revision = revision or constants.DEFAULT_REVISION
    if not REPO_ID.fullmatch(repo_id):
        raise ModelError("hub.bad_id", found=repo_id)
    if not REVISION.fullmatch(revision):
        raise ModelError("hub.bad_revision", repo=repo_id, revision=revision)
    cached = CachedRepo(repo_id, cache_folder(cache_dir))
    local = cached.snapshot(revision)
    if local is not None and cached.is_whole(local):
        accept(local)
        return local
    # Another tool's snapshot that looks usable but has no listing to prove it: fill what is missing, of that very
    # commit, and use it as it is where the hub cannot be reached.
    wanted = revision if local is None else local.name
    try:
        return _download(cached, revision, wanted, report, check, endpoint, accept)
    except ModelError:
        if local is None:
            raise
        accept(local)
        return local


# --- what lies on the hub
@dataclass(frozen=True)
class _File:
    name: str
    size: int | None
    blob: str  # its name under blobs/: the etag, as huggingface_hub has it
    sha256: str | None


class Listing:
    """The files of one commit, with the refusals that need no weights."""

    def __init__(self, repo_id: str, info: ModelInfo):
        self.repo_id = repo_id
        self.commit = info.sha or ""
        self.siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        if not _COMMIT.fullmatch(self.commit):
            raise NotAHub

    def refuse_unusable(self) -> None:
        names = self.siblings.keys()
        weights = sorted(name for name in names if name.endswith(".safetensors"))
        if "adapter_config.json" in names and "config.json" not in names:
            raise ModelError("hub.adapter", repo=self.repo_id)
        if SINGLE not in names and INDEX not in names:
            for key, endings in (("hub.only_gguf", (".gguf",)), ("hub.only_pickles", _PICKLES)):
                found = sorted(name for name in names if name.lower().endswith(endings))
                if found and not weights:
                    raise ModelError(key, repo=self.repo_id, found=found[:3])
            if weights:
                raise ModelError("hub.other_weights", repo=self.repo_id, found=weights[:3])
            raise ModelError("hub.no_weights", repo=self.repo_id)
        if "config.json" not in names:
            raise ModelError("hub.no_config", repo=self.repo_id)
        if not any(name in names for name in TOKENIZERS):
            raise ModelError("hub.no_tokenizer", repo=self.repo_id, expected=list(TOKENIZERS))

    def small_files(self) -> list[_File]:
        # config.json first: a gated repository refuses it, before anything large.
        names = sorted(filter(_is_small, self.siblings), key=lambda name: (name != "config.json", name))
        return [self.file(name) for name in names]

    def weights(self, shards: Iterable[str]) -> list[_File]:
        """The weight files transformers would load: model.safetensors if it is there, else the index's shards."""
        if SINGLE in self.siblings:
            return [self.file(SINGLE)]
        shards = list(shards)
        for name in shards:
            # A name with a path could leave the snapshot, one of another kind could be a pickle.
            if name not in self.siblings or not SHARD.fullmatch(name):
                raise ModelError("hub.missing_shard", repo=self.repo_id, file=name)
        if not shards:
            raise ModelError("hub.missing_shard", repo=self.repo_id, file=SINGLE)
        return [self.file(name) for name in shards]

    def file(self, name: str) -> _File:
        sibling = self.siblings[name]
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        etag = sha256 or sibling.blob_id or ""
        blob = etag if _BLOB.fullmatch(etag) else hashlib.sha256(f"{self.commit}/{name}".encode()).hexdigest()
        return _File(name, sibling.lfs.size if sibling.lfs else sibling.size, blob, sha256)

    def save(self, folder: Path) -> None:
        """Keep the listing where huggingface_hub keeps it, in its format 1, as the proof that a snapshot is whole."""
        needed = {}
        for name, sibling in sorted(self.siblings.items()):
            if sibling.size is None or sibling.blob_id is None:
                return
            needed[name] = {"size": sibling.size, "blob_id": sibling.blob_id}
            if sibling.lfs:
                needed[name] |= {"lfs_sha256": sibling.lfs.sha256, "lfs_size": sibling.lfs.size}
        target = folder / "trees" / f"{self.commit}.json"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            files.replace_json(target, {"format_version": 1, "files": needed})


# --- the download
def _download(
    cached: CachedRepo,
    revision: str,
    wanted: str,
    report: Report,
    check: Check,
    endpoint: str | None,
    accept: Callable[[Path], None],
) -> Path:
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    transfer = Transfer(cached, revision, wanted, endpoint, accept)
    try:
        with _only_one(cached.lock, check):
            snapshot = cached.snapshot(wanted)
            if snapshot is not None and cached.is_whole(snapshot):  # somebody else's download, while we waited
                return snapshot
            return transfer.run(report, check)
    except (NotAHub, Interrupted, HTTPError, OSError) as error:
        asked = HubRequest(cached.repo_id, endpoint, revision, cached.cache, transfer.done, transfer.total)
        raise sentence(error, asked) from None  # a chain would carry addresses with signatures into logs


@contextmanager
def _only_one(lock: Path, check: Check) -> Iterator[None]:
    """Two processes that want one model: the second waits, can still be stopped, and then finds it there."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(WeakFileLock(lock, timeout=POLL_S))
                break
            except Timeout:
                check()
        yield


class Transfer:
    """One download. `run` belongs to the caller's thread, everything below it to the thread it starts."""

    def __init__(
        self, cached: CachedRepo, revision: str, wanted: str, endpoint: str, accept: Callable[[Path], None] = lambda folder: None
    ):
        self.cached = cached
        self.accept = accept
        self.revision = revision
        self.wanted = wanted
        self.endpoint = endpoint
        self.token: bool | None = None  # None: whatever huggingface_hub finds; False: none
        self.total = 0
        self._commit = ""
        self._finished = 0  # bytes of finished files
        self._growing = 0  # bytes of the file under way
        self._response: Any = None
        self._partial: _Partial | None = None  # the file under way
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._outcome: Path | BaseException | None = None

    @property
    def done(self) -> int:
        return self._finished + self._growing

    def run(self, report: Report, check: Check) -> Path:
        thread = threading.Thread(target=self._work, name="hub-download", daemon=True)
        thread.start()
        reported = None
        try:
            while not self._ended.wait(POLL_S):
                check()
                now = (self.done, self.total)
                if self.total and now != reported:
                    report(Progress(done=min(now), total=self.total, unit="bytes"))
                    reported = now
        except BaseException:
            self._stop.set()
            self._hang_up()
            thread.join(LEAVE_S)
            if self._partial:  # of a thread that still waits: on Windows an open file cannot be renamed by the next download
                self._partial.close()
            raise
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        report(Progress(done=self.total, total=self.total, unit="bytes"))
        assert self._outcome is not None  # of a thread that has ended
        return self._outcome

    def _hang_up(self) -> None:
        """Wake a thread that waits for a silent server; without this it would notice only at TIMEOUT_S."""
        with suppress(AttributeError, KeyError, OSError, ValueError):
            self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        try:
            self._outcome = self._fetch_all()
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._outcome = error
        finally:
            self._ended.set()

    def _fetch_all(self) -> Path:
        listing = Listing(self.cached.repo_id, self._model_info())
        listing.refuse_unusable()
        self._commit = listing.commit
        snapshot = self.cached.folder / "snapshots" / listing.commit
        small = listing.small_files()
        self._fetch(small[0], snapshot)  # config.json, which a gated repository refuses
        self.accept(snapshot)
        if SINGLE not in listing.siblings:
            index = listing.file(INDEX)
            self._fetch(index, snapshot)
            small.append(index)
        wanted = [*small, *listing.weights(_shards(snapshot / INDEX))]
        self._refuse_full_disk(wanted, snapshot)
        self._finished = 0
        self.total = sum(file.size or 0 for file in wanted)
        for file in wanted:
            self._fetch(file, snapshot)
        listing.save(self.cached.folder)
        if self.revision != listing.commit:
            ref = self.cached.folder / "refs" / self.revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            files.replace(ref, listing.commit)
        return snapshot

    def _model_info(self) -> ModelInfo:
        try:
            return self._ask()
        except HfHubHTTPError as error:
            # A stale token is refused even for open models; nobody should need one for those.
            if error.response.status_code != 401 or not get_token():
                raise
            self.token = False
            try:
                return self._ask()
            except HfHubHTTPError:
                self.token = None
                raise error from None

    def _ask(self) -> ModelInfo:
        api = HfApi(endpoint=self.endpoint, token=self.token)
        try:
            return api.model_info(self.cached.repo_id, revision=self.wanted, timeout=TIMEOUT_S, files_metadata=True)
        except HTTPError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotAHub from error

    def _refuse_full_disk(self, wanted: list[_File], snapshot: Path) -> None:
        missing = sum(max(0, (file.size or 0) - self._bytes_here(file, snapshot)) for file in wanted)
        needed, free = int(missing * DISK_MARGIN), shutil.disk_usage(self.cached.folder.parent).free
        if missing and needed > free:
            raise ModelError(
                "hub.disk_full",
                repo=self.cached.repo_id,
                needed=in_words(needed),
                free=in_words(free),
                folder=self.cached.cache,
            )

    def _bytes_here(self, file: _File, snapshot: Path) -> int:
        blob = self._blob(file)
        if any(_has(path, file.size) for path in (snapshot / file.name, blob)):
            return file.size or 0
        partial = _partial_path(blob)
        return partial.stat().st_size if partial.is_file() else 0

    def _blob(self, file: _File) -> Path:
        return self.cached.folder / "blobs" / file.blob

    def _fetch(self, file: _File, snapshot: Path) -> None:
        """Put one file into the snapshot; a file that is there in its full size is left as it is."""
        pointer, blob = snapshot / file.name, self._blob(file)
        if not _has(pointer, file.size):
            blob.parent.mkdir(parents=True, exist_ok=True)
            snapshot.mkdir(parents=True, exist_ok=True)
            if not _has(blob, file.size):
                self._complete(file, _partial_path(blob))
                files.rename(_partial_path(blob), blob)
            _point(pointer, blob)
        self._growing = 0
        self._finished += file.size or 0

    def _complete(self, file: _File, path: Path) -> None:
        """Fill the partial file to its size, over as many connections as it takes, and check its sha256."""
        with _Partial(path, self._stop_if_asked) as partial:
            self._partial = partial
            self._stop_if_asked()  # whoever leaves from here on closes it
            if file.size is None or partial.size > file.size:
                partial.restart()
            tries, longest = 0, partial.size
            while partial.size != file.size:
                ended, failure = False, None
                try:
                    ended = self._stream(file, partial)
                except HTTPError as error:
                    # Refusals are final; a server in trouble, or a broken line, is asked again.
                    if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                        raise
                    failure = error
                self._stop_if_asked()
                if partial.size == file.size or (ended and file.size is None):
                    break
                tries = 0 if partial.size > longest else tries + 1
                longest = max(longest, partial.size)
                if tries > TRIES_WITHOUT_A_BYTE:
                    raise failure if isinstance(failure, HfHubHTTPError) else Interrupted
                if self._stop.wait(RETRY_WAIT_S):
                    raise StopRequested
            if file.sha256 and partial.sha.hexdigest() != file.sha256:
                partial.restart()
                raise ModelError("hub.damaged", repo=self.cached.repo_id, file=file.name)
            partial.settle()

    def _stream(self, file: _File, partial: _Partial) -> bool:
        """One request from where the partial file ends. True when the server ended its answer in the ordinary way."""
        url = hf_hub_url(self.cached.repo_id, file.name, revision=self._commit, endpoint=self.endpoint)
        # Compressed bytes could neither be counted nor continued.
        headers = build_hf_headers(token=self.token) | {"Accept-Encoding": "identity"}
        if partial.size:
            headers["Range"] = f"bytes={partial.size}-"
        self._growing = partial.size
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            self._response = response
            if partial.size and not _continues(response, partial.size):
                if response.status_code in (206, 416):
                    partial.restart()
                    return False
                hf_raise_for_status(response)
                partial.restart()
            hf_raise_for_status(response)
            for chunk in response.iter_bytes():
                self._stop_if_asked()
                partial.append(chunk)
                self._growing = partial.size
                if file.size is not None and partial.size > file.size:
                    partial.restart()  # not the file that the hub announced
                    return False
        return True

    def _stop_if_asked(self) -> None:
        if self._stop.is_set():
            raise StopRequested


class _Partial:
    """`blobs/<etag>.incomplete`, growing at its end, and the sha256 of what it holds."""

    def __init__(self, path: Path, go_on: Check):
        self.path = path
        self.size = 0
        self.sha = hashlib.sha256()
        self._file = open(path, "ab+")
        try:
            self._file.seek(0)
            while piece := self._file.read(1 << 20):
                go_on()
                self.sha.update(piece)
                self.size += len(piece)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """From any thread; what a thread that was left behind would still write is refused."""
        with suppress(OSError):  # a full disk was reported by the write; closing would report it again
            self._file.close()

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._file.flush()  # so that nothing of an abandoned thread is written later, by its end
        self.sha.update(chunk)
        self.size += len(chunk)

    def restart(self) -> None:
        self._file.truncate(0)
        self.size, self.sha = 0, hashlib.sha256()

    def settle(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


def _partial_path(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.incomplete")


def _continues(response: Any, offset: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    return response.status_code == 206 and content_range.startswith(f"bytes {offset}-")


def _point(pointer: Path, blob: Path) -> None:
    """snapshots/<commit>/<name> as a relative link to its blob, or the blob itself where links are not to be had."""
    pointer.unlink(missing_ok=True)
    if not constants.HF_HUB_DISABLE_SYMLINKS:
        try:
            os.symlink(os.path.relpath(blob, pointer.parent), pointer)
            return
        except OSError:  # Windows without developer mode, exFAT
            pass
    files.rename(blob, pointer)
