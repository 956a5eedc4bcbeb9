"""The lease on the compute device: training, chat and export exclude each other, in every process.

The operating system holds `gpu.lock` for the working process (a crash frees it); `gpu.owner.json`, written by the
holder, only names it in error messages. Taken on machines without a GPU too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from core import files
from core.errors import BusyError
from core.messages import Message, msg
from core.workspace.folder import Workspace


@contextmanager
def hold(workspace: Workspace, doing: Message, wait_s: float = 0.0) -> Iterator[None]:
    """Context manager: hold the lease of the device during the block. doing: this process's work, for the errors of
    others. Raises BusyError, naming their work, if it is not free within wait_s."""
    lock = FileLock(workspace.root / "gpu.lock")
    try:
        lock.acquire(timeout=max(wait_s, files.LOOK_S), poll_interval=min(0.1, files.LOOK_S / 4))
    except Timeout:
        raise BusyError("lease.held", owner=owner(workspace) or msg("lease.somebody")) from None
    try:
        record(workspace, doing)
        yield
    finally:
        lock.release()


def record(workspace: Workspace, doing: Message) -> None:
    """Write down this process's work, which others then name in errors. For the holder of the lease."""
    files.replace_json(workspace.root / "gpu.owner.json", {"pid": os.getpid(), "doing": doing.model_dump()})


def is_held(workspace: Workspace) -> bool:
    """Return whether any process holds the device at this moment."""
    return files.is_locked(workspace.root / "gpu.lock")


def owner(workspace: Workspace) -> Message | None:
    """Return the work of the last holder, who may have released the lease; None if it was never held."""
    record = files.read_object(workspace.root / "gpu.owner.json")
    try:
        return Message.model_validate(record["doing"])
    except (TypeError, KeyError, ValueError):
        return None
