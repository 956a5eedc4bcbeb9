"""Refusal of paths that are too long for Windows, before anything begins that would fail on one."""

from __future__ import annotations

from pathlib import Path

from core import files
from core.errors import GarageError
from core.system import windows


def refuse(folder: Path, error: type[GarageError], inside: int = windows.LONGEST_IN_WORKSPACE) -> None:
    """Raise error, on Windows without long paths, if a path below folder would be too long. inside: characters of the
    longest name below it."""
    length = len(str(folder.absolute())) + 1 + inside
    if files.ON_WINDOWS and length > windows.MAX_PATH and windows.long_paths() is False:
        raise error("faults.path_too_long", folder=folder, found=length, most=windows.MAX_PATH)
