"""Which app has a workspace: the first one that opened it. A second one looks on, and takes over when the first has ended.

`app.lock` is held by the operating system for the app that owns the workspace (a crash frees it); `app.owner.json`,
written by the owner, only serves to name it. Commands (`train` and the others) do not take part: the device's lease and
each run's own lock keep them apart from an app.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import psutil
from filelock import FileLock, Timeout
from pydantic import ValidationError

from core import files
from core.errors import BusyError
from core.messages import Message, msg
from core.values import Frozen
from core.workspace.folder import Workspace

CLAIM_S = 1.0  # a worker that looks whether an app is there holds the lock for an instant
POLL_S = 1.0


class Owner(Frozen):
    """Who said last that the workspace is theirs. since, started: seconds since 1970."""

    pid: int
    started: float
    host: str
    since: float

    def words(self) -> dict[str, str]:
        return {"pid": str(self.pid), "host": self.host, "since": time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))}


def read(workspace: Workspace) -> Owner | None:
    try:
        return Owner.model_validate(files.read_json(workspace.root / "app.owner.json"))
    except ValidationError:
        return None


def app_lives(workspace: Workspace) -> bool:
    """Whether any app owns the workspace now."""
    lock = FileLock(workspace.root / "app.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


class Ownership:
    """One app's claim. Before `claim` nothing is refused: whoever builds pages without serving them needs none."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._lock = FileLock(workspace.root / "app.lock", thread_local=False)
        self._refused = False
        self._over = threading.Event()

    def claim(self, timeout_s: float = CLAIM_S) -> bool:
        """Take the workspace where nobody has it; whether it is ours. Raises OSError where nothing can be written."""
        try:
            self._lock.acquire(timeout=timeout_s, poll_interval=0.05)
        except Timeout:
            self._refused = True
            return False
        me = psutil.Process()
        mine = Owner(pid=me.pid, started=me.create_time(), host=socket.gethostname(), since=time.time())
        files.replace_json(self._workspace.root / "app.owner.json", mine.model_dump())
        self._refused = False
        return True

    @property
    def is_ours(self) -> bool:
        return self._lock.is_locked and not self._refused  # locked before app.owner.json names us

    def other(self) -> Owner | None:
        """Who has it instead of us; None where we have it, or where the owner did not say who it is."""
        return read(self._workspace) if self._refused else None

    @property
    def refusal(self) -> Message | None:
        """Why nothing may be written here, or None where all is well."""
        if not self._refused:
            return None
        other = self.other()
        return msg("owner.other", **other.words()) if other else msg("owner.somebody")

    def require(self) -> None:
        """Raises BusyError, naming the owner, while another app has the workspace."""
        if refusal := self.refusal:
            raise BusyError(refusal)

    def wait_for_it(self, taken: Callable[[], None]) -> None:
        """Take over in the background as soon as the owner has ended, then call taken."""
        threading.Thread(target=self._wait, args=(taken,), name="owner", daemon=True).start()

    def _wait(self, taken: Callable[[], None]) -> None:
        while not self._over.wait(POLL_S):
            try:
                if self.claim(timeout_s=0):
                    taken()
                    return
            except OSError:  # a disk that is full or gone for a moment
                traceback.print_exc()

    def release(self) -> None:
        self._over.set()
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._lock.release()


class Gated:
    """As target, but each of `writes` calls gate first (which raises), and `idle` do nothing while gate raises."""

    def __init__(self, target: Any, gate: Callable[[], None], writes: tuple[str, ...], idle: tuple[str, ...] = ()):
        for name in (*writes, *idle):
            getattr(target, name)  # a method that was renamed must not stay open
        self._target, self._gate, self._writes, self._idle = target, gate, frozenset(writes), frozenset(idle)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in self._writes:
            return self._asking(found)
        return self._if_allowed(found) if name in self._idle else found

    def _asking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            self._gate()
            return method(*args, **kwargs)

        return asked

    def _if_allowed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        from core.errors import GarageError

        def asked(*args: Any, **kwargs: Any) -> Any:
            try:
                self._gate()
            except GarageError:
                return None
            return method(*args, **kwargs)

        return asked
