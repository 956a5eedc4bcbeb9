"""The folder that holds everything the app writes: data, the starter model, runs, exports, the lease.

`--workspace DIR` or LORA_GARAGE_HOME names another; the default is `workspace` beside launch.py, for the wheel the
user's data folder. A file `moved.json` in it names the folder that is used instead (`use_copy`), so that a workspace on
another drive is found as before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from core import INSTALLED, files
from core.errors import RecipeError, reason_of
from core.presets import PROJECT
from core.workspace import settings

MOVED, PREFERENCES = "moved.json", "preferences.json"
PARTS = ("datasets", "models", "runs", "exports")
# files that change while a copy is made
APP_FILES = {MOVED, "app.lock", "app.owner.json", "gpu.lock", "gpu.owner.json", "logs/app.log"}
LOG = Path("logs", "app.log")


def expand(path: str | Path) -> Path:
    """Return path with ~ as the home folder. Raises RecipeError if there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RecipeError("workspace.no_home", path=str(path)[:200]) from None


def use_copy(old: Path, folder: Path) -> Path:
    """Write moved.json into `old`, a workspace, so that folder, the user's copy of it, is used from now on; return
    folder's path. Raises RecipeError if one lies in the other, or a file is missing in the copy."""
    new, old_resolved = expand(folder).absolute(), old.resolve()
    new_resolved = new.resolve()
    if new_resolved == old_resolved or old_resolved in new_resolved.parents or new_resolved in old_resolved.parents:
        raise RecipeError("workspace.inside", folder=new, workspace=old)
    try:
        if missing := _not_in(old_resolved, new_resolved):
            raise RecipeError("workspace.not_copied", folder=new, workspace=old, missing=missing)
        (new / MOVED).unlink(missing_ok=True)  # from an earlier move, if the workspace returns to a former place
        files.replace_json(old / MOVED, {"to": str(new)})
    except OSError as error:
        raise RecipeError("workspace.cannot_make", folder=old, reason=reason_of(error)) from error
    return new


def _not_in(old: Path, new: Path) -> str:
    """Return the first file or folder of old that new lacks or has in another size, caches left out; "" if it has all.
    Raises OSError."""
    for folder, folder_names, file_names in os.walk(old):
        relative = Path(folder).relative_to(old)
        folder_names[:] = sorted(name for name in folder_names if (relative / name).parts[0] != "cache")
        for path in sorted(relative / name for name in file_names if (relative / name).as_posix() not in APP_FILES):
            copy = new / path
            if not copy.is_file() or copy.stat().st_size != (old / path).stat().st_size:
                return str(path)
        if not (new / relative).is_dir():
            return str(relative)
    return ""


@dataclass(frozen=True)
class Workspace:
    """A workspace's folders. of_settings: further folders with base models, of settings.yaml."""

    root: Path
    of_settings: tuple[Path, ...] = ()

    @property
    def added_folders(self) -> tuple[Path, ...]:
        """The library folders that were added on the Models page."""
        added = files.read_object(self.root / PREFERENCES).get("model_folders")
        return tuple(Path(each) for each in added if isinstance(each, str)) if isinstance(added, list) else ()

    @property
    def library_folders(self) -> tuple[Path, ...]:
        """The folders with base models: those of settings.yaml, then those added on the Models page; they need not
        exist."""
        return (*self.of_settings, *self.added_folders)

    @staticmethod
    def place(folder: str | Path | None = None) -> Path:
        """Return the workspace's path, whether it exists or not; nothing is created. folder goes before
        LORA_GARAGE_HOME, that before the default; of a workspace that was moved, the path that it was moved to. Raises
        RecipeError if that is missing."""
        chosen = folder or os.environ.get("LORA_GARAGE_HOME")
        if INSTALLED and not chosen:
            from platformdirs import user_data_path

            return _followed(user_data_path("lora-garage", appauthor=False))
        return _followed(expand(chosen or PROJECT / "workspace").absolute())

    @classmethod
    def open(cls, folder: str | Path | None = None) -> Workspace:
        """Open a workspace, creating missing folders, and follow one that was moved. Raises RecipeError if that fails
        or settings.yaml is broken."""
        root = cls.place(folder)
        try:
            for name in PARTS:
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError("workspace.cannot_make", folder=root, reason=error.strerror or error) from error
        return cls(root, _library_folders(root))

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def log(self) -> Path:
        """Errors of the web process (webui/server/log); a run's own log is its train.log."""
        return self.root / LOG

    @property
    def cache(self) -> Path:
        """The cache folder, created if missing. Anything in it may be deleted while the app is off."""
        folder = self.root / "cache"
        folder.mkdir(exist_ok=True)
        return folder


def _followed(root: Path) -> Path:
    """Return the folder in use, to which moved.json leads (up to 20 times). Raises RecipeError if its drive is not
    connected: no new workspace is made elsewhere."""
    for _ in range(20):
        try:
            to = files.read_for_update(root / MOVED).get("to")
        except OSError as error:
            raise RecipeError("workspace.cannot_make", folder=root, reason=error.strerror or error) from error
        if not isinstance(to, str):
            break
        if not Path(to).is_dir():
            raise RecipeError("workspace.moved_away", folder=to, file=root / MOVED)
        root = Path(to)
    return root


def _library_folders(root: Path) -> tuple[Path, ...]:
    """Return the absolute folders in `library_folders: [D:/models, ...]` of settings.yaml. Raises RecipeError for
    anything but a list."""
    values = settings.read(root)
    try:
        return tuple(expand(str(folder)).absolute() for folder in values.get("library_folders", []))
    except TypeError as error:
        raise RecipeError("workspace.bad_settings", file=root / settings.NAME, reason=reason_of(error)) from error
