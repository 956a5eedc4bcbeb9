"""Files that appear complete or not at all, appended lines, retries for what Windows refuses for a moment, and disk
errors in words.

A crash between the two steps of `replace` leaves a `.<name>.tmp-*` file beside the old, still complete one. A crash or
a full disk inside `append_line` leaves half a line, which the next call separates from its own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import RunError

JsonObject = dict[str, Any]  # an object of a JSON or YAML text

MAX_JSON_BYTES = 16 << 20  # bytes; far more than any JSON file of this app
PATIENCE_S = 10.0  # for a scanner, an indexer, OneDrive or Explorer, which open new files
MOMENT_S = 1.0  # for a writer, which holds a file for milliseconds, while a person waits
ON_WINDOWS = os.name == "nt"
Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


def retry_if_busy(act: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
    """Return act(), retried for patience_s while Windows refuses it because another program has the file, or one in the
    folder, open. Then raises its PermissionError."""
    end, pause = time.monotonic() + patience_s, 0.01
    while True:
        try:
            return act()
        except PermissionError:
            if not ON_WINDOWS or time.monotonic() > end:
                raise
        time.sleep(pause)
        pause = min(0.05, 1.5 * pause)  # frequent tries meet a gap between two readers


def rename(source: Path, target: Path, patience_s: float = PATIENCE_S) -> None:
    """Rename a file, also over an existing one, or a folder to a free name. Raises OSError."""
    retry_if_busy(lambda: os.replace(source, target), patience_s)


def link_or_copy(source: Path, target: Path) -> None:
    """Create target as a hard link if the disk supports it; else, also over an existing file, as a synced copy."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
        with open(target, "rb+") as copied:
            os.fsync(copied.fileno())


