"""Files that tests share without copying them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.kit.durations import cache


def link_or_copy(file: str | Path, target: str | Path) -> None:
    if os.path.exists(target):
        return
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def tools_of_cache(workspace: Path) -> None:
    """llama.cpp's tools in a workspace, as links to their files: a link to the folder needs rights on Windows."""
    shutil.copytree(cache() / "tools", workspace / "tools", copy_function=link_or_copy)
