"""LM Studio's folder of models: found, and given a GGUF file as MAKER/MODEL/FILE.gguf, the only way in which it sees one. No torch.

A hard link where both lie on one disk, so that the file takes its room once, and a copy elsewhere. What is deleted on one side stays on the other.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from core import files
from core.errors import ExportError
from core.workspace import names

MAKER = "lora-garage"
POINTER = ".lmstudio-home-pointer"  # a file in the home folder with the path of LM Studio's own


def models_folder(home: Path | None = None) -> Path | None:
    """Where it keeps models; None where it has never been started here."""
    home = home or Path.home()
    places = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    try:
        if said := (home / POINTER).read_text("utf-8").strip():
            places.insert(0, Path(said))
    except (OSError, ValueError):
        pass  # no such file, or one that holds no path
    return next((place / "models" for place in places if place.is_dir()), None)


def wanted_folder(home: Path | None = None) -> Path:
    """As `models_folder`. Raises ExportError where there is none."""
    if (found := models_folder(home)) is None:
        raise ExportError("gguf.no_lmstudio", folder=(home or Path.home()) / ".lmstudio")
    return found


def place(file: Path, run_name: str, models: Path) -> Path:
    """file, of a finished export, below LM Studio's models; an earlier one of the same name is replaced. Returns where it is."""
    target = models / MAKER / names.slug(run_name, fallback=names.slug(file.stem)) / file.name
    with files.writing(models):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
        try:
            _link_or_copy(file, aside)
            files.rename(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        files.sync_folder(target.parent)
    return target


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file, target)
        with open(target, "rb+") as copied:
            os.fsync(copied.fileno())
