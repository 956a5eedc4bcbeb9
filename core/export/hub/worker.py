"""One publication, in a process of its own: `python -m core.export.hub.worker REQUEST.json`. Exit: 0 done, 1 failed; a
cancel ends it from within (ExportReporter).

The token comes by the environment or the hub's own login, as everywhere; this process writes it nowhere. Needs neither
card nor lease.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from filelock import Timeout

from core.errors import ExportError, GarageError
from core.export.hub.publishing import CANCELLED, Publishing, PublishRequest
from core.export.hub.sending import Sender, Sent
from core.export.jobs import JobFolder
from core.export.records import read_result
from core.export.worker import ExportReporter
from core.messages import Message, msg
from core.system.awake import KeepAwake
from core.workspace import preferences
from core.workspace.folder import Workspace


def main() -> int:
    file = Path(sys.argv[1])
    request = PublishRequest.model_validate_json(file.read_text("utf-8"))
    folder, workspace = JobFolder(file.parent), Workspace.open(request.workspace)

    try:
        with (
            folder.lock().acquire(timeout=5),
            ExportReporter(folder, CANCELLED) as job,
            KeepAwake(lambda: preferences.read(workspace).automation.keep_awake, job.awake),
        ):
            return publish(request, workspace, job)
    except Timeout:
        return 1  # another worker has this job, and its status stands


def publish(request: PublishRequest, workspace: Workspace, job: ExportReporter) -> int:
    try:
        result = read_result(workspace.exports / request.export)
        if result is None:
            raise ExportError("publish.no_export", name=request.export)
        parcel = Publishing(workspace).pack(result, request.repo, request.with_film)
        sent = Sender(parcel, request.private, job.stage).send()
    except GarageError as error:
        job.end("failed", error.message)
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it was, the person must see it; its words may hold signed addresses
        print("".join(traceback.format_tb(error.__traceback__)), type(error).__name__, file=sys.stderr)
        job.end("failed", msg("publish.crashed", kind=type(error).__name__))
        return 1
    job.end("done", done(sent, request))
    return 0


def done(sent: Sent, request: PublishRequest) -> Message:
    """Where it is, which commit, who sees it, and how to take it back."""
    undo = msg("publish.undo_new" if sent.is_new else "publish.undo_commit", repo=request.repo, page=sent.page)
    key = "publish.done_private" if request.private else "publish.done_public"
    return msg(key, repo=request.repo, page=sent.page, commit=sent.commit[:12], undo=undo)


if __name__ == "__main__":
    sys.exit(main())
