"""One download as files, so that a page, a command and the next start see the same:
<workspace>/downloads/<owner>--<name>[@revision]/.
For a part of a dataset (core.hub.sets.name.PartName) it is set-<name>-<mark>/, which holds the files until they are a
dataset of ours.

  wish.json   what a person wants of it; written by whoever asks
  told.json   how far it is; written by whoever holds `lock`, once a second at most
  lock        held by the process that works on it; a kill frees it

A crash leaves wish.json as it was: what was to run goes on at the next start, what was paused stays paused.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants

from core import files
from core.hub.cached import REPO_ID, REVISION, CachedRepo, cache_folder
from core.hub.sets.name import PAGES, PartName
from core.messages import Message
from core.values import Frozen
from core.workspace.folder import Workspace
from core.workspace.names import slug

Wanted = Literal["run", "pause", "cancel"]
State = Literal["waiting", "running", "again", "paused", "failed", "done"]
ENDED = ("failed", "done")
CAME = "came"  # the folder of an entry where what comes of a data set lies


class WantedDownload(Frozen):
    """asked: when, seconds since 1970; what is told counts for the wish of that time. is_first: nothing of the model
    lay in the cache, so that whoever cancels it may throw away all of it. said: of how a data set is to be read
    (core.data.reading.choices)."""

    repo: str
    revision: str
    wanted: Wanted
    asked: float
    is_first: bool = False
    said: dict[str, Any] = {}


class ToldProgress(Frozen):
    """done, total: in units, bytes_per_s in units of the last seconds. message: why it failed, or why it is tried
    again. has_room: the disk was looked at and has what is missing, which other downloads then leave to it. result: the
    id of the data set that it became."""

    asked: float
    state: Literal["running", "again", "failed", "done"]
    done: int = 0
    total: int = 0
    bytes_per_s: float | None = None
    message: Message | None = None
    has_room: bool = False
    unit: str = "bytes"
    result: str = ""


class Download(Frozen):
    """A row of the list. waiting: for its turn, or for an app. again: its line broke, and it goes on by itself. total:
    0 while it is not
    known. seconds_left: None where nothing tells."""

    repo: str
    revision: str
    state: State
    done: int
    total: int
    bytes_per_s: float | None
    message: Message | None
    asked: float
    unit: str = "bytes"
    result: str = ""

    @property
    def part(self) -> PartName | None:
        """Of a data set; None of a model."""
        return PartName.parse(self.repo)

    @property
    def name(self) -> str:
        """For a screen: owner/name, of a data set owner/name:configuration:split and [:rows]."""
        return self.repo.removeprefix(PAGES)

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.bytes_per_s if self.bytes_per_s and self.total else None


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
    def lock(self) -> Path:
        return self.folder / "lock"

    def wish(self) -> WantedDownload | None:
        """None where there is none, or one that names nothing of a hub: a file may hold anything."""
        wish = files.read_model(WantedDownload, self.folder / "wish.json")
        return wish if wish and is_name(wish.repo) and REVISION.fullmatch(wish.revision) else None

    def ask(self, wish: WantedDownload) -> None:
        """Raises RunError with a sentence where the disk does not take it."""
        with files.writing(self.folder.parents[1]):
            self.folder.mkdir(parents=True, exist_ok=True)
            files.replace_json(self.folder / "wish.json", wish.model_dump(mode="json"))

    def cached(self, wish: WantedDownload) -> CachedRepo:
        """Where what it brings lies: a model in the hub's cache, of a data set here until it is one of ours."""
        part = PartName.parse(wish.repo)
        return (
            CachedRepo(part.repo, self.folder / CAME, "dataset") if part else CachedRepo(wish.repo, cache_folder(None))
        )

    def told(self) -> ToldProgress | None:
        return files.read_model(ToldProgress, self.folder / "told.json")

    def tell(self, told: ToldProgress) -> None:
        """Lasting where it is the end of it; else the next second writes it again. Raises OSError."""
        files.replace(self.folder / "told.json", told.model_dump_json(), lasting=told.state in ENDED)

    def is_held(self) -> bool:
        try:
            return files.is_locked(self.lock)
        except OSError:
            return False

    def row(self) -> Download | None:
        wish, told = self.wish(), self.told()
        if wish is None or wish.wanted == "cancel":
            return None
        is_ours = told is not None and told.asked == wish.asked
        state: State
        if told is not None and is_ours and told.state in ENDED:
            state = told.state
        elif wish.wanted == "pause":
            state = "paused"
        elif self.is_held():
            state = told.state if told is not None and is_ours else "running"
        else:
            state = "waiting"
        seen: dict[str, Any] = told.model_dump(include={"done", "total", "unit"}) if told else {"done": 0, "total": 0}
        is_moving = told is not None and state in ("running", "again", "failed")
        return Download(
            repo=wish.repo,
            revision=wish.revision,
            state=state,
            bytes_per_s=told.bytes_per_s if told and state == "running" else None,
            message=told.message if told and is_moving and is_ours else None,
            asked=wish.asked,
            result=told.result if told and state == "done" else "",
            **seen,
        )

    def throw_away(self, wish: WantedDownload) -> None:
        """What came of a cancelled download: its incomplete files, and the whole of the model where it was the first of
        it and is not complete. Of another tool's files nothing; what Windows refuses stays for the next download of it.
        For whoever holds the lock. What came of a data set lies in the entry itself."""
        if PartName.parse(wish.repo):
            return
        cached = self.cached(wish)
        if wish.is_first and cached.snapshot(wish.revision) is None:
            files.remove_tree(cached.folder, files.MOMENT_S)
        for path in (cached.folder / "blobs").glob("*.incomplete"):
            with suppress(PermissionError):
                files.patiently(partial(path.unlink, missing_ok=True), files.MOMENT_S)


def is_name(repo: str) -> bool:
    return REPO_ID.fullmatch(repo) is not None or PartName.parse(repo) is not None


def wish_now(
    repo: str, revision: str, wanted: Wanted, is_first: bool, said: dict[str, Any] | None = None
) -> WantedDownload:
    return WantedDownload(
        repo=repo, revision=revision, wanted=wanted, asked=time.time(), is_first=is_first, said=said or {}
    )
