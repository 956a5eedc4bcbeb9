"""Downloads one model's files from the hub into the cache: several at once, each resumed. Blocks; killed to stop.

Listing and refusals first, then config.json and what `accept` says to it, then the index, the room on the disk, and the
rest. The bytes come by huggingface_hub's `http_get` or its Xet storage. Why not its `hf_hub_download`: in 2.4 a broken
or killed download starts again at byte 0, because each call writes a file of its own name (its pull request 4228). Here
one `Growing` file a blob, under the lock that huggingface_hub takes for it. Size and sha256 are compared before a blob
gets its name; `refs/<revision>` is written last, so a revision that resolves was whole when it was written.
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
from core.hub import growing, listing, xet
from core.hub.answers import Interrupted, in_words
from core.hub.cached import INDEX, SINGLE, CachedRepo, has, shards
from core.hub.growing import Growing, TooLong
from core.hub.listing import TIMEOUT_S, File, Listing

AT_ONCE = 4  # files; Xet fetches each in parts besides
TRIES_WITHOUT_A_BYTE = 3  # each of them up to five of http_get's own
RETRY_WAIT_S = 1.0


class Unwanted(Exception):
    """Nobody wants this transfer any more."""


class Transfer:
    """`fetch` belongs to one thread; `done` and `total` (bytes) may be read, and `leave` called, from any."""

    def __init__(
        self,
        cached: CachedRepo,
        wanted: str,
        endpoint: str,
        accept: Callable[[Path], None],
        room: Callable[[int, int], None],
    ):
        """room: called with the bytes that are missing and those of all files, before the weights; returns where the
        disk has room."""
        self.cached, self.wanted, self.endpoint, self.accept, self.room = cached, wanted, endpoint, accept, room
        self.total, self.unit = 0, "bytes"
        self._arrived: dict[str, int] = {}  # by file
        self._left = threading.Event()

    @property
    def done(self) -> int:
        return min(sum(list(self._arrived.values())), self.total) if self.total else 0

    def leave(self) -> None:
        """Nothing is written after it; a thread that waits for a silent server ends with its process, or at that
        server's time limit."""
        self._left.set()

    def fetch(self, revision: str) -> Path:
        """The snapshot folder, with revision pointing to it. Raises ModelError, and what core.hub.answers has sentences
        for."""
        found = listing.ask(self.cached.repo_id, self.wanted, self.endpoint)
        found.refuse_unusable()
        snapshot = self.cached.folder / "snapshots" / found.commit
        small = found.small_files()
        self._described(found, small[0])  # config.json, which a gated repository refuses
        self._fetch(found, small[0])
        self.accept(snapshot)
        if SINGLE not in found.siblings:
            self._fetch(found, found.file(INDEX))
            small.append(found.file(INDEX))
        wanted = [*small, *found.weights(shards(snapshot / INDEX))]
        self._fetch_where_there_is_room(found, wanted, snapshot)
        found.save(self.cached.folder)
        if revision != found.commit:
            ref = self.cached.folder / "refs" / revision
            ref.parent.mkdir(parents=True, exist_ok=True)
            files.replace(ref, found.commit)
        return snapshot

    def _fetch_where_there_is_room(self, found: Listing, wanted: list[File], snapshot: Path) -> None:
        total = sum(file.size or 0 for file in wanted)
        self.room(sum(max(0, (file.size or 0) - self._bytes_here(file, snapshot)) for file in wanted), total)
        self.total = total
        self._fetch_all(found, wanted)

    def _fetch_all(self, found: Listing, wanted: list[File]) -> None:
        """The first failure ends all; it waits for none of the others, because some may be waiting for a silent
        server."""
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="hub-file")
        try:
            tasks: list[Future[None]] = [pool.submit(self._fetch, found, file) for file in wanted]
            ended, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            failures = [failure for task in tasks if task in ended and (failure := task.exception())]
            if failures:
                raise next((each for each in failures if not isinstance(each, Unwanted)), failures[0])
        finally:
            self.leave()
            pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, found: Listing, file: File) -> None:
        """Put one file into the snapshot; a file that is there in its full size is left as it is."""
        pointer = self.cached.folder / "snapshots" / found.commit / file.name
        blob = self.cached.folder / "blobs" / file.blob
        if not has(pointer, file.size):
            blob.parent.mkdir(parents=True, exist_ok=True)
            pointer.parent.mkdir(parents=True, exist_ok=True)
            with self._only_one(blob):
                if not has(blob, file.size):
                    self._complete(found, file, growing.path_of(blob))
                    files.rename(growing.path_of(blob), blob)
                _point(pointer, blob)
        self._arrived[file.name] = file.size or pointer.stat().st_size

    @contextmanager
    def _only_one(self, blob: Path) -> Iterator[None]:
        """Another tool may be fetching the same file into this cache."""
        lock = self.cached.lock_of(blob.name)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            yield

    def _complete(self, found: Listing, file: File, path: Path) -> None:
        """Fill the incomplete file to its size, over as many connections as it takes, and check what it holds."""

        def grown(size: int) -> None:
            if self._left.is_set():
                raise Unwanted
            self._arrived[file.name] = size

        with Growing(path, file.size, grown) as partial:
            try:
                self._fill(found, file, partial)
            except TooLong:
                partial.restart()
                raise ModelError(
                    "hub.other_file", repo=found.repo_id, file=file.name, expected=in_words(file.size or 0)
                ) from None
            if file.sha256 and partial.sha.hexdigest() != file.sha256:
                partial.restart()
                raise ModelError("hub.damaged", repo=found.repo_id, file=file.name)
            partial.settle()

    def _fill(self, found: Listing, file: File, partial: Growing) -> None:
        url, headers = found.address(file, self.endpoint)
        stored = self._described(found, file) if file.sha256 and partial.size != file.size else None
        tries, longest = 0, partial.size
        while partial.size != file.size:
            failure: Exception | None = None
            try:
                if stored and file.size is not None:
                    stored = _by_xet(stored, file.size, partial, headers)
                    continue
                if not partial.size and (file.size or 0) > constants.MAX_HTTP_DOWNLOAD_SIZE:
                    size = in_words(file.size or 0)
                    raise ModelError("hub.too_large_without_xet", repo=found.repo_id, file=file.name, size=size)
                http_get(url, partial, resume_size=partial.size, headers=headers, expected_size=file.size)
                if file.size is None:
                    return
            except HfHubHTTPError as error:
                if error.response.status_code == 416:
                    raise TooLong from None  # it ends before the size that the listing has
                if error.response.status_code < 500:
                    raise
                failure = error
            except HTTPError as error:
                failure = error
            except OSError as error:
                if error.errno is not None:
                    raise
                failure = error  # http_get's word for a size that is not the expected one
            tries = 0 if partial.size > longest else tries + 1
            longest = max(longest, partial.size)
            if tries >= TRIES_WITHOUT_A_BYTE:
                raise failure if isinstance(failure, HfHubHTTPError) else Interrupted
            if self._left.wait(RETRY_WAIT_S):
                raise Unwanted

    def _described(self, found: Listing, file: File) -> XetFileData | None:
        """What the hub says of a file before its first byte: whether we may have it, its size, and where Xet has it.

        Raises at once what http_get would sleep over (429). Raises ModelError where the size is not the listing's.
        """
        url, _ = found.address(file, self.endpoint)
        said = get_hf_file_metadata(url, token=found.token, timeout=TIMEOUT_S, endpoint=self.endpoint)
        if None not in (said.size, file.size) and said.size != file.size:
            raise ModelError("hub.other_file", repo=found.repo_id, file=file.name, expected=in_words(file.size or 0))
        return said.xet_file_data

    def _bytes_here(self, file: File, snapshot: Path) -> int:
        blob = self.cached.folder / "blobs" / file.blob
        if any(has(path, file.size) for path in (snapshot / file.name, blob)):
            return file.size or 0
        partial = growing.path_of(blob)
        return partial.stat().st_size if partial.is_file() else 0


def _by_xet(stored: XetFileData, size: int, partial: Growing, headers: dict[str, str]) -> XetFileData | None:
    """Fill from the hub's own storage; None where it gives nothing, so that HTTP goes on from what has come."""
    try:
        for chunk in xet.stream(stored, size, partial.size, headers):
            partial.write(chunk)
    except xet.NoXet:
        return None
    return stored if partial.size == size else None


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
