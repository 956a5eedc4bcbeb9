"""Publishing as a job in its own process: started, followed and cancelled from the page and from a command. No torch.

    <workspace>/exports/.jobs/<the export's name>-hub/     as described in core.export.exports; a crash leaves a job
                                                           whose lock is free

Files that were sent before a kill stay on the hub, invisible until a commit names them: a new attempt sends only what
is missing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from core import files
from core.errors import BusyError
from core.export.hub.parcel import Parcel, pack
from core.export.jobs import JobFolder
from core.export.records import ExportResult, ExportStatus
from core.messages import msg
from core.runs.all import Runs
from core.values import Frozen
from core.workspace.folder import Workspace

CANCELLED = msg("publish.cancelled")


class PublishRequest(Frozen):
    """The order of a publishing job: request.json."""

    v: int = 1
    workspace: str
    export: str
    repo: str
    private: bool
    with_film: bool = False


class Publishing:
    """All publications of a workspace."""

    def __init__(self, workspace: Workspace, runs: Runs | None = None):
        self.workspace, self.runs = workspace, runs or Runs(workspace)
        self._started: dict[str, subprocess.Popen[bytes]] = {}  # by export

    def pack(self, result: ExportResult, repo: str, with_film: bool = False) -> Parcel:
        """Return what would be sent, without network access. Raises ExportError or RunError."""
        return pack(self.runs.get(result.run), result, self.workspace.exports / result.name, repo, with_film)

    def start(self, result: ExportResult, repo: str, private: bool = True, with_film: bool = False) -> None:
        """Begin to publish in a process. Raises as `pack`, and BusyError while this export is being published."""
        # Packed again by the worker; here only so that a refusal needs no process.
        self.pack(result, repo, with_film)
        request = PublishRequest(
            workspace=str(self.workspace.root), export=result.name, repo=repo, private=private, with_film=with_film
        )
        job, status = self._job(result.name), self.status(result.name)
        if job.is_locked() or (status and status.active):
            raise BusyError("publish.at_work", name=result.name)
        self._started[result.name] = job.begin(request, "core.export.hub.publish_worker", self.workspace.root, {})

    def status(self, export: str) -> ExportStatus | None:
        """Status of the newest attempt to publish this export; None without one."""
        return self._job(export).status(self._started.get(export))

    def wait(self, export: str, on_status: Callable[[ExportStatus], None] | None = None) -> ExportStatus:
        """Wait until the attempt has ended and return its status."""
        return self._job(export).wait(self._started.get(export), on_status)

    def cancel(self, export: str) -> ExportStatus | None:
        """End the attempt as cancelled, and return its status; None if there is none."""
        return self._job(export).end(self._started.get(export), CANCELLED)

    def request(self, export: str) -> PublishRequest | None:
        """Return the newest request to publish this export; None if there was none."""
        return files.read_model(PublishRequest, self._job(export).path / "request.json")

    def _job(self, export: str) -> JobFolder:
        """Return the job folder of an export's publication, which need not exist. export: the export's name."""
        return JobFolder(self.workspace.exports / ".jobs" / f"{export}-hub")
