"""Exports of a workspace: the adapter, a merged 16-bit folder, or a GGUF file with an Ollama Modelfile, each verified
before it counts.

Describes exports and starts them; `core.export.export_worker` makes them in a process of its own. No torch.

    <workspace>/exports/
      <run-id>[-<checkpoint>]-<kind>[-<quant>]/    complete, or absent
        export.json                                 an ExportResult, written last
      .jobs/<the same name>/                        the newest attempt
        request.json, control.json                  written by the process that starts or cancels the export
        status.json, export.log, build/             written by the worker, which holds job.lock while it lives

An export that fails its verification is removed, or, with keep_unproven, kept under a name that ends in "-unproven". A
crash leaves a job folder whose lock is free; the next start clears it and never touches a finished export.
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core import files
from core.errors import BusyError, ExportError
from core.export.jobs import GONE, JobFolder
from core.export.llamacpp import tools
from core.export.records import (
    KINDS,
    LONGEST_MERGED,
    MAX_STRENGTH,
    QUANTS,
    ExportRequest,
    ExportResult,
    ExportStatus,
    read_result,
)
from core.messages import msg
from core.models import adapters
from core.runs import process as run_process
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.system import path_length
from core.workspace import names
from core.workspace.folder import Workspace

DELETED = ".deleted"  # suffix of a folder that is being deleted
LEAVE_S = 5.0  # a worker holds its lock for a moment after its last status


@dataclass(frozen=True)
class ExportJob:
    """A started export. `folder` is its final place once it is done."""

    request: ExportRequest
    folder: Path
    job: JobFolder
    process: subprocess.Popen[bytes]

    def status(self) -> ExportStatus:
        """Return the status; "starting" before the worker has written one, failed if it has ended without one."""
        is_over = self.process.poll() is not None
        return self.job.status(self.process) or ExportStatus().model_copy(update=GONE if is_over else {})

    def wait(
        self, timeout_s: float = math.inf, on_status: Callable[[ExportStatus], None] | None = None
    ) -> ExportStatus:
        """Wait until the export has ended, or for timeout_s, and return its status."""
        return self.job.wait(self.process, on_status, timeout_s)


class Exports:
    """All exports of a workspace: start, follow, list and delete them."""

    def __init__(self, workspace: Workspace, runs: Runs | None = None):
        """Note the workspace, and delete what killed workers and interrupted deletions have left there
        (`_clear_leftovers`)."""
        self.workspace, self.runs = workspace, runs or Runs(workspace)
        self._started: dict[str, subprocess.Popen[bytes]] = {}  # by name
        self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """Delete what killed workers, interrupted deletions and files that Windows kept open have left behind; folders
        of working jobs are left alone."""
        for leftover in self.workspace.exports.glob(f".*{DELETED}"):
            files.remove_tree(leftover)
        for job in (self.workspace.exports / ".jobs").glob("*"):
            folder = JobFolder(job)
            with contextlib.suppress(OSError):  # a foreign file, or one that is open in another program
                if not folder.is_at_work():
                    folder.clear()
                    for part in job.glob(".*.tmp-*"):  # of core.files.replace
                        part.unlink(missing_ok=True)

    def start(
        self,
        run: RunFolder,
        to: str,
        quant: str | None = None,
        checkpoint: str | None = None,
        keep_unproven: bool = False,
        strength: float = 1.0,
    ) -> ExportJob:
        """Begin an export in a child process and return its job, after deleting leftovers.
        Raises ExportError if its options, tools or path do not allow it, BusyError while the same one is running."""
        request = self.request(run, to, quant, checkpoint, keep_unproven, strength)
        if request.kind == "gguf" and (reason := tools.why_unavailable(self.workspace)):
            raise ExportError("gguf.needs_tools", reason=reason)
        job = self._job(request.name)
        # Refused now rather than by Windows in the middle: the longest path below build that the worker will write.
        longest = f"out/{names.slug(run.name)}-q4_k_m.gguf" if request.kind == "gguf" else LONGEST_MERGED
        path_length.refuse(job.build, ExportError, len(longest))
        # A worker that has reported its end may hold its lock for a moment more.
        status, deadline = job.status(self._started.get(request.name)), time.monotonic() + LEAVE_S
        while job.is_locked() and status and not status.active and time.monotonic() < deadline:
            time.sleep(0.05)
        if job.is_locked() or (status and status.active):
            raise BusyError("export.already_running", name=run.name, kind=request.kind)
        self._clear_leftovers()
        environment = run_process.environment_nearest(run.facts().wanted_device)
        process = job.begin(request, "core.export.export_worker", self.workspace.root, environment)
        self._started[request.name] = process
        return ExportJob(request, self.workspace.exports / request.name, job, process)

    def has_live_worker(self) -> bool:
        """Return whether a worker started by this process is alive. In its first seconds it does not hold the device
        yet."""
        return any(process.poll() is None for process in list(self._started.values()))

    def request(
        self,
        run: RunFolder,
        to: str,
        quant: str | None = None,
        checkpoint: str | None = None,
        keep_unproven: bool = False,
        strength: float = 1.0,
    ) -> ExportRequest:
        """Check an export's options and return the worker's request. to: a key of KINDS; quant: for GGUF only, default
        the first of QUANTS; checkpoint: None for the final adapter. Raises ExportError, RunError or ModelError (a
        damaged adapter)."""
        if to not in KINDS:
            raise ExportError("export.unknown_target", found=str(to)[:40], there=list(KINDS))
        kind = KINDS[to]
        if quant is not None and (kind != "gguf" or quant not in QUANTS):
            raise ExportError("export.unknown_quant", found=str(quant)[:40], there=list(QUANTS))
        folder = adapter_folder(run, checkpoint)
        adapters.describe(folder)
        adapters.check_complete(folder)
        if not 0 < strength <= MAX_STRENGTH:
            raise ExportError("export.strength", found=strength, most=MAX_STRENGTH)
        return ExportRequest(
            workspace=str(self.workspace.root),
            run=run.id,
            kind=kind,
            quant=(quant or QUANTS[0]) if kind == "gguf" else quant,
            checkpoint=checkpoint,
            keep_unproven=keep_unproven,
            strength=strength,
        )

    def attempts(self, run_id: str) -> Sequence[tuple[ExportRequest, ExportStatus]]:
        """Return request and status of the newest attempt at each export of a run, at any strength, that is running or
        did not succeed."""
        attempts = []
        for folder in sorted((self.workspace.exports / ".jobs").glob("*")):
            request = (
                files.read_model(ExportRequest, folder / "request.json")
                if folder.name.startswith(f"{run_id}-")
                else None
            )
            if request and request.run == run_id and request.name == folder.name:
                status = JobFolder(folder).status(self._started.get(request.name))
                attempts += [(request, status)] if status and status.state != "done" else []
        return attempts

    def cancel(self, name: str) -> ExportStatus | None:
        """Cancel the export whose request has this name, from any process, and return its status; None if there is no
        attempt. A worker that does not end within CANCEL_S is killed. An earlier finished export stays."""
        return self._job(name).end(self._started.get(name), msg("export.cancelled"))

    def finished(
        self, run: RunFolder, to: str, quant: str | None = None, checkpoint: str | None = None, strength: float = 1.0
    ) -> ExportResult | None:
        """Return the finished export with these options if it was made after the adapter was last written, else None.
        Raises as `request`."""
        request = self.request(run, to, quant, checkpoint, strength=strength)
        result = read_result(self.workspace.exports / request.name)
        # A run that was continued has a newer adapter than the export.
        trained = (adapter_folder(run, checkpoint) / "adapter_model.safetensors").stat().st_mtime
        return result if result and result.name == request.name and result.created >= trained else None

    def list(self, run_id: str | None = None) -> Sequence[ExportResult]:
        """Return the finished exports of one run, or of all (run_id None), newest first; also those that failed
        verification and were kept as NAME-unproven. Folders without a valid record, or copied under another name, are
        left out."""
        folders = [path for path in self.workspace.exports.iterdir() if not path.name.startswith(".")]
        results = [(path.name, read_result(path)) for path in folders]
        # A copied folder still has its original's name in export.json: it is not an export of this workspace.
        chosen = [result for name, result in results if result and result.name == name and run_id in (None, result.run)]
        return sorted(chosen, key=lambda result: (result.created, result.name), reverse=True)

    def folder(self, result: ExportResult) -> Path:
        """Return the folder of a finished export."""
        return self.workspace.exports / result.name

    def delete(self, result: ExportResult) -> None:
        """Delete an export. Raises ExportError if a program has it open; then nothing is deleted."""
        aside = self.workspace.exports / f".{names.short_id()}{DELETED}"
        try:  # Windows renames no folder of which a program has a file open: all of it is deleted, or nothing
            files.rename(self.folder(result), aside, files.MOMENT_S)
        except OSError as error:
            raise ExportError("export.cannot_delete", name=result.name, reason=error.strerror or error) from error
        files.remove_tree(aside)

    def _job(self, name: str) -> JobFolder:
        """Return the job folder of the export of this name, with its request, status and lock; it need not exist."""
        return JobFolder(self.workspace.exports / ".jobs" / name)


def adapter_folder(run: RunFolder, checkpoint: str | None) -> Path:
    """Return the folder of a run's adapter, or of a checkpoint's. Raises RunError for an unknown checkpoint,
    ExportError without an adapter."""
    if checkpoint is not None:
        return run.checkpoint(checkpoint) / "adapter"
    if not run.has_adapter():
        raise ExportError("export.no_adapter", name=run.name)
    return run.adapter