def remove_tree(folder: Path, patience_s: float = 0.0) -> bool:
    """Delete a folder with its contents; what is refused for longer than patience_s stays. Returns whether it is
    gone."""
    with contextlib.suppress(OSError):
        retry_if_busy(lambda: shutil.rmtree(folder), patience_s)
    shutil.rmtree(folder, ignore_errors=True)  # the call above stops at the first refusal; this one deletes the rest
    return not folder.exists()


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder and below, also while others change it.

    Path.rglob raises an error if a folder vanishes during its walk.
    """
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def replace(path: Path, data: str | bytes, lasting: bool = True) -> None:
    """Write data beside path and rename it over path. Raises OSError (disk full, read-only) with path untouched. Text
    is written as UTF-8.

    lasting: after a power cut the new content is there, not the old one (the folder is synced too, which may take a
    turn of the disk); unnecessary for what is written again in a second.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    aside = path.with_name(f".{path.name}.tmp-{os.getpid()}-{threading.get_ident()}")
    try:
        with open(aside, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        rename(aside, path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    if lasting:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in folder survive a power cut, as its content does.

    Windows has no such call, and some network drives refuse it: a running system shows no difference.
    """
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def sync_tree(folder: Path) -> None:
    """Sync all files of folder and the folders themselves, before a marker or a rename declares them complete."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


@contextlib.contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Context manager: yield the path `.<name>.part` beside folder, at which the block creates the folder's new
    contents; nothing is there yet.

    At the end of the block all of it is synced and replaces folder. On an error folder stays as it was, and the new
    contents are deleted.
    """
    aside, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
        sync_tree(aside)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            rename(folder, old)
        rename(aside, folder)
    except BaseException:  # also StopRequested and Ctrl-C; re-raised below
        shutil.rmtree(aside, ignore_errors=True)  # a partial copy must not keep the disk full
        if old.exists() and not folder.exists():
            rename(old, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_json(path: Path, value: object) -> None:
    """Write value as JSON in place of a file, complete or not at all. Raises OSError."""
    replace(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path, most_bytes: int | None = None) -> Any | None:
    """Return the parsed file, or None if it is missing, not JSON, or larger than most_bytes (some are read several
    times a second). Our own files are never half written."""
    try:
        if most_bytes is not None and path.stat().st_size > most_bytes:
            return None
        return json.loads(retry_if_busy(lambda: path.read_text("utf-8"), MOMENT_S))
    except (OSError, ValueError, RecursionError):  # RecursionError: ten thousand brackets
        return None


def read_object(path: Path) -> JsonObject:
    """Return the JSON object in path; an empty one for anything else, a missing file, or one above MAX_JSON_BYTES."""
    value = read_json(path, MAX_JSON_BYTES)
    return value if isinstance(value, dict) else {}


def read_for_update(path: Path, patience_s: float = MOMENT_S) -> JsonObject:
    """Return the JSON object in path, to be changed and written again; {} if the file is missing or holds no object.

    Raises OSError if an existing file cannot be read, because it is not empty.
    """
    value = None
    with (
        contextlib.suppress(FileNotFoundError, ValueError, RecursionError),
        retry_if_busy(lambda: open(path, "rb"), patience_s) as file,
    ):
        # read(n) allocates n bytes
        value = json.loads(file.read(min(MAX_JSON_BYTES, os.fstat(file.fileno()).st_size)))
    return value if isinstance(value, dict) else {}


def add_to_object(path: Path, more: dict[str, object]) -> None:
    """Set the keys of `more` in the JSON object in path, which is created if missing. Raises OSError, with path
    untouched, if an existing file cannot be read."""
    replace_json(path, read_for_update(path, PATIENCE_S) | more)


def read_model(kind: type[Model], path: Path, for_update: bool = False) -> Model | None:
    """Return a file of ours as a model of this kind; None if it is missing or not one. for_update: raise OSError if an
    existing file cannot be read."""
    try:
        return kind.model_validate(read_for_update(path) if for_update else read_json(path, MAX_JSON_BYTES))
    except ValidationError:
        return None


def stamp(path: Path) -> tuple[int, ...]:
    """Return a value that changes when a file, or the list of a folder, is written; () if it is missing or
    unreadable."""
    try:
        state = path.stat()
    except OSError:
        return ()
    return (
        state.st_mtime_ns,
        state.st_size,
        state.st_ino,
    )  # the inode differs after a replacement within one tick of the clock


def is_locked(path: Path) -> bool:
    """Return whether any process holds this FileLock now; False if the file is missing. Raises OSError if that cannot
    be checked.

    The check takes a shared lock, so that two checks do not mistake each other for its holder; to take the lock itself,
    wait for LOOK_S.
    """
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return False
    with file:
        if not _lock_shared(file.fileno()):
            return True
        _unlock(file.fileno())
    return False


LOOK_S = 0.2  # seconds for which a free lock may be refused during a check

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("Internal", ctypes.c_void_p), ("InternalHigh", ctypes.c_void_p),
            ("Offset", wintypes.DWORD), ("OffsetHigh", wintypes.DWORD), ("hEvent", wintypes.HANDLE),
        )  # fmt: skip

    _KERNEL32 = ctypes.WinDLL("kernel32", use_last_error=True)
    # LOCKFILE_FAIL_IMMEDIATELY; ERROR_LOCK_VIOLATION, ERROR_IO_PENDING
    _FAIL_IMMEDIATELY, _LOCK_VIOLATION, _IO_PENDING = 1, 33, 997

    def _lock_shared(descriptor: int) -> bool:
        """Try to take a shared lock where FileLock locks, without waiting; return whether it was taken.

        False while a process holds the lock exclusively; other shared locks are no obstacle. Raises OSError for any
        other failure. descriptor: of the open file.
        """
        handle = wintypes.HANDLE(msvcrt.get_osfhandle(descriptor))
        if _KERNEL32.LockFileEx(handle, _FAIL_IMMEDIATELY, 0, 1, 0, ctypes.byref(_Overlapped())):
            return True
        if (code := ctypes.get_last_error()) in (_LOCK_VIOLATION, _IO_PENDING):
            return False
        raise ctypes.WinError(code)

    def _unlock(descriptor: int) -> None:
        """Unlock the first byte at once: after a close Windows unlocks too, but documents that this may take time."""
        _KERNEL32.UnlockFileEx(wintypes.HANDLE(msvcrt.get_osfhandle(descriptor)), 0, 1, 0, ctypes.byref(_Overlapped()))

else:
    import fcntl

    def _lock_shared(descriptor: int) -> bool:
        """Take a shared lock on the file that FileLock locks. Returns False if it is held."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def append_line(path: Path, value: Mapping[str, object]) -> None:
    """Append one JSON object as a line in one write, so that a reader sees all of it or an unfinished last line.

    After half a line, left by a crash or a full disk, it begins a new one: else both would be unreadable. Raises
    OSError; ValueError for a number that JSON lacks.
    """
    line = (json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n").encode("ascii")
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        while line:  # a nearly full disk takes a part, then raises an error
            line = line[file.write(line) :]


# numpy's tofile, safetensors and torch.save report a full disk without an errno; Rust prints the system's number (39
# and 112 on Windows, whose texts are localized).
_DISK_SIGNS = (
    "os error 28)", "os error 122)", "os error 39)", "os error 112)", "No space left", "enough free space",
    "requested and",
)  # fmt: skip
_NEARLY_FULL = 16 << 20  # bytes


def free_when_full(folder: Path) -> int | None:
    """Return the free bytes of folder's disk if they are fewer than 16 MiB; None for more, or if unknown."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    return free if free < _NEARLY_FULL else None


def is_disk_full(error: BaseException, folder: Path | None = None) -> bool:
    """Return whether an error means a full disk.

    folder: where something was being written; needed for torch's archive writer, which only reports an unexpected
    position: then the free space decides."""
    words = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if "unexpected pos" in words and folder is not None:
        return free_when_full(folder) is not None
    return any(sign in words for sign in _DISK_SIGNS)


def unwritable_reason(folder: Path) -> str | None:
    """Return why no file can be created in folder, or None: one is created and removed."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Context manager: turn any OSError during a person's request into a RunError with a sentence."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            free = shutil.disk_usage(folder).free
            raise RunError("faults.disk_full", folder=folder, free_mb=free // 10**6) from error
        raise RunError("faults.cannot_write", folder=folder, reason=error.strerror or str(error)) from error


# Messages of torch's CPU allocator on Linux and on Windows, of CUDA itself (pinned memory, a context; the fourth when
# Windows cannot pin more), and of cuBLAS, whose workspace does not fit on a full GPU.
_MEMORY_SIGNS = (
    "can't allocate memory", "not enough memory", "out of memory", "resource already mapped",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that GPU or PC ran out of memory; torch raises a plain RuntimeError from several
    parts."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or is_page_file_full(error):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)


def is_page_file_full(error: BaseException) -> bool:
    """Return whether Windows has no page file left (ERROR_COMMITMENT_LIMIT), which it reserves for each byte, used or
    not."""
    return getattr(error, "winerror", None) == 1455 or any(
        sign in str(error) for sign in ("os error 1455)", "[WinError 1455]")
    )


@dataclass(frozen=True)
class Tail:
    """New complete lines of a JSONL file: records, the offset of the next read, and the number of unreadable lines."""

    records: list[dict[str, Any]]
    offset: int
    bad_lines: int


def read_lines(path: Path, offset: int, limit_bytes: int = 64 << 20, is_needed: bool = False) -> Tail:
    """Return the complete JSON objects, one a line, from a byte offset on (0 if the file is shorter), and the next
    offset; at most limit_bytes are read. Bad lines are counted, an unfinished last one is left for next time, a line
    longer than limit_bytes is skipped.

    is_needed: raise OSError if an existing file cannot be read; otherwise it counts as empty.
    """
    try:
        with retry_if_busy(lambda: open(path, "rb"), MOMENT_S) as file:
            size = file.seek(0, 2)
            if not 0 <= offset <= size:
                offset = 0
            file.seek(offset)
            # At most the rest of the file: read(n) allocates n bytes, eight MB for each new line of a poll.
            data = file.read(min(limit_bytes, max(0, size - offset)))
    except OSError as error:
        if is_needed and not isinstance(error, FileNotFoundError):
            raise
        return Tail([], 0, 0)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) == limit_bytes:  # one line longer than the limit: step over it
        return Tail([], offset + len(data), 1)
    records, lines = [], data[:end].splitlines()
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(record := json.loads(line), dict):
                records.append(record)
    return Tail(records, offset + end, len(lines) - len(records))


def read_newest(path: Path, most_bytes: int = 16 << 10) -> list[JsonObject]:
    """Return the last JSON lines, within most_bytes; a line that begins earlier is left out. [] if path is missing."""
    try:
        start = max(0, path.stat().st_size - most_bytes)
    except OSError:
        return []
    return read_lines(path, start).records
