"""Faults on purpose, in this process: the n-th operation on a disk fails, or the process is killed in front of it.

Stands in front of what Python code opens, writes, syncs, renames and removes below one folder. What native code writes
(safetensors, torch.save's archive) is counted at its opening or its rename only; a real full disk (a small tmpfs) does
the rest.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Fault:
    """The n-th operation below root (from 1 on) and, where it lasts, every later one that takes space meets what act
    does.

    begins: the n-th of those only whose name in `done` begins so.
    done: each operation that was seen, in order: what, and the file's name.
    """

    root: Path
    nth: int | None  # None: only count
    act: Callable[[str, str], None]
    lasts: bool = False
    begins: str = ""
    done: list[str] = field(default_factory=list)
    counted: int = 0
    bit: bool = False

    def meets(self, what: str, path: object, frees: bool = False, half: Callable[[], object] = lambda: None) -> None:
        """half: what is done of it before the fault, as a system does."""
        name = os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else ""
        name = os.fsdecode(name)
        if not name.startswith(str(self.root)):
            return
        self.done.append(f"{what} {os.path.basename(name)}")
        counts = self.done[-1].startswith(self.begins)
        self.counted += counts
        is_here = self.nth is not None and (
            (counts and self.counted == self.nth) or (self.lasts and self.counted >= self.nth)
        )
        if is_here and (not frees or self.act is killed):
            self.bit = True
            half()
            self.act(what, name)


def full_disk(what: str, name: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", name)


def killed(what: str, name: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # until it arrives


class _Written:
    """A file that is being written: each write is an operation; half of the one that fails is on the disk."""

    def __init__(self, file: Any, fault: Fault, name: object):
        self._file, self._fault, self._name = file, fault, name

    def write(self, data: Any) -> int:
        self._fault.meets("write", self._name, half=lambda: self._part(data[: len(data) // 2]))
        return self._file.write(data)

    def _part(self, data: Any) -> None:
        self._file.write(data)
        self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        self._file.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.__exit__(*exception)

    def __iter__(self) -> Iterator:
        return iter(self._file)


@contextlib.contextmanager
def injected(fault: Fault) -> Iterator[Fault]:
    """The fault stands in front of open, write, fsync, replace, rename, mkdir, unlink and rmdir while the body runs."""
    real_open, names = builtins.open, ("replace", "rename", "mkdir", "unlink", "rmdir", "fsync", "open")
    real = {name: getattr(os, name) for name in names}
    paths: dict[int, object] = {}

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        writes = any(letter in mode for letter in "wax+")
        if writes:
            fault.meets("open", file)
        result = real_open(file, mode, *args, **kwargs)
        if not writes or not isinstance(file, str | os.PathLike):
            return result
        with contextlib.suppress(OSError, ValueError):
            paths[result.fileno()] = file
        return _Written(result, fault, file)

    def passing(name: str, frees: bool) -> Callable:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            folder = kwargs.get("dir_fd")  # of shutil.rmtree
            known = (
                os.readlink(f"/proc/self/fd/{folder}") if folder is not None and os.path.exists("/proc/self/fd") else ""
            )
            fault.meets(name, os.path.join(known, path) if known else path, frees)
            return real[name](path, *args, **kwargs)

        return call

    def fsync(fd: int) -> None:
        fault.meets("fsync", paths.get(fd, ""))
        real["fsync"](fd)

    def os_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT and not os.path.exists(path):
            fault.meets("open", path)
        return real["open"](path, flags, *args, **kwargs)

    builtins.open = io.open = opened  # pathlib takes io.open
    os.fsync, os.open = fsync, os_open
    for name in ("replace", "rename", "mkdir"):
        setattr(os, name, passing(name, frees=False))
    for name in ("unlink", "rmdir"):
        setattr(os, name, passing(name, frees=True))
    try:
        yield fault
    finally:
        builtins.open = io.open = real_open
        for name, call in real.items():
            setattr(os, name, call)
