"""The machine's own limits, recognised in whatever words a library reports them. No torch."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from core.errors import RunError

# numpy's tofile, safetensors and torch.save report a full disk without an errno.
_DISK_SIGNS = ("os error 28", "os error 122", "No space left", "enough free space", "requested and")
_NEARLY_FULL = 16 << 20  # bytes


def free_when_full(folder: Path) -> int | None:
    """Bytes free where folder lies, if that is next to nothing; else None."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    return free if free < _NEARLY_FULL else None


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """folder: where it was being written; torch's archive writer only says that its position is unexpected."""
    words = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if "unexpected pos" in words and folder is not None:
        return free_when_full(folder) is not None
    return any(sign in words for sign in _DISK_SIGNS)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Around what a person asked for: a disk that does not take it is a RunError with a sentence."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            free = shutil.disk_usage(folder).free
            raise RunError("faults.disk_full", folder=folder, free_mb=free // 10**6) from error
        raise RunError("faults.cannot_write", folder=folder, reason=error.strerror or str(error)) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Of the card or of the PC: on the CPU torch raises a plain RuntimeError from its allocator."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)
