"""The list of a workspace's downloads, models and parts of datasets: started, paused, resumed and cancelled from
anywhere, three at once, also during a run.

A page or command writes a request (core.hub.entry); the process that works on it holds its lock: the app's thread, a
command in the foreground, or the worker of a run that needs the model. If two processes need the same model one
downloads it and the other follows. A connection that breaks after the first byte is retried with growing pauses; any
other failure waits for the user.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants

from core import files
from core.errors import ModelError, RunError
from core.files import JsonObject
from core.hub import download
from core.hub.cached import REPO_ID, REVISION, CachedRepo, cache_folder
from core.hub.download import Check, CheckDisk, Report
from core.hub.entry import CAME, ENDED, Download, Entry, is_name
from core.hub.sets import fetching
from core.hub.sets.fetching import FetchedPart
from core.hub.sets.name import PartName
from core.hub.work import DownloadWork, NotWanted
from core.messages import Message, msg
from core.progress import Progress
from core.workspace.folder import Workspace

Accept = Callable[[str, Path], None]  # model id, folder with its config.json; raises ModelError
# Makes a dataset of the library from a part and the options for reading it; raises DataError, and what check raises.
Bring = Callable[[PartName, FetchedPart, JsonObject, Check], str]
AT_ONCE = 3
POLL_S = 0.3
NEAR = 3  # suggestions for a mistyped name


class Downloads:
    """The list of downloads of a workspace, and the work on them."""

    def __init__(
        self,
        workspace: Workspace,
        accept: Accept = lambda repo, folder: None,
        known: Sequence[str] = (),
        bring: Bring | None = None,
    ):
        """Set up the list.

        accept: checks a config.json before any large file. known: ids for suggestions on a mistyped name. bring: makes
        a dataset of the downloaded files and returns its id; without it parts of datasets wait for a process that has
        it.
        """
        self.workspace, self._accept, self._known, self._bring = workspace, accept, known, bring
        self._threads: dict[Path, threading.Thread] = {}
        self._closing, self._wake = threading.Event(), threading.Event()
        self._starter: threading.Thread | None = None
        # failures that could not be written to disk: time of the request, message
        self._unsaved_failures: dict[Path, tuple[float, Message]] = {}

    def rows(self) -> list[Download]:
        """All downloads in the order of their requests."""
        rows = [self._row(entry) for entry in self._entries()]
        return sorted((row for row in rows if row), key=lambda row: row.asked)

    def row(self, repo: str, revision: str | None = None) -> Download | None:
        return self._row(self._entry(repo, revision))

    def _row(self, entry: Entry) -> Download | None:
        """The download as the user sees it; None if it is absent or being cancelled."""
        row, (request_time, failure) = entry.read(), self._unsaved_failures.get(entry.folder, (0.0, None))
        if row is None or row.wanted == "cancel":
            return None
        is_unsaved = row.state == "waiting" and row.asked == request_time
        return row.model_copy(update={"state": "failed", "message": failure}) if is_unsaved else row

    def start(self, repo: str, revision: str | None = None, reading: JsonObject | None = None) -> Download:
        """Request a model, or a part of a dataset. reading: options for reading the dataset; None keeps the previous
        ones.

        A running download goes on; a paused or failed one resumes where it was. Raises ModelError, and RunError if the
        disk is full.
        """
        entry, revision = self._entry(repo, revision), revision or constants.DEFAULT_REVISION
        row = self._row(entry)
        if row is not None and row.state in ("waiting", "running", "again"):
            return row

        def requested(previous: Download | None) -> Download:
            new = Download(repo=repo, revision=revision, asked=time.time(), said=reading or {})
            if previous is None or previous.wanted == "cancel":
                is_cached = new.part is None and new.cached.folder.exists()
                return new.model_copy(update={"is_first": not is_cached})
            kept_fields = {"is_first", "done", "total", "unit", *([] if reading is not None else ["said"])}
            return new.model_copy(update={name: getattr(previous, name) for name in kept_fields})

        with files.writing(self.workspace.root):
            entry.folder.parent.mkdir(exist_ok=True)
            entry.change(requested)
        self._wake.set()
        current = entry.read()
        assert current is not None  # it was written just now
        return current

    def pause(self, repo: str, revision: str | None = None) -> None:
        """Pause a download. Raises ModelError if it is not in the list or has ended."""
        if self._row_of(repo, revision).state in ENDED:
            raise ModelError("downloads.ended", repo=repo)
        self._pause(repo, revision)

    def _pause(self, repo: str, revision: str | None) -> None:
        """Request a pause of a download that is running or waiting; nothing otherwise."""

        def paused(request: Download | None) -> Download | None:
            runs = request is not None and request.wanted == "run" and request.phase not in ENDED
            return request.model_copy(update={"wanted": "pause"}) if request and runs else None

        with files.writing(self.workspace.root):
            self._entry(repo, revision).change(paused)

    def resume(self, repo: str, revision: str | None = None) -> Download:
        """Resume a download. Raises ModelError if it is not in the list."""
        self._row_of(repo, revision)
        return self.start(repo, revision)

    def cancel(self, repo: str, revision: str | None = None) -> None:
        """Stop a download, delete its incomplete files and remove it from the list; a finished one is only removed.
        Raises ModelError."""
        row, entry = self._row_of(repo, revision), self._entry(repo, revision)
        cancelled = {"wanted": "cancel", "asked": time.time(), "is_first": row.is_first and row.state != "done"}
        with files.writing(self.workspace.root):
            entry.change(lambda request: request and request.model_copy(update=cancelled))
        self._clear(entry)  # if another process holds it, that one does

    def begin(self) -> None:
        """Work on waiting downloads in a thread until `close`, after clearing finished ones; for the app that owns the
        workspace."""
        for entry in self._entries():
            if (row := self._row(entry)) is None or row.state == "done":
                self._clear(entry)
        self._starter = threading.Thread(target=self._start_waiting, name="downloads", daemon=True)
        self._starter.start()

    def close(self) -> None:
        """Stop the downloads of this process; they resume at the next start."""
        self._closing.set()
        self._wake.set()
        for thread in [self._starter, *self._threads.values()]:
            if thread is not None:
                thread.join()

    def fetch(
        self, repo: str, revision: str | None, report: Report, check: Check, accept: Callable[[Path], None]
    ) -> Path:
        """Download a model now, through the list, and return its folder. Raises ModelError, and what check and accept
        raise."""
        cached = CachedRepo(repo, cache_folder(None)) if REPO_ID.fullmatch(repo) else None
        local = cached.snapshot(revision or constants.DEFAULT_REVISION) if cached else None
        if not (cached and local and cached.is_complete(local)):
            previous = self.row(repo, revision)
            is_ours = previous is None or previous.state in ("paused", *ENDED)  # no other process needs it now
            self.start(repo, revision)
            try:
                row = self.follow(repo, revision, report, check, accept)
            except BaseException:  # a stop and Ctrl-C too; always raised again
                if is_ours:
                    with suppress(RunError):  # of a full disk: the first error is reported
                        self._pause(repo, revision)
                raise
            if row is None or row.state == "paused":
                raise ModelError("downloads.left", repo=repo)
            if row.state == "failed" and row.message:
                raise ModelError(row.message)
            if cached and (local := cached.snapshot(revision or constants.DEFAULT_REVISION)):
                accept(local)  # another process may have downloaded it with another check
                return local
        return download.fetch(repo, revision, report, check, accept=accept)

    def follow(
        self,
        repo: str,
        revision: str | None = None,
        report: Report = lambda progress: None,
        check: Check = lambda: None,
        accept: Callable[[Path], None] | None = None,
    ) -> Download | None:
        """Wait until the download is done, failed, paused or cancelled (None); work on it here if no other process
        does.

        An exception of check is passed on; it ends the download if this process works on it, otherwise only the
        waiting.
        """
        entry = self._entry(repo, revision)
        while (row := self._row(entry)) is not None and row.state not in (*ENDED, "paused"):
            check()
            if row.state == "waiting" and self._work(
                repo, entry, report, check, accept or (lambda folder: self._accept(repo, folder))
            ):
                continue
            if row.total:
                report(Progress(done=row.done, total=row.total, unit=row.unit))
            time.sleep(POLL_S)
        return row

    # --- the work
    def _start_waiting(self) -> None:
        """Loop of a thread until the app closes: start waiting downloads, AT_ONCE at a time."""
        while not self._closing.is_set():
            self._threads = {folder: thread for folder, thread in self._threads.items() if thread.is_alive()}
            for row in self.rows():
                entry = self._entry(row.repo, row.revision)
                if row.state == "waiting" and len(self._threads) < AT_ONCE and entry.folder not in self._threads:
                    thread = threading.Thread(
                        target=self._work_here, args=(entry, row.repo), name="download", daemon=True
                    )
                    self._threads[entry.folder] = thread
                    thread.start()
            self._wake.wait(POLL_S)
            self._wake.clear()

    def _work_here(self, entry: Entry, repo: str) -> None:
        """Carry out a download in its thread of this process. An error that its own file cannot hold is shown from
        memory."""

        def check_open() -> None:
            if self._closing.is_set():
                raise NotWanted

        try:
            self._work(repo, entry, lambda progress: None, check_open, lambda folder: self._accept(repo, folder))
        except OSError as error:
            # not retried: a full disk takes neither the model nor its status
            reason = error.strerror or type(error).__name__
            self._fail_unsaved(entry, msg("downloads.cannot_tell", repo=repo, folder=entry.folder, reason=reason))
        except Exception as error:  # a bug, which goes into the log: a retry would only repeat it
            self._fail_unsaved(entry, msg("downloads.mistake", repo=repo, kind=type(error).__name__))
            raise

    def _fail_unsaved(self, entry: Entry, message: Message) -> None:
        """Show the download as failed until it is requested again, though its file says that it waits."""
        if (request := entry.read()) is not None:
            self._unsaved_failures[entry.folder] = request.asked, message

    def _work(self, repo: str, entry: Entry, report: Report, check: Check, accept: Callable[[Path], None]) -> bool:
        """Work on the download and return True; return False if another process holds it."""
        part = PartName.parse(repo)
        if not entry.folder.is_dir() or (part and not self._bring):  # cancelled meanwhile, or for another process
            return False

        def fetch(request: Download, report: Report, check: Check, check_disk: CheckDisk) -> str:
            if part and self._bring:
                folder = entry.folder / CAME
                dataset_id = self._bring(
                    part, fetching.fetch(part, folder, report, check, check_disk), request.said, check
                )
                files.remove_tree(folder, files.MOMENT_S)  # it is in the library now
                return dataset_id
            download.fetch(request.repo, request.revision, report, check, accept=accept, check_disk=check_disk)
            return ""

        with entry.held() as is_ours:
            if not is_ours:
                return False
            with suppress(NotWanted):
                work = DownloadWork(entry, report, check, fetch, partial(self._reserve_disk, entry))
                work.run(lambda message: with_nearest(repo, message, self._known))
        if (request := entry.read()) is not None and request.wanted == "cancel":
            self._clear(entry)
        return True

    @contextmanager
    def _reserve_disk(self, entry: Entry) -> Iterator[int]:
        """Yield the bytes that other running downloads still need; meanwhile no other download checks the disk."""
        with FileLock(self.workspace.cache / "downloads.lock", thread_local=False):
            running = [
                record
                for other in self._entries()
                if other.folder != entry.folder and other.is_held() and (record := other.read()) and record.has_room
            ]
            yield sum(
                record.total - record.done for record in running if record.phase not in ENDED and record.unit == "bytes"
            )

    def _clear(self, entry: Entry) -> None:
        """Remove a download that no process holds from the list, and delete a cancelled one's files."""
        with entry.held() as is_ours:
            if not is_ours:
                return
            request = entry.read()
            if request is not None and request.wanted == "cancel":
                entry.delete_files(request)
                if (current := entry.read()) and current.asked != request.asked:  # requested again meanwhile
                    return
            entry.file.unlink(missing_ok=True)
        files.remove_tree(entry.folder, files.MOMENT_S)

    def _entries(self) -> list[Entry]:
        folder = self.workspace.root / "downloads"
        try:
            return [Entry(each) for each in sorted(folder.iterdir()) if each.is_dir()]
        except OSError:  # there is none yet
            return []

    def _entry(self, repo: str, revision: str | None) -> Entry:
        """Return the entry of a download, whether it exists or not. Raises ModelError for an invalid name or
        revision."""
        revision = revision or constants.DEFAULT_REVISION
        if not is_name(repo):
            raise ModelError("hub.bad_id", found=repo[:100])
        if not REVISION.fullmatch(revision):
            raise ModelError("hub.bad_revision", repo=repo, revision=revision[:100])
        return Entry.for_download(self.workspace, repo, revision)

    def _row_of(self, repo: str, revision: str | None) -> Download:
        row = self.row(repo, revision)
        if row is None:
            names = [each.repo for each in self.rows()] or ["-"]
            raise ModelError("downloads.not_there", repo=repo, there=names[:10])
        return row


def with_nearest(repo: str, message: Message, known: Sequence[str]) -> Message:
    """Add suggestions to the message about a name that the hub does not have."""
    near = nearest(repo, known) if message.key == "hub.missing" else []
    return msg("downloads.missing_near", missing=message, near=near) if near else message


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Known ids that resemble name, as a whole or in the part after the owner."""
    by_id = {each.lower(): each for each in known}
    by_short_name = {each.rpartition("/")[2].lower(): each for each in reversed(known)}
    lowered = name.lower()
    close = [by_id[each] for each in get_close_matches(lowered, by_id, NEAR, 0.75)]
    close += [by_short_name[each] for each in get_close_matches(lowered.rpartition("/")[2], by_short_name, NEAR, 0.75)]
    return list(dict.fromkeys(close))[:NEAR]
