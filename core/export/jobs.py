"""The folder of one export attempt: whether its worker lives, how to end it, cleaning up after a killed one (files:
core.export.exports)."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from core import files
from core.export.records import ExportStatus
from core.files import JsonObject, writing
from core.messages import Message, msg
from core.system.processes import kill_tree, start_worker
from core.values import Frozen

# From the spawn to the first status of the worker: imports, on a slow disk.
START_S = 60.0
CANCEL_S = 5.0
# Prefix of the folder in build/ that holds an earlier export while the new one takes its place. The export's full name
# is not repeated in this path: many programs on Windows refuse paths of more than 260 characters.
REPLACED = "replaced"
GONE = {"state": "failed", "message": msg("export.went_away")}


@dataclass(frozen=True)
class JobFolder:
    """The folder of one attempt, its lock, status and process."""

    path: Path

    @property
    def build(self) -> Path:
        """Return the folder of the attempt's unfinished files, which `clear` deletes."""
        return self.path / "build"

    def lock(self) -> FileLock:
        """Return the lock that a worker holds while it works in the folder; it is not acquired by this call."""
        return FileLock(self.path / "job.lock")

    def is_locked(self) -> bool:
        """Return whether a process works in the folder; True also if its lock cannot be opened."""
        file = self.path / "job.lock"
        try:
            return files.is_locked(file)
        except OSError:  # it cannot be opened
            return file.exists()

    def status(self, process: subprocess.Popen[bytes] | None = None) -> ExportStatus | None:
        """Return the status, None without an attempt. One that is marked as running while nobody holds its lock, or as
        starting for longer than START_S, is returned as failed.

        process: its worker, if this process started it, so that one which died at once is not "starting" for a minute.
        """
        status, is_over = self._read_status(), process is not None and process.poll() is not None
        if status and status.active and not self.is_locked():
            status = self._read_status() or status  # it may have ended between the two looks
            waited = abs(time.time() - status.since)  # the PC's clock may have been put back
            if status.state == "running" or (status.active and (is_over if process else waited > START_S)):
                return status.model_copy(update=self._status_of_dead_worker())
        return status

    def _status_of_dead_worker(self) -> JsonObject:
        """Return the status fields for a worker that died without a message, with the disk's free space if it is
        full."""
        free = files.free_when_full(self.path)
        return (
            GONE
            if free is None
            else GONE | {"message": msg("export.went_away_full", folder=self.path, free_mb=free // 10**6)}
        )

    def is_at_work(self) -> bool:
        """Return whether a worker holds the lock, or one was started and has not taken it yet."""
        return self.is_locked() or ((status := self.status()) is not None and status.active)

    def _read_status(self) -> ExportStatus | None:
        """Return status.json as it was written, even if its worker has died since; None if it is missing or invalid."""
        return files.read_model(ExportStatus, self.path / "status.json")

    def write(self, status: ExportStatus) -> None:
        """Replace status.json by this status."""
        files.replace(self.path / "status.json", status.model_dump_json(indent=1) + "\n")

    def begin(self, request: Frozen, module: str, cwd: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a new attempt: delete unfinished files of an earlier one, write its request and first status, empty its
        log, and return its process, `python -m module request.json`. Raises RunError if the disk is full or no process
        can be started."""
        file, log = self.path / "request.json", self.path / "export.log"
        with writing(self.path.parents[1]):
            self.path.mkdir(parents=True, exist_ok=True)
            self.clear()
            files.replace(file, request.model_dump_json(indent=1))
            log.write_bytes(b"")
            self.write(ExportStatus(since=time.time()))
            try:
                with open(log, "ab") as out:  # llama.cpp's processes write into it too
                    return start_worker(module, str(file), log=out, cwd=cwd, **environment)
            except OSError:
                (self.path / "status.json").unlink(missing_ok=True)  # else it would be "starting" for a minute
                raise

    def wait(
        self,
        process: subprocess.Popen[bytes] | None,
        on_status: Callable[[ExportStatus], None] | None = None,
        timeout_s: float = math.inf,
    ) -> ExportStatus:
        """Wait until the attempt has ended, or for timeout_s, and return its status; on_status is called with it ten
        times a second."""
        end = time.monotonic() + timeout_s
        while (status := self.status(process)) and status.active and time.monotonic() < end:
            if on_status:
                on_status(status)
            time.sleep(0.1)
        return status or ExportStatus().model_copy(update=GONE)

    def request_cancel(self) -> None:
        """Write the cancel request, which the worker polls. Raises RunError if the disk is full."""
        with writing(self.path):
            files.replace_json(self.path / "control.json", {"command": "cancel"})

    def cancel_requested(self) -> bool:
        """Return whether a cancel of this attempt was requested, by the page or by any other process."""
        return (self.path / "control.json").exists()

    def end(self, process: subprocess.Popen[bytes] | None, cancelled: Message) -> ExportStatus | None:
        """Cancel the attempt, if it is active, and return its status, None without one: request it, wait for CANCEL_S,
        then kill the process, write the message `cancelled` and delete its files.

        If Windows still refuses to delete files, the message says so and the next attempt deletes them.
        """
        if not (status := self.status(process)) or not status.active:
            return status
        self.request_cancel()
        deadline = time.monotonic() + CANCEL_S
        while (status := self.status(process)) and status.active and time.monotonic() < deadline:
            time.sleep(0.1)
        if status is None:
            return None
        while self.is_locked() and time.monotonic() < deadline:
            # Windows deletes what it has mapped only once it has ended
            time.sleep(0.05)
        if process and process.poll() is None and (status.active or self.is_locked()):
            kill_tree(process.pid)
        # A worker of another process: its lock shows that the pid in the status is still its own.
        elif status.pid and self.is_locked():
            kill_tree(status.pid)
        if status.active:
            status = status.model_copy(update={"state": "cancelled", "message": cancelled})
            self.write(status)
        if not self.is_at_work() and not self.clear(files.MOMENT_S) and status.state == "cancelled":
            status = status.model_copy(update={"message": msg("export.cancelled_left", folder=self.build)})
            self.write(status)
        return status

    def clear(self, patience_s: float = 0.0) -> bool:
        """Put back an earlier export that was set aside, delete the unfinished files and the cancel request; return
        whether all are gone. Windows keeps files that an ending process has mapped or a scanner has open."""
        self.bring_back()
        is_gone = files.remove_tree(self.build, patience_s)
        (self.path / "control.json").unlink(missing_ok=True)
        return is_gone

    def bring_back(self) -> None:
        """Restore an earlier export, or its unproven form, that a worker set aside and was killed before its own result
        took the place."""
        exports = self.path.parent.parent
        names = {old: self.path.name + old.name.removeprefix(REPLACED) for old in self.build.glob(f"{REPLACED}*")}
        for old, name in names.items():
            if not (exports / name).exists():
                files.rename(old, exports / name)
