"""Finds LM Studio's models folder and puts a GGUF file there as MAKER/MODEL/FILE.gguf, the only layout it reads. No
torch.

A hard link where both lie on one disk, so that the file takes its room once, and a copy elsewhere. What is deleted on
one side stays on the other.
"""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path

from core import files
from core.errors import ExportError
from core.export.records import MMPROJ
from core.models import on_disk
from core.workspace import names

MAKER = "lora-garage"
LONGEST = 259 if os.name == "nt" else 4000  # characters of a path that programs on Windows open


def models_folder(home: Path | None = None) -> Path | None:
    """Where it keeps models, as it or its settings say; None where it has never been started here."""
    return next(iter(on_disk.lm_studio_models(home or Path.home())), None)


def wanted_folder(home: Path | None = None) -> Path:
    """As `models_folder`. Raises ExportError where there is none, or where it lies on a disk that is not there now."""
    if (found := models_folder(home)) is None:
        raise ExportError("gguf.no_lmstudio", folder=(home or Path.home()) / ".lmstudio")
    if not found.is_dir() and not found.parent.is_dir():
        raise ExportError("gguf.lmstudio_moved", folder=found)
    return found


def place(file: Path, run_name: str, models: Path) -> Path:
    """file, of a finished export, below LM Studio's models, with what it sees by; an earlier one of the same name is
    replaced. Returns where it is.

    Raises ExportError for a path that is too long, RunError for a disk that does not take it: nothing of it is left
    there then.
    """
    home = models / MAKER / names.slug(run_name, fallback=names.slug(file.stem))
    for beside in file.parent.glob(f"{MMPROJ}*.gguf"):
        _place(beside, home / beside.name, models)
    return _place(file, home / file.name, models)


def _place(file: Path, target: Path, models: Path) -> Path:
    aside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    if len(str(aside)) > LONGEST:
        raise ExportError("gguf.lmstudio_too_long", file=target, found=len(str(aside)), limit=LONGEST)
    with files.writing(models):
        there = [folder for folder in (target.parent, target.parent.parent, models) if folder.is_dir()]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):  # by one that was killed
                left.unlink()
            files.link_or_copy(file, aside)
            files.rename(aside, target)
        finally:
            with contextlib.suppress(OSError):  # what was there before, or is not empty, stays
                aside.unlink(missing_ok=True)
                for folder in (target.parent, target.parent.parent):
                    if folder not in there and not target.exists():
                        folder.rmdir()
        files.sync_folder(target.parent)
    return target
