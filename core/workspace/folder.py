"""The folder that holds everything the app writes: data, the starter model, runs, exports, the lease.

`--workspace DIR` or LORA_GARAGE_HOME names another; the default is `workspace` beside launch.py, for the wheel the
user's data folder. A file `moved.json` in it names the folder that is used instead (`use`), so that a workspace on
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

MOVED = "moved.json"
PARTS = ("datasets", "models", "runs", "exports")
# which change while a copy is made
OF_APPS = {MOVED, "app.lock", "app.owner.json", "gpu.lock", "gpu.owner.json", "logs/app.log"}
LOG = Path("logs", "app.log")
FROM_GGUF = Path("models", "from-gguf")


def expand(path: str | Path) -> Path:
    """path with its ~ resolved. Raises RecipeError for a home that is not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RecipeError("workspace.no_home", path=str(path)[:200]) from None


def use(old: Path, folder: Path) -> Path:
    """From now on the workspace of `old` is the one in folder, to which a person has copied it. Raises RecipeError."""
    new, here = expand(folder).absolute(), old.resolve()
    there = new.resolve()
    if there == here or here in there.parents or there in here.parents:
        raise RecipeError("workspace.inside", folder=new, workspace=old)
    try:
        if missing := _not_in(here, there):
            raise RecipeError("workspace.not_copied", folder=new, workspace=old, missing=missing)
        (new / MOVED).unlink(missing_ok=True)  # of a workspace that comes back to where it once was
        files.replace_json(old / MOVED, {"to": str(new)})
    except OSError as error:
        raise RecipeError("workspace.cannot_make", folder=old, reason=reason_of(error)) from error
    return new


def _not_in(old: Path, new: Path) -> str:
    """The first file of old that new lacks or has in another size; "" where all are there. Raises OSError."""
    for folder, names, inside in os.walk(old):
        at = Path(folder).relative_to(old)
        names[:] = sorted(name for name in names if (at / name).parts[0] != "cache")
        for path in sorted(at / name for name in inside if (at / name).as_posix() not in OF_APPS):
            copy = new / path
            if not copy.is_file() or copy.stat().st_size != (old / path).stat().st_size:
                return str(path)
        if not (new / at).is_dir():
            return str(at)
    return ""


@dataclass(frozen=True)
class Workspace:
    root: Path
    library_folders: tuple[Path, ...] = ()

    @staticmethod
    def place(folder: str | Path | None = None) -> Path:
        """Where the workspace is or would be; nothing is made."""
        chosen = folder or os.environ.get("LORA_GARAGE_HOME")
        if INSTALLED and not chosen:
            from platformdirs import user_data_path

            return _followed(user_data_path("lora-garage", appauthor=False))
        return _followed(expand(chosen or PROJECT / "workspace").absolute())

    @classmethod
    def open(cls, folder: str | Path | None = None) -> Workspace:
        """Make the folders that are missing. Raises RecipeError where they cannot be made or settings.yaml is
        broken."""
        root = cls.place(folder)
        try:
            for name in PARTS:
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecipeError("workspace.cannot_make", folder=root, reason=error.strerror or error) from error
        return cls(root, (*_library_folders(root), root / FROM_GGUF))

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def from_gguf(self) -> Path:
        """A library folder of the app's own: bases that were made of GGUF files (core.export.llamacpp.base)."""
        return self.root / FROM_GGUF

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def log(self) -> Path:
        """What went wrong in the web process (webui/server/log); a run's own story is in its train.log."""
        return self.root / LOG

    @property
    def recipes(self) -> Path:
        """Presets of the person's own; made when the first is saved."""
        return self.root / "recipes"

    @property
    def cache(self) -> Path:
        """Anything here may be deleted while the app is off."""
        folder = self.root / "cache"
        folder.mkdir(exist_ok=True)
        return folder


def _followed(root: Path) -> Path:
    """Where root's files are now. Raises RecipeError where they went to a drive that is not there: it is not made anew
    elsewhere."""
    for _ in range(20):
        try:
            to = files.object_to_change(root / MOVED).get("to")
        except OSError as error:
            raise RecipeError("workspace.cannot_make", folder=root, reason=error.strerror or error) from error
        if not isinstance(to, str):
            break
        if not Path(to).is_dir():
            raise RecipeError("workspace.moved_away", folder=to, file=root / MOVED)
        root = Path(to)
    return root


def _library_folders(root: Path) -> tuple[Path, ...]:
    """`library_folders: [D:/models, ...]` of settings.yaml."""
    said = settings.read(root)
    try:
        return tuple(expand(str(folder)).absolute() for folder in said.get("library_folders", []))
    except TypeError as error:
        raise RecipeError("workspace.bad_settings", file=root / settings.NAME, reason=reason_of(error)) from error
