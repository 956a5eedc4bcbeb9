"""The process of one publication: `python -m core.export.hub.publish_worker REQUEST.json`. Exit: 0 done, 1 failed; a
cancel ends it from within (ExportReporter).

The token comes from the environment or the hub's own login; this process writes it nowhere. Needs neither GPU nor
lease.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from core.errors import ExportError, GarageError
from core.export.export_worker import ExportReporter, work_in
from core.export.hub.publishing import CANCELLED, Publishing, PublishRequest
from core.export.hub.sending import Sender, Sent
from core.export.records import read_result
from core.messages import Message, msg
from core.workspace.folder import Workspace


def main() -> int:
    """Publish the export of the request file in argv[1]; return the exit status."""
    request = PublishRequest.model_validate_json(Path(sys.argv[1]).read_text("utf-8"))
    return work_in(Path(sys.argv[1]).parent, request.workspace, lambda job: publish(request, job), CANCELLED)


def publish(request: PublishRequest, job: ExportReporter) -> int:
    """Send the files of an export to the Hub; return the exit status, 0 or 1. Every failure becomes a status of job."""
    workspace = Workspace.open(request.workspace)
    try:
        result = read_result(workspace.exports / request.export)
        if result is None:
            raise ExportError("publish.no_export", name=request.export)
        parcel = Publishing(workspace).pack(result, request.repo, request.with_film)
        sent = Sender(parcel, request.private, job.set_stage).send()
    except GarageError as error:
        job.end("failed", error.message)
        return 1
    except Exception as error:  # noqa: BLE001 - any error must reach the user; its text may hold signed addresses
        print("".join(traceback.format_tb(error.__traceback__)), type(error).__name__, file=sys.stderr)
        job.end("failed", msg("publish.crashed", kind=type(error).__name__))
        return 1
    job.end("done", done_message(sent, request))
    return 0


def done_message(sent: Sent, request: PublishRequest) -> Message:
    """The message of a finished publication: address, commit, visibility, and how to undo it."""
    undo = msg("publish.undo_new" if sent.is_new else "publish.undo_commit", repo=request.repo, page=sent.page)
    key = "publish.done_private" if request.private else "publish.done_public"
    return msg(key, repo=request.repo, page=sent.page, commit=sent.commit[:12], undo=undo)


if __name__ == "__main__":
    sys.exit(main())
