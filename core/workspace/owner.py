"""Which app owns a workspace: the first that opened it. A second start opens the first one's page and exits.

`app.lock` is held by the operating system for the app that owns the workspace (a crash frees it); `app.owner.json`,
written by the owner, says who that is and where its page is. Commands (`train` and the others) do not take part: the
device's lease and each run's own lock keep them apart from an app.
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

CLAIM_S = 1.0  # a worker that looks whether an app is there holds the lock for an instant
# with an app that has just begun, whose page is not served yet, or that pauses its training before it ends
PATIENCE_S = 30.0
ANSWER_S = 5.0


class Owner(Frozen):
    """Who said last that the workspace is theirs. since, started: seconds since 1970. address: of its page; empty while
    the app ends, and where version 0.1 wrote the file."""

    pid: int
    started: float
    host: str
    since: float
    address: str = ""

    @property
    def answers(self) -> bool:
        """Whether its page can be opened here: 401 is a page behind a door."""
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
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        return msg("owner.other", pid=str(self.pid), host=self.host, since=since)


def read(workspace: Workspace) -> Owner | None:
    return files.read_model(Owner, workspace.root / "app.owner.json")


def app_lives(workspace: Workspace) -> bool:
    """Whether any app owns the workspace now."""
    try:
        return files.is_locked(workspace.root / "app.lock")
    except OSError:
        return False


class Ownership:
    """One app's claim on its workspace. Whoever builds pages without serving them needs none."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._lock = FileLock(workspace.root / "app.lock", thread_local=False)

    def claim(self, address: str, patience_s: float = PATIENCE_S) -> Owner | None:
        """Take the workspace and say where its page will be: None. Or, where another app has it, that app, whose page
        answers.

        Raises BusyError, naming the other, where it neither answers nor ends within patience_s; OSError where nothing
        can be written.
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
        me = psutil.Process()
        mine = Owner(
            pid=me.pid, started=me.create_time(), host=socket.gethostname(), since=time.time(), address=address
        )
        files.replace_json(self._workspace.root / "app.owner.json", mine.model_dump())

    def close_page(self) -> None:
        """Still ours, but whoever starts now waits for it instead of opening a page that is about to go."""
        with contextlib.suppress(OSError):
            self._write("")

    def release(self) -> None:
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._lock.release()
