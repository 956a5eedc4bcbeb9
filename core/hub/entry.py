"""A download as a file, shared by a page, a command and the next start:
<workspace>/downloads/<owner>--<name>[@revision]/. For a part of a dataset (core.hub.sets.name.PartName) it is
set-<name>-<mark>/, which holds the files until they are a dataset of the library.

  wish.json   a Download: the request, written by the process that makes it, and the progress, written at most once a
              second by the process that holds `lock`
  lock        held by the process that works on it; a kill frees it

A crash leaves wish.json as it was: a running download goes on at the next start, a paused one stays paused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from huggingface_hub import constants

from core import files
from core.files import JsonObject
from core.hub.cached import REPO_ID, REVISION, CachedRepo, cache_folder
from core.hub.sets.name import PAGES, PartName
from core.messages import Message
from core.values import Frozen
from core.workspace.folder import Workspace
from core.workspace.names import slug

Wanted = Literal["run", "pause", "cancel"]
Phase = Literal["", "running", "again", "failed", "done"]
State = Literal["waiting", "running", "again", "paused", "failed", "done"]
ENDED = ("failed", "done")
CAME = "came"  # an entry's folder for a dataset's downloaded files


class Download(Frozen):
    """A download's request and progress.

    asked: time of the request, seconds since 1970. is_first: the cache held nothing of the model before, so that
    cancelling may delete all of it. said: options for reading a dataset (core.data.reading.choices). phase: the last
    one written by the working process. done, total: in units; total is 0 while unknown. bytes_per_s: units a second,
    over the last seconds. message: why it failed or is retried. has_room: the disk has space for the rest, which other
    downloads leave free. result: id of the dataset that it became. state: derived on reading; waiting: for its turn, or
    for an app; again: its connection broke, and it will be retried.
    """

    repo: str
    revision: str
    wanted: Wanted = "run"
    asked: float
    is_first: bool = False
    said: JsonObject = {}
    phase: Phase = ""
    done: int = 0
    total: int = 0
    bytes_per_s: float | None = None
    message: Message | None = None
    has_room: bool = False
    unit: str = "bytes"
    result: str = ""
    state: State = "waiting"

    @property
    def part(self) -> PartName | None:
        """The part of a dataset that is downloaded; None for a model."""
        return PartName.parse(self.repo)

    @property
    def name(self) -> str:
        """The name to show: owner/name; for a dataset owner/name:configuration:split and [:rows]."""
        return self.repo.removeprefix(PAGES)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left; None while the size or the speed is unknown."""
        return (self.total - self.done) / self.bytes_per_s if self.bytes_per_s and self.total else None

    @property
    def cached(self) -> CachedRepo:
        """The model's folder in the hub's cache."""
        return CachedRepo(self.repo, cache_folder(None))


PROGRESS_FIELDS = {"phase", "done", "total", "bytes_per_s", "message", "has_room", "unit", "result"}


@dataclass(frozen=True)
class Entry:
    """The folder of one download."""

    folder: Path

    @classmethod
    def for_download(cls, workspace: Workspace, repo: str, revision: str) -> Entry:
        if part := PartName.parse(repo):
            mark = hashlib.sha256(str(part).encode()).hexdigest()[:10]
            return cls(workspace.root / "downloads" / f"set-{slug(part.repo.partition('/')[2], 'data')[:30]}-{mark}")
        other = "" if revision == constants.DEFAULT_REVISION else "@" + revision.replace("/", "--")
        return cls(workspace.root / "downloads" / (repo.replace("/", "--") + other))

    @property
    def file(self) -> Path:
        return self.folder / "wish.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def read(self) -> Download | None:
        """The download with its state; None if the file is missing or names no repository: a file may hold anything."""
        record = files.read_model(Download, self.file)
        if record is None or not is_name(record.repo) or not REVISION.fullmatch(record.revision):
            return None
        state: State = "paused" if record.wanted == "pause" else "waiting"
        if record.phase in ENDED:
            state = record.phase  # type: ignore[assignment]
        elif state == "waiting" and self.is_held():
            state = record.phase or "running"
        lasts = state in ("again", "failed", "running")
        return record.model_copy(
            update={
                "state": state,
                "bytes_per_s": record.bytes_per_s if state == "running" else None,
                "message": record.message if lasts else None,
            }
        )

    def change(self, make: Callable[[Download | None], Download | None], lasting: bool = True) -> Download | None:
        """Replace the record by make's result while other processes wait; None writes nothing. Raises OSError."""
        with FileLock(self.folder.parent / ".lock", thread_local=False):
            if (record := make(self.read())) is not None:
                self.folder.mkdir(exist_ok=True)
                files.replace(self.file, record.model_dump_json(exclude={"state"}), lasting)
        return record

    def save_progress(self, download: Download) -> None:
        """Write the progress; flushed to disk only at the end, otherwise the next second writes it again. Raises
        OSError."""
        progress = {name: getattr(download, name) for name in PROGRESS_FIELDS}
        self.change(lambda record: record and record.model_copy(update=progress), download.phase in ENDED)

    def is_held(self) -> bool:
        try:
            return files.is_locked(self.lock)
        except OSError:
            return False

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock during the block; yields False if another process holds it, or the entry is gone."""
        lock = FileLock(self.lock, thread_local=False)
        try:
            lock.acquire(timeout=files.LOOK_S)
        except (Timeout, FileNotFoundError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def delete_files(self, download: Download) -> None:
        """Delete a cancelled model's incomplete files, and all of the model if this was its first download and it is
        incomplete.

        Other tools' files stay, and what Windows refuses to delete stays for the next download. The caller holds the
        lock. A dataset's files are in the entry itself.
        """
        if download.part:
            return
        folder = download.cached.folder
        if download.is_first and download.cached.snapshot(download.revision) is None:
            files.remove_tree(folder, files.MOMENT_S)
        for path in (folder / "blobs").glob("*.incomplete"):
            with suppress(PermissionError):
                files.retry_if_busy(partial(path.unlink, missing_ok=True), files.MOMENT_S)


def is_name(repo: str) -> bool:
    return REPO_ID.fullmatch(repo) is not None or PartName.parse(repo) is not None
