"""The list of downloads of a workspace, models and parts of datasets: started, paused, resumed and cancelled from
anywhere, three at once, also during a run.

Whoever asks writes a wish (core.hub.entry); whoever works on it holds its lock: the app's thread, a command in the
foreground, or the worker of a run that needs the model. Two that want one model work on it once, and the second
follows. A line that breaks after the first byte is tried again by itself, with growing pauses; any other failure waits
for a person.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import constants

from core import files
from core.errors import ModelError, RunError
from core.hub import download
from core.hub.cached import REPO_ID, REVISION, CachedRepo, cache_folder
from core.hub.download import Check, Report, Room
from core.hub.entry import CAME, ENDED, Download, Entry, is_name
from core.hub.sets import fetching
from core.hub.sets.fetching import Arrived
from core.hub.sets.name import PartName
from core.hub.work import DownloadWork, NotNow
from core.messages import Message, msg
from core.progress import Progress
from core.workspace.folder import Workspace

Accept = Callable[[str, Path], None]  # a model, and the folder where its config.json lies; raises ModelError
Bring = Callable[
    [PartName, Arrived, dict[str, Any], Check], str
]  # with what was said of how it is to be read; raises DataError, and what check raises
AT_ONCE = 3
POLL_S = 0.3
NEAR = 3  # names that a typo may have meant


class Downloads:
    def __init__(
        self,
        workspace: Workspace,
        accept: Accept = lambda repo, folder: None,
        known: Sequence[str] = (),
        bring: Bring | None = None,
    ):
        """accept: what is asked of a config.json before anything large. known: ids that a typo may have meant. bring:
        makes a data set of ours of what came, and gives its id; without it parts of data sets wait for somebody who
        can."""
        self.workspace, self._accept, self._known, self._bring = workspace, accept, known, bring
        self._threads: dict[Path, threading.Thread] = {}
        self._closing, self._wake = threading.Event(), threading.Event()
        self._starter: threading.Thread | None = None
        # what ended here and could not be written: of which wish, and why
        self._untold: dict[Path, tuple[float, Message]] = {}

    def rows(self) -> list[Download]:
        """In the order in which they were asked for."""
        rows = [self._row(entry) for entry in self._entries()]
        return sorted((row for row in rows if row), key=lambda row: row.asked)

    def row(self, repo: str, revision: str | None = None) -> Download | None:
        return self._row(self._entry(repo, revision))

    def _row(self, entry: Entry) -> Download | None:
        row, (asked, why) = entry.read(), self._untold.get(entry.folder, (0.0, None))
        if row is None or row.wanted == "cancel":
            return None
        is_untold = row.state == "waiting" and row.asked == asked
        return row.model_copy(update={"state": "failed", "message": why}) if is_untold else row

    def start(self, repo: str, revision: str | None = None, said: dict[str, Any] | None = None) -> Download:
        """Ask for a model, or a part of a data set. said: of how that is to be read; None for what was said before.
        What runs already goes on, what is paused or failed begins again where it was. Raises ModelError, and RunError
        where the disk does not take it."""
        entry, revision = self._entry(repo, revision), revision or constants.DEFAULT_REVISION
        row = self._row(entry)
        if row is not None and row.state in ("waiting", "running", "again"):
            return row

        def wanted(before: Download | None) -> Download:
            new = Download(repo=repo, revision=revision, asked=time.time(), said=said or {})
            if before is None or before.wanted == "cancel":
                lies_here = new.part is None and new.cached.folder.exists()
                return new.model_copy(update={"is_first": not lies_here})
            kept = {"is_first", "done", "total", "unit", *([] if said is not None else ["said"])}
            return new.model_copy(update={name: getattr(before, name) for name in kept})

        with files.writing(self.workspace.root):
            entry.folder.parent.mkdir(exist_ok=True)
            entry.change(wanted)
        self._wake.set()
        found = entry.read()
        assert found is not None  # it was asked for just now
        return found

    def pause(self, repo: str, revision: str | None = None) -> None:
        """Raises ModelError for a model that is not in the list, or has ended."""
        if self._row_of(repo, revision).state in ENDED:
            raise ModelError("downloads.ended", repo=repo)
        self._pause(repo, revision)

    def _pause(self, repo: str, revision: str | None) -> None:
        def paused(wish: Download | None) -> Download | None:
            runs = wish is not None and wish.wanted == "run" and wish.phase not in ENDED
            return wish.model_copy(update={"wanted": "pause"}) if wish and runs else None

        with files.writing(self.workspace.root):
            self._entry(repo, revision).change(paused)

    def resume(self, repo: str, revision: str | None = None) -> Download:
        """Raises ModelError for a model that is not in the list."""
        self._row_of(repo, revision)
        return self.start(repo, revision)

    def cancel(self, repo: str, revision: str | None = None) -> None:
        """Stop it, throw away what came and is not whole, and take it off the list; of one that is done only the last.
        Raises ModelError."""
        row, entry = self._row_of(repo, revision), self._entry(repo, revision)
        gone = {"wanted": "cancel", "asked": time.time(), "is_first": row.is_first and row.state != "done"}
        with files.writing(self.workspace.root):
            entry.change(lambda wish: wish and wish.model_copy(update=gone))
        self._clear(entry)  # where somebody holds it, they do it

    def begin(self) -> None:
        """Work on what waits, from a thread of its own, until `close`; for the app that owns the workspace. What is
        done leaves the list."""
        for entry in self._entries():
            if (row := self._row(entry)) is None or row.state == "done":
                self._clear(entry)
        self._starter = threading.Thread(target=self._start_what_waits, name="downloads", daemon=True)
        self._starter.start()

    def close(self) -> None:
        """What runs here stops and goes on at the next start."""
        self._closing.set()
        self._wake.set()
        for thread in [self._starter, *self._threads.values()]:
            if thread is not None:
                thread.join()

    def fetch(
        self, repo: str, revision: str | None, report: Report, check: Check, accept: Callable[[Path], None]
    ) -> Path:
        """A model for whoever needs it now, by way of the list. Raises ModelError, and what check and accept raise."""
        cached = CachedRepo(repo, cache_folder(None)) if REPO_ID.fullmatch(repo) else None
        local = cached.snapshot(revision or constants.DEFAULT_REVISION) if cached else None
        if not (cached and local and cached.is_whole(local)):
            before = self.row(repo, revision)
            is_ours = before is None or before.state in ("paused", *ENDED)  # nobody else wanted it now
            self.start(repo, revision)
            try:
                row = self.follow(repo, revision, report, check, accept)
            except BaseException:  # a stop and Ctrl-C too; all of them go on
                if is_ours:
                    with suppress(RunError):  # of a full disk: what ended it is said first
                        self._pause(repo, revision)
                raise
            if row is None or row.state == "paused":
                raise ModelError("downloads.left", repo=repo)
            if row.state == "failed" and row.message:
                raise ModelError(row.message)
            if cached and (local := cached.snapshot(revision or constants.DEFAULT_REVISION)):
                accept(local)  # somebody else may have brought it, who asked something else of it
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
        """Until it is done, failed, paused or cancelled (None); works on it here where nobody else does. Raises what
        check raises, which ends it where it is worked on here, and elsewhere only the looking on."""
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
    def _start_what_waits(self) -> None:
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
        def go_on() -> None:
            if self._closing.is_set():
                raise NotNow

        try:
            self._work(repo, entry, lambda progress: None, go_on, lambda folder: self._accept(repo, folder))
        except OSError as error:
            # not begun again and again: a disk that is full takes neither the model nor what is told of it
            reason = error.strerror or type(error).__name__
            self._end_untold(entry, msg("downloads.cannot_tell", repo=repo, folder=entry.folder, reason=reason))
        except Exception as error:  # a mistake of ours, told in the log: begun again it would only be made again
            self._end_untold(entry, msg("downloads.mistake", repo=repo, kind=type(error).__name__))
            raise

    def _end_untold(self, entry: Entry, why: Message) -> None:
        """Failed, until somebody asks for it anew, though its files say that it waits."""
        if (wish := entry.read()) is not None:
            self._untold[entry.folder] = wish.asked, why

    def _work(self, repo: str, entry: Entry, report: Report, check: Check, accept: Callable[[Path], None]) -> bool:
        """Whether it was worked on here, to whatever end; False where somebody else holds it."""
        part = PartName.parse(repo)
        if not entry.folder.is_dir() or (part and not self._bring):  # cancelled meanwhile, or somebody else's
            return False

        def fetch(wish: Download, report: Report, check: Check, room: Room) -> str:
            if part and self._bring:
                folder = entry.folder / CAME
                id = self._bring(part, fetching.fetch(part, folder, report, check, room), wish.said, check)
                files.remove_tree(folder, files.MOMENT_S)  # it is a set of ours now
                return id
            download.fetch(wish.repo, wish.revision, report, check, accept=accept, room=room)
            return ""

        with entry.held() as is_ours:
            if not is_ours:
                return False
            with suppress(NotNow):
                work = DownloadWork(entry, report, check, fetch, partial(self._others, entry))
                work.to_its_end(lambda message: with_nearest(repo, message, self._known))
        if (wish := entry.read()) is not None and wish.wanted == "cancel":
            self._clear(entry)
        return True

    @contextmanager
    def _others(self, entry: Entry) -> Iterator[int]:
        """Bytes that the other downloads which have their room still need; meanwhile no other of this workspace looks
        for room."""
        with FileLock(self.workspace.cache / "downloads.lock", thread_local=False):
            on_their_way = [
                told
                for other in self._entries()
                if other.folder != entry.folder and other.is_held() and (told := other.read()) and told.has_room
            ]
            yield sum(
                told.total - told.done for told in on_their_way if told.phase not in ENDED and told.unit == "bytes"
            )

    def _clear(self, entry: Entry) -> None:
        """Take off the list what nobody holds, and throw away what a cancelled one left."""
        with entry.held() as is_ours:
            if not is_ours:
                return
            wish = entry.read()
            if wish is not None and wish.wanted == "cancel":
                entry.throw_away(wish)
                if (now := entry.read()) and now.asked != wish.asked:  # asked for anew meanwhile
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
        revision = revision or constants.DEFAULT_REVISION
        if not is_name(repo):
            raise ModelError("hub.bad_id", found=repo[:100])
        if not REVISION.fullmatch(revision):
            raise ModelError("hub.bad_revision", repo=repo, revision=revision[:100])
        return Entry.of(self.workspace, repo, revision)

    def _row_of(self, repo: str, revision: str | None) -> Download:
        row = self.row(repo, revision)
        if row is None:
            there = [each.repo for each in self.rows()] or ["-"]
            raise ModelError("downloads.not_there", repo=repo, there=there[:10])
        return row


def with_nearest(repo: str, message: Message, known: Sequence[str]) -> Message:
    """What is said of a model; of a name that the hub does not have also which it may have been."""
    near = nearest(repo, known) if message.key == "hub.missing" else []
    return msg("downloads.missing_near", missing=message, near=near) if near else message


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Ids that a person who wrote name may have meant: alike as a whole, or in what follows the owner."""
    own = {each.lower(): each for each in known}
    last = {each.rpartition("/")[2].lower(): each for each in reversed(known)}
    wanted = name.lower()
    close = [own[each] for each in get_close_matches(wanted, own, NEAR, 0.75)]
    close += [last[each] for each in get_close_matches(wanted.rpartition("/")[2], last, NEAR, 0.75)]
    return list(dict.fromkeys(close))[:NEAR]
