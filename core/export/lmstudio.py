"""Finds LM Studio's models folder and puts a GGUF file there as MAKER/MODEL/FILE.gguf, the only layout it reads. No
torch.

The file is hard-linked if both folders are on one disk, so that it takes its space once, and copied otherwise. Deleting
it in one place leaves it in the other.
"""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path

from core import files
from core.errors import ExportError
from core.workspace import names

MAKER = "lora-garage"
LONGEST = 259 if os.name == "nt" else 4000  # characters of a path that programs on Windows open


def models_folder(home: Path | None = None) -> Path | None:
    """LM Studio's models folder; None if LM Studio was never started here.

    It is <LM Studio's home>/models, where ~/.lmstudio-home-pointer names that home, else ~/.lmstudio, else
    ~/.cache/lm-studio; settings.json there may name another folder (downloadsFolder).
    """
    home, pointed = home or Path.home(), Path()
    with contextlib.suppress(OSError, ValueError):
        pointed = Path((home / ".lmstudio-home-pointer").read_text("utf-8").strip())
    homes = [pointed] if pointed.is_absolute() and pointed.is_dir() else [home / ".lmstudio", home / ".cache/lm-studio"]
    own = next(filter(Path.is_dir, homes), None)
    if own is None:
        return None
    moved = files.read_object(own / "settings.json").get("downloadsFolder")
    return Path(moved) if isinstance(moved, str) and os.path.isabs(moved) and "\0" not in moved else own / "models"


def require_folder(home: Path | None = None) -> Path:
    """Return `models_folder`, which need not exist yet. Raises ExportError if there is none, or if its disk is not
    connected."""
    if (folder := models_folder(home)) is None:
        raise ExportError("gguf.no_lmstudio", folder=(home or Path.home()) / ".lmstudio")
    if not folder.is_dir() and not folder.parent.is_dir():
        raise ExportError("gguf.lmstudio_moved", folder=folder)
    return folder


def place(file: Path, run_name: str, models: Path) -> Path:
    """Link or copy the file of a finished export below LM Studio's models folder, as MAKER/run_name/FILE; return its
    new path.

    Replaces an earlier file of the same name. Raises ExportError for a path that is too long, RunError for a full disk;
    no part of the file is left there then.
    """
    target = models / MAKER / names.slug(run_name, fallback=names.slug(file.stem)) / file.name
    aside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    if len(str(aside)) > LONGEST:
        raise ExportError("gguf.lmstudio_too_long", file=target, found=len(str(aside)), limit=LONGEST)
    with files.writing(models):
        existing = [folder for folder in (target.parent, target.parent.parent, models) if folder.is_dir()]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for leftover in target.parent.glob(f".{glob.escape(target.name)}.tmp-*"):  # by one that was killed
                leftover.unlink()
            # Under another name first, so that LM Studio never lists a part of a file.
            files.link_or_copy(file, aside)
            files.rename(aside, target)
        finally:
            with contextlib.suppress(OSError):  # what was there before, or is not empty, stays
                aside.unlink(missing_ok=True)
                for folder in (target.parent, target.parent.parent):
                    if folder not in existing and not target.exists():
                        folder.rmdir()
        files.sync_folder(target.parent)
    return target
