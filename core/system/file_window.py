"""Opens a folder in the system's file manager: Explorer, Finder, or that of the Linux desktop."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path


def opener() -> str | None:
    """Return the program that shows a folder; None if nobody would see its window."""
    if os.name == "nt":
        return "explorer"
    if sys.platform == "darwin":
        return "open"
    return shutil.which("xdg-open") if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") else None


def show(folder: Path) -> bool:
    """Open folder in the file manager, without waiting. Returns False without such a program; raises OSError if it
    cannot be started."""
    program = opener()
    if program is None:
        return False
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        [program, str(folder)], stdin=null, stdout=null, stderr=null, start_new_session=os.name != "nt"
    )
    threading.Thread(target=process.wait, daemon=True).start()  # else it stays a zombie until the app ends
    return True
