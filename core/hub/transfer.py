"""Downloads one model's files from the hub into the cache: several at once, each resumable. Blocks until done; its
process is killed to stop it.

First the listing and its checks, then config.json and the caller's `accept`, then the index, the check of the disk, and
the rest. The bytes come from huggingface_hub's `http_get` or its Xet storage. Its `hf_hub_download` is not used: in 2.4
a broken or killed download starts again at byte 0, because each call writes a file of its own name (its pull request
4228). Here each blob has one `PartialFile`, under the lock that huggingface_hub takes for it. Size and sha256 are
compared before a blob gets its name; `refs/<revision>` is written last, so a revision that resolves was complete when
it was written.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock, XetFileData

from core import files
from core.errors import ModelError
from core.hub import listing, partial_file, xet
from core.hub.cached import INDEX, SINGLE, CachedRepo, has, shards
from core.hub.hub_errors import Interrupted, format_size
from core.hub.listing import TIMEOUT_S, File, Listing
from core.hub.partial_file import PartialFile, TooLong

AT_ONCE = 4  # files; Xet also downloads each in parallel parts
TRIES_WITHOUT_A_BYTE = 3  # each of them up to five of http_get's own
RETRY_WAIT_S = 1.0


class TransferStopped(Exception):
    """Raised inside a transfer after `leave`."""


class Transfer:
    """A transfer. `fetch` belongs to one thread; `done` and `total` (bytes) may be read, and `leave` called,
    from any."""

    def __init__(
        self,
        cached: CachedRepo,
        resolved: str,
        endpoint: str,
        accept: Callable[[Path], None],
        check_disk: Callable[[int, int], None],
    ):
        """Prepare a transfer. resolved: the revision or commit to download. accept: called with the snapshot folder
        once it holds config.json. check_disk: called with the missing bytes and those of all files, before the weights;
        returns if the disk has room."""
        self.cached, self.resolved, self.endpoint, self.accept, self.check_disk = (
            cached,
            resolved,
            endpoint,
            accept,
            check_disk,
        )
        self.total, self.unit = 0, "bytes"
        self._arrived: dict[str, int] = {}  # by file
        self._stopped = threading.Event()

    @property
    def done(self) -> int:
        """Bytes so far, those from before included; 0 while total is unknown."""
        return min(sum(list(self._arrived.values())), self.total) if self.total else 0

    def leave(self) -> None:
        """Stop writing. A thread that waits for a silent server ends with its process, or at that server's time
        limit."""
        self._stopped.set()

    def fetch(self, revision: str) -> Path:
        """Download what is missing and return the snapshot folder, with revision pointing to it and the listing saved.
        Raises ModelError, what accept and check_disk raise, and errors that core.hub.hub_errors knows."""
        repository = listing.fetch_listing(self.cached.repo_id, self.resolved, self.endpoint)
        repository.refuse_unusable()
        snapshot = self.cached.folder / "snapshots" / repository.commit
        small_files = repository.small_files()
        self._head(repository, small_files[0])  # config.json, which a gated repository refuses
        self._fetch(repository, small_files[0])
        self.accept(snapshot)
        if SINGLE not in repository.siblings:
            self._fetch(repository, repository.file(INDEX))
            small_files.append(repository.file(INDEX))
        needed = [*small_files, *repository.weights(shards(snapshot / INDEX))]
        self._check_disk_and_fetch(repository, needed, snapshot)
        repository.save(self.cached.folder)
        if revision != repository.commit:
            ref = self.cached.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            files.replace(ref, repository.commit)
        return snapshot

    def fetch_adapter(self) -> Path:
        """Download an adapter's files and return the snapshot folder; `accept` is called once its config is there.
        Raises as `fetch`."""
        repository = listing.fetch_listing(self.cached.repo_id, self.resolved, self.endpoint)
        needed, snapshot = repository.adapter_files(), self.cached.folder / "snapshots" / repository.commit
        self._head(repository, needed[0])
        self._fetch(repository, needed[0])
        self.accept(snapshot)
        self._check_disk_and_fetch(repository, needed, snapshot)
        return snapshot

    def _check_disk_and_fetch(self, repository: Listing, needed: list[File], snapshot: Path) -> None:
        """Download the needed files into the snapshot once check_disk has returned, and set total."""
        total = sum(file.size or 0 for file in needed)
        self.check_disk(sum(max(0, (file.size or 0) - self._bytes_here(file, snapshot)) for file in needed), total)
        self.total = total
        self._fetch_all(repository, needed)

    def _fetch_all(self, repository: Listing, needed: list[File]) -> None:
        """Download files in parallel, AT_ONCE at a time. Raises the first failure, which ends all without waiting for
        the others: they may wait for a silent server."""
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hub-file")
        try:
            tasks: list[Future[None]] = [pool.submit(self._fetch, repository, file) for file in needed]
            ended, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            failures = [failure for task in tasks if task in ended and (failure := task.exception())]
            if failures:
                raise next((each for each in failures if not isinstance(each, TransferStopped)), failures[0])
        finally:
            self.leave()
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, repository: Listing, file: File) -> None:
        """Put one file into the snapshot, under the lock of its blob; one that exists in full size stays as it is.
        Counts its bytes as arrived."""
        pointer = self.cached.folder / "snapshots" / repository.commit / file.name
        blob = self.cached.folder / "blobs" / file.blob
        if not has(pointer, file.size):
            blob.parent.mkdir(parents=True, exist_ok=True)
            pointer.parent.mkdir(parents=True, exist_ok=True)
            with self._blob_lock(blob):
                if not has(blob, file.size):
                    self._complete(repository, file, partial_file.path_of(blob))
                    files.rename(partial_file.path_of(blob), blob)
                _point(pointer, blob)
        self._arrived[file.name] = file.size or pointer.stat().st_size

    @contextmanager
    def _blob_lock(self, blob: Path) -> Iterator[None]:
        """Hold a blob's lock: another tool may be downloading the same file into this cache."""
        lock = self.cached.lock_of(blob.name)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            yield

    def _complete(self, repository: Listing, file: File, path: Path) -> None:
        """Fill the incomplete file to its size, over as many connections as it takes, and verify its contents. Raises
        ModelError, after emptying it, for contents that are damaged or longer than listed; TransferStopped."""

        def note_size_or_stop(size: int) -> None:
            """Raise TransferStopped once the transfer is to end; else keep size as the bytes of this file that are in
            the cache."""
            if self._stopped.is_set():
                raise TransferStopped
            self._arrived[file.name] = size

        with PartialFile(path, file.size, note_size_or_stop) as partial:
            try:
                self._fill(repository, file, partial)
            except TooLong:
                partial.restart()
                raise ModelError(
                    "hub.other_file", repo=repository.repo_id, file=file.name, expected=format_size(file.size or 0)
                ) from None
            if file.sha256 and partial.sha.hexdigest() != file.sha256:
                partial.restart()
                raise ModelError("hub.damaged", repo=repository.repo_id, file=file.name)
            partial.settle()

    def _fill(self, repository: Listing, file: File, partial: PartialFile) -> None:
        """Download the missing end of a file, from the hub's Xet storage if it is there, else over HTTP. A broken
        connection is retried until TRIES_WITHOUT_A_BYTE attempts in a row bring no byte.

        Raises then the hub's error, or Interrupted without one. Raises at once the hub's error for a refused request,
        TooLong for more bytes than listed, TransferStopped after `leave`, and ModelError for a file too large for HTTP.
        """
        url, headers = repository.address(file, self.endpoint)
        xet_file = self._head(repository, file) if file.sha256 and partial.size != file.size else None
        tries, largest = 0, partial.size
        while partial.size != file.size:
            failure: Exception | None = None
            try:
                if xet_file and file.size is not None:
                    xet_file = _by_xet(xet_file, file.size, partial, headers)
                    continue
                if not partial.size and (file.size or 0) > constants.MAX_HTTP_DOWNLOAD_SIZE:
                    size = format_size(file.size or 0)
                    raise ModelError("hub.too_large_without_xet", repo=repository.repo_id, file=file.name, size=size)
                http_get(url, partial, resume_size=partial.size, headers=headers, expected_size=file.size)
                if file.size is None:
                    return
            except HfHubHTTPError as error:
                if error.response.status_code == 416:
                    raise TooLong from None  # the server's file is shorter than the listing says
                if error.response.status_code < 500:
                    raise
                failure = error
            except HTTPError as error:
                failure = error
            except OSError as error:
                if error.errno is not None:
                    raise
                failure = error  # http_get raises this for an unexpected size
            tries = 0 if partial.size > largest else tries + 1
            largest = max(largest, partial.size)
            if tries >= TRIES_WITHOUT_A_BYTE:
                raise failure if isinstance(failure, HfHubHTTPError) else Interrupted
            if self._stopped.wait(RETRY_WAIT_S):
                raise TransferStopped

    def _head(self, repository: Listing, file: File) -> XetFileData | None:
        """Request the hub's metadata of a file before its first byte: whether access is allowed, its size, and its
        place in Xet, which is returned (None: not there). Raises at once for errors on which http_get would wait (429),
        and ModelError if the size is not the listing's."""
        url, _ = repository.address(file, self.endpoint)
        metadata = get_hf_file_metadata(url, token=repository.token, timeout=TIMEOUT_S, endpoint=self.endpoint)
        if None not in (metadata.size, file.size) and metadata.size != file.size:
            raise ModelError(
                "hub.other_file", repo=repository.repo_id, file=file.name, expected=format_size(file.size or 0)
            )
        return metadata.xet_file_data

    def _bytes_here(self, file: File, snapshot: Path) -> int:
        """Return the file's bytes in the cache: all of a complete one, else those of its partial file."""
        blob = self.cached.folder / "blobs" / file.blob
        if any(has(path, file.size) for path in (snapshot / file.name, blob)):
            return file.size or 0
        partial = partial_file.path_of(blob)
        return partial.stat().st_size if partial.is_file() else 0


def _by_xet(xet_file: XetFileData, size: int, partial: PartialFile, headers: dict[str, str]) -> XetFileData | None:
    """Append the rest from the hub's Xet storage; return xet_file if it is complete, else None, so that HTTP continues
    after the last byte."""
    try:
        for chunk in xet.stream(xet_file, size, partial.size, headers):
            partial.write(chunk)
    except xet.NoXet:
        return None
    return xet_file if partial.size == size else None


def _point(pointer: Path, blob: Path) -> None:
    """Make snapshots/<commit>/<name> a relative link to its blob; without support for links, move the blob there."""
    pointer.unlink(missing_ok=True)
    if not constants.HF_HUB_DISABLE_SYMLINKS:
        try:
            os.symlink(os.path.relpath(blob, pointer.parent), pointer)
            return
        except OSError:  # Windows without developer mode, exFAT
            pass
    files.rename(blob, pointer)
