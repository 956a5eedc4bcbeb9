"""Files that tests share without copying them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def link_or_copy(file: Path, target: Path) -> None:
    if target.exists():
        return
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)
