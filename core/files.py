"""Files that appear complete or not at all, lines that are appended whole, retries for what Windows refuses for a
moment, and disk errors in words.

A crash between the two steps of `replace` leaves a `.<name>.tmp-*` file beside the old, still complete one. A crash or
a full disk inside `append_line` leaves half a line, which the next one does not run into.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import RunError

OURS = 16 << 20  # bytes; no file that this app writes as one JSON value comes near
PATIENCE_S = 10.0  # with a scanner, an indexer, OneDrive or Explorer, which look at what is new
MOMENT_S = 1.0  # with a writer, which has a file for milliseconds, and where a person waits for the answer
ON_WINDOWS = os.name == "nt"
Model = TypeVar("Model", bound=BaseModel)
Result = TypeVar("Result")


def patiently(act: Callable[[], Result], patience_s: float = PATIENCE_S) -> Result:
    """act(), again for so long where Windows refuses it because somebody has the file open at this instant, or one in
    the folder. Then its PermissionError."""
    end, pause = time.monotonic() + patience_s, 0.01
    while True:
        try:
            return act()
        except PermissionError:
            if not ON_WINDOWS or time.monotonic() > end:
                raise
        time.sleep(pause)
        pause = min(0.05, 1.5 * pause)  # where readers come one after the other, a gap is met by trying often


def rename(source: Path, target: Path, patience_s: float = PATIENCE_S) -> None:
    """Of a file, over another one too, or of a folder to where there is none. Raises OSError."""
    patiently(lambda: os.replace(source, target), patience_s)


def link_or_copy(source: Path, target: Path) -> None:
    """Another name of the same file where the disk has such; else a copy that lasts."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
        with open(target, "rb+") as copied:
            os.fsync(copied.fileno())


def remove_tree(folder: Path, patience_s: float = 0.0) -> bool:
    """A folder with all in it; what is refused for longer than patience_s stays. Whether it is gone."""
    with contextlib.suppress(OSError):
        patiently(lambda: shutil.rmtree(folder), patience_s)
    shutil.rmtree(folder, ignore_errors=True)  # the first refusal ended the other: what can go, goes
    return not folder.exists()


