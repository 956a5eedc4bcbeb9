"""`export RUN --to hub`: publishes an export, creating it first if needed. Without --yes it only lists the files."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import typer

from core.commands.terminal import in_words, plain, print_json, say, written_over
from core.errors import ExportError
from core.export.exports import Exports
from core.export.hub.parcel import Parcel, check_name
from core.export.hub.publishing import Publishing
from core.export.records import ExportResult, ExportStatus
from core.hub.hub_errors import format_size as size_in_words
from core.messages import Message, msg, terminal_language
from core.runs.folder import RunFolder


@dataclass(frozen=True)
class PublishWish:
    """Options of publishing. kind: adapter, merged or gguf. yes: nothing is sent without it."""

    repo: str
    kind: str = "adapter"
    quant: str | None = None
    checkpoint: str | None = None
    strength: float = 1.0
    private: bool = True
    with_film: bool = False
    yes: bool = False
    as_json: bool = False


def to_hub(exports: Exports, run: RunFolder, wish: PublishWish) -> None:
    """List what would be sent, of an export that is made first if needed, and, with wish.yes, send it. Raises
    GarageError, and always typer.Exit with the exit status: 0, 3 cancelled, 1 failed."""
    check_name(wish.repo, run.name)
    if wish.kind not in ("adapter", "merged", "gguf"):
        raise ExportError("export.unknown_target", found=wish.kind[:40], there=["adapter", "merged", "gguf"])
    result = exports.finished(run, wish.kind, wish.quant, wish.checkpoint, wish.strength) or _made(exports, run, wish)
    publishing = Publishing(exports.workspace, exports.runs)
    parcel = publishing.pack(result, wish.repo, wish.with_film)
    if not wish.as_json:
        _list(parcel, wish)
    status = None
    if wish.yes:
        status = _send(publishing, result, wish)
    elif not wish.as_json:
        say(msg("publish.ask_yes"))
    if wish.as_json:
        _print(parcel, wish, status)
    elif status:
        say(_message_of_end(status))
    raise typer.Exit(0 if status is None or status.state == "done" else 3 if status.state == "cancelled" else 1)


def _made(exports: Exports, run: RunFolder, wish: PublishWish) -> ExportResult:
    """Create and check the export as `export --to` does, wait for it and return it. Raises ExportError; Ctrl-C cancels
    it and exits with code 3."""
    job = exports.start(run, wish.kind, wish.quant, wish.checkpoint, strength=wish.strength)
    try:
        status = job.wait(on_status=None if wish.as_json else _Stages().show)
    except KeyboardInterrupt:
        status = exports.cancel(job.request.name) or job.status()
        say(_message_of_end(status))
        raise typer.Exit(3) from None
    job.process.wait()
    result = exports.finished(run, wish.kind, wish.quant, wish.checkpoint, wish.strength)
    if status.state != "done" or result is None:
        raise ExportError(_message_of_end(status))
    return result


def _send(publishing: Publishing, result: ExportResult, wish: PublishWish) -> ExportStatus:
    """Upload the export, wait for its end and return its status. Ctrl-C cancels the upload."""
    publishing.start(result, wish.repo, wish.private, wish.with_film)
    try:
        return publishing.wait(result.name, None if wish.as_json else _Stages().show)
    except KeyboardInterrupt:
        return publishing.cancel(result.name) or ExportStatus(state="cancelled")
    finally:
        if not wish.as_json and sys.stderr.isatty():
            print(file=sys.stderr)


class _Stages:
    """Prints each stage once; on a terminal with its progress, on one line."""

    def __init__(self) -> None:
        """Begin without a printed stage."""
        self._line, self._stage = "", ""

    def show(self, status: ExportStatus) -> None:
        """Write stage and per cent over the previous line; into a pipe, one line for each stage."""
        percent = f" {round(100 * status.fraction)} %" if status.fraction is not None else ""
        line = status.stage_text.render(terminal_language()) + percent
        if sys.stderr.isatty():
            print(written_over(self._line, line), end="", file=sys.stderr, flush=True)
        elif status.stage != self._stage:
            say(status.stage_text)
        self._line, self._stage = line, status.stage


def _list(parcel: Parcel, wish: PublishWish) -> None:
    """Print each file with its size, then the total size and where it would go, and the parcel's notes."""
    for piece in parcel.pieces:
        print(f"{size_in_words(piece.size).render(terminal_language()):>10}  {piece.name}")
    key = "publish.leaves_private" if wish.private else "publish.leaves_public"
    say(msg(key, files=len(parcel.pieces), size=size_in_words(parcel.size), repo=wish.repo))
    for note in parcel.notes:
        say(note)


def _print(parcel: Parcel, wish: PublishWish, status: ExportStatus | None) -> None:
    """Print the parcel, whether it was published, and the message, as one JSON object."""
    files = [{"name": piece.name, "bytes": piece.size} for piece in parcel.pieces]
    value = {"repo": wish.repo, "kind": wish.kind, "private": wish.private, "files": files, "bytes": parcel.size}
    state = {
        "published": bool(status and status.state == "done"),
        "message": status.message if status else msg("publish.ask_yes"),
    }
    print_json(in_words(plain(value | {"notes": [plain(note) for note in parcel.notes]} | state)))


def _message_of_end(status: ExportStatus) -> Message:
    """Return the message with which an export or upload ended; if it left none, that its process ended without a
    report."""
    return status.message or msg("export.went_away")
