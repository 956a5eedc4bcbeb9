"""One download as a file, so that a page, a command and the next start see the same:
<workspace>/downloads/<owner>--<name>[@revision]/. For a part of a dataset (core.hub.sets.name.PartName) it is
set-<name>-<mark>/, which holds the files until they are a dataset of ours.

  wish.json   a Download: what a person wants of it, written by whoever asks, and how far it is, written once a second
              at most by whoever holds `lock`
  lock        held by the process that works on it; a kill frees it

A crash leaves wish.json as it was: what was to run goes on at the next start, what was paused stays paused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from huggingface_hub import constants
from pydantic import ValidationError

from core import files
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
CAME = "came"  # the folder of an entry where what comes of a data set lies


class Download(Frozen):
    """asked: when, seconds since 1970. is_first: nothing of the model lay in the cache, so that whoever cancels it may
    throw away all of it. said: of how a data set is to be read (core.data.reading.choices). phase: as whoever works on
    it told last. done, total: in units; total 0 while it is not known. bytes_per_s: in units, of the last seconds.
    message: why it failed, or why it is tried again. has_room: the disk was looked at and has what is missing, which
    other downloads then leave to it. result: the id of the data set that it became. state: made as it is read;
    waiting: for its turn, or for an app; again: its connection broke, and it goes on by itself."""

    repo: str
    revision: str
    wanted: Wanted = "run"
    asked: float
    is_first: bool = False
    said: dict[str, Any] = {}
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
        """For a screen: owner/name, of a data set owner/name:configuration:split and [:rows]."""
        return self.repo.removeprefix(PAGES)

    @property
    def seconds_left(self) -> float | None:
        """None while the size or the speed is unknown."""
        return (self.total - self.done) / self.bytes_per_s if self.bytes_per_s and self.total else None

    @property
    def cached(self) -> CachedRepo:
        """The model's folder in the hub's cache."""
        return CachedRepo(self.repo, cache_folder(None))


TOLD = {"phase", "done", "total", "bytes_per_s", "message", "has_room", "unit", "result"}


@dataclass(frozen=True)
class Entry:
    folder: Path

    @classmethod
    def of(cls, workspace: Workspace, repo: str, revision: str) -> Entry:
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
        """None where there is none, or one that names nothing of a hub: a file may hold anything."""
        found = files.read_model(Download, self.file)
        if found is None or not is_name(found.repo) or not REVISION.fullmatch(found.revision):
            return None
        if not found.phase and (earlier := files.read_object(self.folder / "told.json")).get("asked") == found.asked:
            with suppress(ValidationError):
                found = Download.model_validate({**found.model_dump(), **_of_earlier(earlier)})
        state: State = "paused" if found.wanted == "pause" else "waiting"
        if found.phase in ENDED:
            state = found.phase  # type: ignore[assignment]
        elif state == "waiting" and self.is_held():
            state = found.phase or "running"
        lasts = state in ("again", "failed", "running")
        return found.model_copy(
            update={
                "state": state,
                "bytes_per_s": found.bytes_per_s if state == "running" else None,
                "message": found.message if lasts else None,
            }
        )

    def change(self, make: Callable[[Download | None], Download | None], lasting: bool = True) -> Download | None:
        """Replace the record by what make returns of it, while other processes wait; None writes nothing. Raises
        OSError."""
        with FileLock(self.folder.parent / ".lock", thread_local=False):
            if (made := make(self.read())) is not None:
                self.folder.mkdir(exist_ok=True)
                files.replace(self.file, made.model_dump_json(exclude={"state"}), lasting)
        return made

    def tell(self, told: Download) -> None:
        """Write how far it is; lasting at its end, else the next second writes it again. Raises OSError."""
        progress = {name: getattr(told, name) for name in TOLD}
        self.change(lambda wish: wish and wish.model_copy(update=progress), told.phase in ENDED)

    def is_held(self) -> bool:
        try:
            return files.is_locked(self.lock)
        except OSError:
            return False

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lock; False where somebody else holds it, or the entry is gone."""
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

    def throw_away(self, wish: Download) -> None:
        """What came of a cancelled download: its incomplete files, and the whole of the model where it was the first of
        it and is not complete. Of another tool's files nothing; what Windows refuses stays for the next download of it.
        For whoever holds the lock. What came of a data set lies in the entry itself."""
        if wish.part:
            return
        folder = wish.cached.folder
        if wish.is_first and wish.cached.snapshot(wish.revision) is None:
            files.remove_tree(folder, files.MOMENT_S)
        for path in (folder / "blobs").glob("*.incomplete"):
            with suppress(PermissionError):
                files.patiently(partial(path.unlink, missing_ok=True), files.MOMENT_S)


def _of_earlier(told: dict[str, Any]) -> dict[str, Any]:
    """The progress in a told.json, the file that held it until 2026-11-30, with its phase as `state`."""
    return {name: told[name] for name in TOLD & told.keys()} | {"phase": told.get("state", "")}


def is_name(repo: str) -> bool:
    return REPO_ID.fullmatch(repo) is not None or PartName.parse(repo) is not None
