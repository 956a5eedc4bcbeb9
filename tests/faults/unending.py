"""In place of llama.cpp's converter: writes half a file and its process id beside it, then never ends; or finds the
disk full."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

from core.export.llamacpp import child


def work(request: dict[str, Any]) -> dict[str, Any]:
    Path(request["out"]).write_bytes(b"GGUF" * 1000)
    if request["full"]:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    Path(request["pid"]).write_text(str(os.getpid()), "utf-8")
    time.sleep(600)
    return {}


if __name__ == "__main__":
    sys.exit(child.answer(work))
