"""The machine's own limits, recognised in whatever words a library reports them. No torch."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

# numpy's tofile, safetensors and torch.save report a full disk without an errno.
_DISK_SIGNS = ("os error 28", "os error 122", "No space left", "enough free space", "requested and")
_NEARLY_FULL = 16 << 20  # bytes


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """folder: where it was being written; torch's archive writer only says that its position is unexpected."""
    words = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if "unexpected pos" in words and folder is not None:
        return shutil.disk_usage(folder).free < _NEARLY_FULL
    return any(sign in words for sign in _DISK_SIGNS)


def is_out_of_memory(error: BaseException) -> bool:
    """Of the card or of the PC: on the CPU torch raises a plain RuntimeError from its allocator."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)