def bytes_in(folder: Path) -> int:
    """Of all its files, also while others work there: Path.rglob ends with an error where a folder goes away under
    it."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def replace(path: Path, data: str | bytes, lasting: bool = True) -> None:
    """Write data beside path and rename it over path. Raises OSError (disk full, read-only) with path untouched.

    lasting: after a power cut it is the new content, not the old one (the folder is synced too, which may cost a disk's
    turn); for what is written again in a second it does not matter.
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
    """After a rename in it: that the name survives a power cut as the content does. Windows has no such call, and some
    network drives refuse it: nothing is lost by that which a running system would show."""
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def sync_tree(folder: Path) -> None:
    """All files of folder and the folders themselves, before a marker or a rename says that they are whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


@contextlib.contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Where to make what shall stand at folder: `.<name>.part` beside it, not there yet. At the end all of it is synced
    and takes the place of what stood there; what ends it earlier leaves that as it was, and nothing beside it."""
    aside, old = (folder.with_name(f".{folder.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        yield aside
        sync_tree(aside)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            rename(folder, old)
        rename(aside, folder)
    except BaseException:  # a stop and Ctrl-C too; all of them go on
        shutil.rmtree(aside, ignore_errors=True)  # a full disk must not stay full of halves
        if old.exists() and not folder.exists():
            rename(old, folder)
        raise
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace_json(path: Path, value: Any) -> None:
    replace(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path, most_bytes: int | None = None) -> Any | None:
    """The parsed file, or None where it is missing, not JSON (a file of ours is never half written), or larger than
    most_bytes: some are read several times a second."""
    try:
        if most_bytes is not None and path.stat().st_size > most_bytes:
            return None
        return json.loads(patiently(lambda: path.read_text("utf-8"), MOMENT_S))
    except (OSError, ValueError, RecursionError):  # the last for ten thousand brackets
        return None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that path holds; an empty one where it holds none, is missing, or is larger than OURS."""
    value = read_json(path, OURS)
    return value if isinstance(value, dict) else {}


def object_to_change(path: Path, patience_s: float = MOMENT_S) -> dict[str, Any]:
    """As `read_object`, for what is written again afterwards. Raises OSError where what stands there cannot be read: it
    is not empty."""
    held = None
    with (
        contextlib.suppress(FileNotFoundError, ValueError, RecursionError),
        patiently(lambda: open(path, "rb"), patience_s) as file,
    ):
        # reading allocates what it is asked for
        held = json.loads(file.read(min(OURS, os.fstat(file.fileno()).st_size)))
    return held if isinstance(held, dict) else {}


def add_to_object(path: Path, more: dict[str, Any]) -> None:
    """more beside what the JSON object in path holds. Raises OSError, with path untouched, where what stands there
    cannot be read."""
    replace_json(path, object_to_change(path, PATIENCE_S) | more)


def read_model(kind: type[Model], path: Path, to_change: bool = False) -> Model | None:
    """A file of ours that holds one value of this kind; None where it does not. to_change: as `object_to_change`."""
    try:
        return kind.model_validate(object_to_change(path) if to_change else read_json(path, OURS))
    except ValidationError:
        return None


def stamp(path: Path) -> tuple[int, ...]:
    """Equal while a file, or what a folder lists, was not written; () where it is missing or cannot be asked."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino  # what is replaced within a tick of the clock is another one


def is_locked(path: Path) -> bool:
    """Whether somebody, in any process, holds this FileLock now. Raises OSError where that cannot be looked at.

    A look shares the lock, so that two looks do not take each other for its holder; who takes it must wait for LOOK_S.
    """
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return False
    with file:
        if not _share(file.fileno()):
            return True
        _let_go(file.fileno())
    return False


LOOK_S = 0.2  # what a lock that is free may be refused for, while somebody looks at it

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
    _AT_ONCE, _LOCK_VIOLATION, _NOT_NOW = 1, 33, 997

    def _share(descriptor: int) -> bool:
        """Take the first byte, which FileLock locks, for all readers. False: somebody has it."""
        handle = wintypes.HANDLE(msvcrt.get_osfhandle(descriptor))
        if _KERNEL32.LockFileEx(handle, _AT_ONCE, 0, 1, 0, ctypes.byref(_Overlapped())):
            return True
        if (code := ctypes.get_last_error()) in (_LOCK_VIOLATION, _NOT_NOW):
            return False
        raise ctypes.WinError(code)

    def _let_go(descriptor: int) -> None:
        """Windows lets go of what a closed file had locked as well, but says that it may take its time."""
        _KERNEL32.UnlockFileEx(wintypes.HANDLE(msvcrt.get_osfhandle(descriptor)), 0, 1, 0, ctypes.byref(_Overlapped()))

else:
    import fcntl

    def _share(descriptor: int) -> bool:
        """Take what FileLock locks for all readers. False: somebody has it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _let_go(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """One JSON object as one line in one write, so that a reader sees all of it or an unfinished last line.

    Where a crash or a full disk has left half a line, it begins a new one: else both would be unreadable.
    """
    line = (json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n").encode("ascii")
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        while line:  # a disk that is nearly full takes a part, then says so
            line = line[file.write(line) :]


# numpy's tofile, safetensors and torch.save report a full disk without an errno; Rust's number is the system's own (39
# and 112 are Windows', whose words are in the person's language).
_DISK_SIGNS = (
    "os error 28)", "os error 122)", "os error 39)", "os error 112)", "No space left", "enough free space",
    "requested and",
)  # fmt: skip
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


def reason_against(folder: Path) -> str | None:
    """Why no file can be made in folder, or None: one is made and removed."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None


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


# Of torch's allocator for the CPU on Linux and on Windows, of CUDA itself (pinned memory, a context; the fourth where
# Windows has no more to pin), and of cuBLAS, which needs some of its own on a card that is full.
_MEMORY_SIGNS = (
    "can't allocate memory", "not enough memory", "out of memory", "resource already mapped",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Of the card or of the PC: torch raises a plain RuntimeError from several of its parts."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or is_page_file_full(error):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)


def is_page_file_full(error: BaseException) -> bool:
    """Windows promises each byte beforehand (ERROR_COMMITMENT_LIMIT): there may be memory, and no room to put it
    aside."""
    return getattr(error, "winerror", None) == 1455 or any(
        sign in str(error) for sign in ("os error 1455)", "[WinError 1455]")
    )


@dataclass(frozen=True)
class Tail:
    """New whole lines of a JSONL file: records, the offset to ask for next, and how many lines were not readable."""

    records: list[dict[str, Any]]
    offset: int
    bad_lines: int


def read_lines(path: Path, offset: int, limit_bytes: int = 64 << 20, is_needed: bool = False) -> Tail:
    """Whole JSON lines from a byte offset on. A bad line is counted, an unfinished last one left for next time.
    is_needed: raises OSError where what is there cannot be read, which else is taken for empty."""
    try:
        with patiently(lambda: open(path, "rb"), MOMENT_S) as file:
            size = file.seek(0, 2)
            if not 0 <= offset <= size:
                offset = 0
            file.seek(offset)
            # Never more than is there: reading allocates what it is asked for, eight MB for each new line of a poll.
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


def read_newest(path: Path, most_bytes: int = 16 << 10) -> list[dict[str, Any]]:
    """The last of its JSON lines. A first line that begins before those bytes is none, and not among them."""
    try:
        start = max(0, path.stat().st_size - most_bytes)
    except OSError:
        return []
    return read_lines(path, start).records
