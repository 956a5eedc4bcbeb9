"""Moves the workspace to another folder or drive: copies every file, reads it back, then leaves a pointer in the old folder.

    <old>/move.json       wish: what the page asked for, done by the next start; problem: why that one did not
    <old>/moved.json      to: where the workspace is. Written last: until then the old one is the workspace, whatever is killed
    <new>/moving.json     while files arrive; a folder that has it is no workspace yet, and the next try goes on with it
    <new>/moved_from.json from: the old folder, as long as its copy is kept; `forget_old` deletes it when the person says so

Nothing is deleted before that. Locks and the cache stay behind. A file of several names (hard links) arrives as one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from core import files
from core.errors import BusyError, RecipeError, reason_of
from core.messages import Message, msg
from core.values import Frozen
from core.workspace import lease
from core.workspace.folder import MOVED, Workspace, expand
from core.workspace.owner import Ownership

WISH, MOVING, FROM = "move.json", "moving.json", "moved_from.json"
STAYS = {WISH, MOVED, MOVING, FROM, "app.lock", "app.owner.json", "gpu.lock", "gpu.owner.json", "cache"}
SPARE = 1 << 28  # bytes that stay free on the new drive
CHUNK = 1 << 22
Report = Callable[[int, int], None]  # bytes done, of how many


class MoveWish(Frozen):
    to: str
    problem: Message | None = None


def by_twentieths(say: Callable[[Message], None]) -> Report:
    """Told in so many sentences, whatever the number of files."""
    told = 0

    def report(done: int, total: int) -> None:
        nonlocal told
        if total and 20 * done // total > told:
            told = 20 * done // total
            say(msg("moving.progress", done=done / 1e9, total=total / 1e9))

    return report


def wish(workspace: Workspace) -> MoveWish | None:
    return files.read_model(MoveWish, workspace.root / WISH)


def ask_for(workspace: Workspace, folder: str) -> Path:
    """The next start moves it. Raises RecipeError where it cannot go there."""
    target = fit_for(workspace, folder)
    files.replace_json(workspace.root / WISH, MoveWish(to=str(target)).model_dump(mode="json"))
    return target


def take_back(workspace: Workspace) -> None:
    (workspace.root / WISH).unlink(missing_ok=True)


def size(workspace: Workspace) -> int:
    """Bytes of what a move would take along."""
    return sum(size for _, size in _parts(workspace.root))


def old_copy(workspace: Workspace) -> Path | None:
    """The folder that the workspace was moved from, while its files are still there."""
    said = files.read_object(workspace.root / FROM).get("from")
    old = Path(said) if isinstance(said, str) else None
    moved_here = old and files.read_object(old / MOVED).get("to") == str(workspace.root)
    return old if old and moved_here and any(path.name != MOVED for path in old.iterdir()) else None


def fit_for(workspace: Workspace, folder: str) -> Path:
    """folder as a whole path. Raises RecipeError where it is no new place for the workspace."""
    if not folder.strip():
        raise RecipeError("moving.nowhere")
    target, root = expand(folder.strip()).absolute(), workspace.root
    if "\0" in folder or len(folder) > 1000:
        raise RecipeError("moving.cannot_write", folder=folder[:100].replace("\0", "?"), reason="?")
    if target == root or root in target.resolve().parents or target in root.resolve().parents:
        raise RecipeError("moving.inside", folder=target, workspace=root)
    begun = files.read_object(target / MOVING).get("from") == str(root)
    try:
        if (
            target.exists()
            and not begun
            and any(path.name != MOVED and not path.name.startswith(f".{MOVING}") for path in target.iterdir())
        ):
            raise RecipeError("moving.not_empty", folder=target)
        there = next(parent for parent in (target, *target.parents) if parent.exists())
        if reason := files.reason_against(there):
            raise RecipeError("moving.cannot_write", folder=target, reason=reason)
        needed, free = size(workspace), shutil.disk_usage(there).free
        held = sum(size for _, size in _parts(target)) if begun else 0
    except (OSError, StopIteration, RuntimeError) as error:
        raise RecipeError("moving.cannot_write", folder=target, reason=reason_of(error)) from error
    if needed + SPARE > free + held:
        raise RecipeError("moving.no_room", folder=target, needed=needed / 1e9, free=free / 1e9)
    return target


def move(workspace: Workspace, folder: str, report: Report) -> Workspace:
    """The workspace in its new place; the old files stay. Raises RecipeError, and BusyError while an app, a run or an export is at work;
    then the old one is the workspace as before."""
    target, owner = fit_for(workspace, folder), Ownership(workspace)
    try:
        if owner.claim("", patience_s=0.0):
            raise BusyError("moving.app_open")
        with lease.hold(workspace, msg("moving.doing", folder=target)):
            _copy_all(workspace.root, target, report)
            files.replace_json(target / FROM, {"from": str(workspace.root)})
            files.sync_folder(target)
            (target / MOVED).unlink(missing_ok=True)  # it comes back to where it once was; all of it is there by now
            files.replace_json(workspace.root / MOVED, {"to": str(target)})
            (target / MOVING).unlink(missing_ok=True)
            take_back(workspace)
    except OSError as error:
        raise RecipeError("moving.failed", folder=target, reason=reason_of(error)) from error
    finally:
        owner.release()
    return Workspace.open(target)


def move_where_asked(workspace: Workspace, report: Report) -> Workspace:
    """What the page asked for, before an app opens the workspace. Where it cannot be, the reason is kept for the page; where somebody is
    at work, the next start tries again."""
    wanted = wish(workspace)
    if wanted is None or wanted.problem is not None:
        return workspace
    try:
        return move(workspace, wanted.to, report)
    except BusyError:
        return workspace
    except RecipeError as error:
        with contextlib.suppress(OSError):
            files.replace_json(workspace.root / WISH, MoveWish(to=wanted.to, problem=error.message).model_dump(mode="json"))
        return workspace


def forget_old(workspace: Workspace) -> int:
    """Delete the old copy, once: bytes. What is left of the old folder is the file that points here. Raises RecipeError without one."""
    old = old_copy(workspace)
    if old is None:
        raise RecipeError("moving.no_old")
    freed = sum(size for _, size in _parts(old))
    for path in old.iterdir():
        if path.name == MOVED:
            continue
        if path.is_dir() and not path.is_symlink():
            files.remove_tree(path)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
    (workspace.root / FROM).unlink(missing_ok=True)
    return freed


def _parts(root: Path) -> Iterator[tuple[Path, int]]:
    """All files below root that move, and the links, with their bytes; a second name of a file counts nothing."""
    seen: set[tuple[int, int]] = set()
    for folder, names, inside in os.walk(root):
        at_top = Path(folder) == root
        names[:] = [name for name in names if not (at_top and name in STAYS) and not Path(folder, name).is_symlink()]
        links = [entry.name for entry in os.scandir(folder) if entry.is_symlink() and entry.is_dir()]
        for name in (*inside, *links):
            path = Path(folder, name)
            if at_top and name in STAYS:
                continue
            stat = path.lstat()
            again = stat.st_nlink > 1 and (stat.st_dev, stat.st_ino) in seen
            seen.add((stat.st_dev, stat.st_ino))
            yield path, 0 if again or path.is_symlink() else stat.st_size


def _copy_all(root: Path, target: Path, report: Report) -> None:
    """Raises OSError."""
    target.mkdir(parents=True, exist_ok=True)
    files.replace_json(target / MOVING, {"from": str(root)})
    total, done = sum(size for _, size in _parts(root)), 0
    first_name: dict[tuple[int, int], Path] = {}
    for folder in (path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()):
        if folder.relative_to(root).parts[0] not in STAYS:
            (target / folder.relative_to(root)).mkdir(parents=True, exist_ok=True)
    for path, size in _parts(root):
        to, stat = target / path.relative_to(root), path.lstat()
        known = first_name.setdefault((stat.st_dev, stat.st_ino), to)
        if path.is_symlink():
            to.unlink(missing_ok=True)
            to.symlink_to(os.readlink(path), target_is_directory=path.is_dir())
        elif known != to:
            to.unlink(missing_ok=True)
            files.link_or_copy(known, to)
        elif not (to.exists() and to.stat().st_size == stat.st_size and _digest(to) == _digest(path)):
            _copy(path, to)
        done += size
        report(done, total)


def _copy(path: Path, to: Path) -> None:
    """Read back after it was written: a drive that lies is found before anything points to it. Raises OSError."""
    aside, digest = to.with_name(f".{to.name}.tmp-move"), hashlib.sha256()
    with open(path, "rb") as source, open(aside, "wb") as copied:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            copied.write(chunk)
        copied.flush()
        os.fsync(copied.fileno())
    if _digest(aside) != digest.digest():
        raise OSError(0, msg("moving.differs", file=path).render("en"))
    shutil.copystat(path, aside)
    files.rename(aside, to)


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
