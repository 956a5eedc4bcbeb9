"""The app that owns a workspace: the first that opened it. A second start opens the first one's page and exits.

The operating system holds `app.lock` for the owning app (a crash frees it); `app.owner.json`, written by the owner,
names its process and the address of its page. Commands (`train` and the others) take no part: the device's lease and
each run's own lock separate them from an app.
"""

from __future__ import annotations

import contextlib
import socket
import time
import urllib.error
import urllib.request

import psutil
from filelock import FileLock, Timeout

from core import files
from core.errors import BusyError
from core.messages import Message, msg
from core.values import Frozen
from core.workspace.folder import Workspace

CLAIM_S = 1.0  # a worker that checks for an app holds the lock for an instant
# for an app whose page is not served yet, or that pauses its training before it ends
PATIENCE_S = 30.0
ANSWER_S = 5.0


class Owner(Frozen):
    """The app that last claimed the workspace, on the PC `host`. since: of the claim; started: of its process, both
    seconds since 1970. address: of its page; empty while the app ends, and in files of version 0.1."""

    pid: int
    started: float
    host: str
    since: float
    address: str = ""

    @property
    def answers(self) -> bool:
        """Return whether its page can be opened from this PC, by a request without proxy; status 401 is a page that
        requires a password."""
        if not self.address or self.host != socket.gethostname():
            return False
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            direct.open(self.address, timeout=ANSWER_S).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except (OSError, ValueError):
            return False
        return True

    @property
    def refusal(self) -> Message:
        """The sentence that this app, on another PC, has the workspace open."""
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return msg("owner.other", pid=str(self.pid), host=self.host, since=since)


def read(workspace: Workspace) -> Owner | None:
    """Return the app that last claimed the workspace; None if none has, or its file is unreadable."""
    return files.read_model(Owner, workspace.root / "app.owner.json")


def app_lives(workspace: Workspace) -> bool:
    """Return whether any app owns the workspace now; False if its lock cannot be opened."""
    try:
        return files.is_locked(workspace.root / "app.lock")
    except OSError:
        return False


class Ownership:
    """One app's claim on its workspace. Code that builds pages without serving them needs none."""

    def __init__(self, workspace: Workspace):
        """Prepare a claim on the workspace; `claim` takes it."""
        self._workspace = workspace
        self._lock = FileLock(workspace.root / "app.lock", thread_local=False)

    def claim(self, address: str, patience_s: float = PATIENCE_S) -> Owner | None:
        """Take the workspace and record the page's address; return None, or the other app if one owns it and its page
        answers.

        Raises BusyError, naming the other, if it neither answers nor ends within patience_s; OSError if nothing can be
        written.
        """
        deadline = time.monotonic() + patience_s
        while True:
            try:
                self._lock.acquire(timeout=CLAIM_S, poll_interval=0.05)
            except Timeout:
                other = read(self._workspace)
                if other is not None and other.answers:
                    return other
                if time.monotonic() > deadline:
                    raise BusyError(other.refusal if other else msg("owner.somebody")) from None
            else:
                self._write(address)
                return None

    def _write(self, address: str) -> None:
        """Write this process and its page's address to app.owner.json."""
        process = psutil.Process()
        owner = Owner(
            pid=process.pid,
            started=process.create_time(),
            host=socket.gethostname(),
            since=time.time(),
            address=address,
        )
        files.replace_json(self._workspace.root / "app.owner.json", owner.model_dump())

    def close_page(self) -> None:
        """Clear the address: an app that starts now waits instead of opening a page that is about to close."""
        with contextlib.suppress(OSError):
            self._write("")

    def release(self) -> None:
        """Release the claim, if it is held."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._lock.release()
