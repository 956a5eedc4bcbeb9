"""Models on this PC: the hub's cache, the starter and the library folders. No network.

Only models in the hub's cache can be deleted, and only as a whole: the cache is shared with every other tool, so a
person does it, by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from filelock import Timeout
from huggingface_hub.utils import WeakFileLock

from core import files
from core.errors import ModelError
from core.hub.cached import REPO_ID, CachedRepo, cache_folder
from core.models import starter
from core.workspace.folder import Workspace

Store = Literal["hub", "starter", "library"]
MAX_ENTRIES = 1000  # rows of a store


@dataclass(frozen=True)
class Use:
    """A run that uses a model. needs_it: it waits, is at work, or can be resumed. created: seconds since 1970."""

    run: str
    needs_it: bool
    created: float


@dataclass(frozen=True)
class StoredModel:
    """A model on this PC.

    id: the model.id. size: bytes. last_used: newest access or change of one of its files, or start of a run, seconds
    since 1970; some systems record accesses once a day, some never. is_complete: for the hub's, whether it loads.
    """

    store: Store
    id: str
    folder: Path
    size: int
    last_used: float
    is_complete: bool = True
    uses: tuple[Use, ...] = ()

    @property
    def can_delete(self) -> bool:
        """True if it is in the hub's cache and no run needs it."""
        return self.store == "hub" and not any(use.needs_it for use in self.uses)


def on_disk(workspace: Workspace, uses: Mapping[str, Sequence[Use]] | None = None) -> list[StoredModel]:
    """Return all models, the largest first. uses: by model id (core.runs.all.Runs.uses)."""
    rows = [*_hub(), *_starter_if_downloaded(workspace), *_library(workspace)]
    return sorted((_with_uses(row, (uses or {}).get(row.id, ())) for row in rows), key=lambda row: (-row.size, row.id))


def _with_uses(row: StoredModel, uses: Sequence[Use]) -> StoredModel:
    """Return the row with these uses, and last_used no earlier than the newest of them."""
    newest = max((use.created for use in uses), default=0.0)
    return replace(row, uses=tuple(uses), last_used=max(row.last_used, newest))


def delete(repo_id: str, uses: Mapping[str, Sequence[Use]]) -> int:
    """Delete a model of the hub's cache with all its revisions; return the freed bytes.

    Raises ModelError, for an id that is not of the hub or not there, a model that a run needs (named), and one that is
    open or being downloaded.
    """
    if not REPO_ID.fullmatch(repo_id):
        raise ModelError("on_disk.not_of_the_hub", model=repo_id[:100])
    cached = CachedRepo(repo_id, cache_folder(None))
    if not cached.folder.is_dir():
        raise ModelError("on_disk.not_there", model=repo_id, folder=cached.cache)
    if runs := [use.run for use in uses.get(repo_id, ()) if use.needs_it]:
        raise ModelError("on_disk.used", model=repo_id, runs=runs[:5])
    cached.lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with WeakFileLock(cached.lock, timeout=files.LOOK_S):
            size, _ = _size_and_use(cached.folder)
            # References go first: an interrupted deletion leaves no model that looks complete.
            for name in ("refs", "snapshots"):
                files.remove_tree(cached.folder / name, files.MOMENT_S)
            if not files.remove_tree(cached.folder, files.MOMENT_S):
                raise ModelError("on_disk.in_use", model=repo_id, folder=cached.folder)
    except Timeout:
        raise ModelError("on_disk.downloading", model=repo_id) from None
    return size


def _hub() -> Iterator[StoredModel]:
    """Yield the models in the hub's cache with size and last use; complete is one of which any ref has all files."""
    cache = cache_folder(None)
    for folder in _folders(cache):
        parts = folder.name.split("--")
        repo_id = "/".join(parts[1:])
        if parts[0] != "models" or not REPO_ID.fullmatch(repo_id):
            continue
        cached = CachedRepo(repo_id, cache)
        refs = [
            path.relative_to(cached.folder / "refs").as_posix()
            for path in (cached.folder / "refs").rglob("*")
            if path.is_file()
        ]
        size, last_used = _size_and_use(folder)
        yield StoredModel("hub", repo_id, folder, size, last_used, any(cached.snapshot(ref) for ref in refs))


def _starter_if_downloaded(workspace: Workspace) -> Iterator[StoredModel]:
    """Yield the starter with its size and last use, if its folder is complete; else nothing."""
    if starter.is_ready(workspace.models):
        folder = starter.folder(workspace.models)
        yield StoredModel("starter", "starter", folder, *_size_and_use(folder))


def _library(workspace: Workspace) -> Iterator[StoredModel]:
    """Yield models of the library folders with size and last use, named as in core.models.library: the first one of
    each name."""
    names = set()
    for root in workspace.library_folders:
        for folder in [root, *_folders(root)] if root.is_dir() else []:
            if (folder / "config.json").is_file() and folder.name not in names:
                names.add(folder.name)
                yield StoredModel("library", f"library:{folder.name}", folder, *_size_and_use(folder))


def _folders(root: Path) -> list[Path]:
    """Return the folders among root's first MAX_ENTRIES names; empty if it is missing or unreadable."""
    try:
        return [path for path in sorted(root.iterdir())[:MAX_ENTRIES] if path.is_dir()]
    except OSError:
        return []


def _size_and_use(folder: Path) -> tuple[int, float]:
    """Return the bytes of a folder's files (at most 10 * MAX_ENTRIES), links counted once by their target, and the last
    use of any of them, 0 if empty."""
    size, last_used, counted = 0, 0.0, set()
    inside = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    for path in islice(inside, 10 * MAX_ENTRIES):
        with suppress(OSError):  # a broken link, or a file deleted meanwhile
            stat = os.stat(path)
            if S_ISREG(stat.st_mode) and (stat.st_dev, stat.st_ino) not in counted:
                counted.add((stat.st_dev, stat.st_ino))
                size += stat.st_size
                last_used = max(last_used, stat.st_atime, stat.st_mtime)
    return size, last_used
