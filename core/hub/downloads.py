"""The app's list of downloads, models and parts of datasets: started, paused, resumed and cancelled on the page, three
at once, also during a run.

It lives in the app's process; <workspace>/downloads.json keeps it for the next start, which continues what ran. A run
or a command downloads for itself (core.hub.download); if two processes need the same model, the second waits for the
first (core.hub.fetch_worker).
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Literal

from filelock import Timeout
from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock
from pydantic import AliasChoices, Field, ValidationError

from core import files
from core.errors import GarageError, ModelError, RunError
from core.files import JsonObject
from core.hub import download
from core.hub.cached import REPO_ID, REVISION, CachedRepo, cache_folder
from core.hub.download import DISK_MARGIN, Check, CheckDisk, Report, refuse_full_disk
from core.hub.sets import fetching
from core.hub.sets.fetching import FetchedPart
from core.hub.sets.name import PAGES, PartName
from core.messages import Message, msg
from core.progress import Progress
from core.values import Frozen
from core.workspace.folder import Workspace
from core.workspace.names import slug

Accept = Callable[[str, Path], None]  # model id, folder with its config.json; raises ModelError
# Makes a dataset of the library from a part and the options for reading it; raises DataError, and what check raises.
Bring = Callable[[PartName, FetchedPart, JsonObject, Check], str]
State = Literal["waiting", "running", "again", "paused", "failed", "done"]
ACTIVE, ENDED = ("waiting", "running", "again"), ("failed", "done")
AT_ONCE = 3
NEAR = 3  # suggestions for a mistyped name
SPEED_S = 10.0  # over which the speed is averaged
# a dataset needs the downloaded files, the file made of them, and the copy with its rows (core/data/store.py)
SET_MARGIN = 3.0


class Download(Frozen):
    """A download's request and progress.

    requested: time of the request, seconds since 1970. is_first: the cache held nothing of the model before, so that
    cancelling may delete all of it. reading: options for reading a dataset (core.data.reading.choices). state, waiting:
    for its turn; again: its connection broke, and it will be retried. done, total: in units; total is 0 while unknown.
    bytes_per_s: units a second, over the last seconds. message: why it failed or is retried. result: id of the dataset
    that it became, or the name of the run. adapter: None for a model or dataset; for an adapter that becomes a run its
    base, "" for the one that it names.
    """

    repo: str
    revision: str
    requested: float = Field(validation_alias=AliasChoices("requested", "asked"))  # the earlier name
    is_first: bool = False
    reading: JsonObject = {}
    state: State = "waiting"
    done: int = 0
    total: int = 0
    bytes_per_s: float | None = None
    message: Message | None = None
    unit: str = "bytes"
    result: str = ""
    adapter: str | None = None

    @property
    def part(self) -> PartName | None:
        """The part of a dataset that is downloaded; None for a model."""
        return PartName.parse(self.repo)

    @property
    def name(self) -> str:
        """The name to show: owner/name; for a dataset owner/name:configuration:split and [:rows]."""
        return self.repo.removeprefix(PAGES)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds left; None while the size or the speed is unknown."""
        return (self.total - self.done) / self.bytes_per_s if self.bytes_per_s and self.total else None


BringAdapter = Callable[[Download, Report, Check], str]


class NotWanted(Exception):
    """The download was paused or cancelled, or the app closes."""


class Speed:
    """Units a second over the last SPEED_S seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()  # when, units

    def add(self, done: float) -> float | None:
        """Note the units done now and return the speed; None in the first second."""
        now = time.monotonic()
        self._samples.append((now, done))
        while now - self._samples[0][0] > SPEED_S:
            self._samples.popleft()
        span = now - self._samples[0][0]
        return max(0.0, done - self._samples[0][1]) / span if span >= 1 else None


class Downloads:
    """The list of downloads of a workspace, and the work on them. Any thread may call it."""

    def __init__(
        self,
        workspace: Workspace,
        accept: Accept = lambda repo, folder: None,
        known: Sequence[str] = (),
        bring: Bring = lambda part, fetched, reading, check: "",
        bring_adapter: BringAdapter = lambda row, report, check: "",
    ):
        """Read the list from its file; downloads that were running wait again, finished ones are dropped. accept:
        checks a config.json before any large file. known: ids for suggestions on a mistyped name. bring: makes a
        dataset of the downloaded files and returns its id. bring_adapter: downloads an adapter, makes it a run and
        returns its name."""
        self.workspace, self._accept, self._known, self._bring = workspace, accept, known, bring
        self._bring_adapter = bring_adapter
        self._file = workspace.root / "downloads.json"
        self._lock, self._open = threading.RLock(), False
        self._work: dict[str, tuple[threading.Thread, threading.Event]] = {}  # with the event that stops it
        self._rows: dict[str, Download] = {}
        listed = files.read_object(self._file).get("downloads")
        for value in listed if isinstance(listed, list) else ():
            with suppress(ValidationError, ModelError):  # a file may hold anything
                row = Download.model_validate(value)
                waits = {"state": "waiting"} if row.state in ACTIVE else {}
                if row.state != "done":
                    self._rows[_key(row.repo, row.revision)] = row.model_copy(update=waits)

    def rows(self) -> list[Download]:
        """All downloads in the order of their requests."""
        return list(self._rows.values())

    def row(self, repo: str, revision: str | None = None) -> Download | None:
        """Return a download of the list; None if it is not there. Raises ModelError for an invalid name."""
        return self._rows.get(_key(repo, revision))

    def start(
        self,
        repo: str,
        revision: str | None = None,
        reading: JsonObject | None = None,
        adapter: str | None = None,
    ) -> Download:
        """Request the download of a model, a part of a dataset, or an adapter, and return its entry in the list. It
        begins at once or waits for its turn; one that is running or waiting is returned unchanged, and a paused or
        failed one resumes where it was.

        reading: options for reading the dataset. adapter: for an adapter that becomes a run its base, "" for the one
        that the adapter names. None keeps the value of a paused or failed download. Raises ModelError for an invalid
        name, and RunError if the list cannot be saved.
        """
        key, part = _key(repo, revision), PartName.parse(repo)
        with self._lock:
            row = self._rows.get(key)
            if row is not None and row.state in ACTIVE:
                return row
            if row is None or row.state == "done":
                is_first = not part and not _cached(repo).folder.exists()
                new = Download(
                    repo=repo, revision=revision or constants.DEFAULT_REVISION, requested=0, is_first=is_first
                )
            else:
                new = row
            now = {"requested": time.time(), "state": "waiting", "message": None}
            given = {"reading": reading, "adapter": adapter}
            new = new.model_copy(update=now | {key: value for key, value in given.items() if value is not None})
            self._save(self._rows | {key: new})
            self._rows[key] = new
            self._start_waiting()
            return self._rows[key]

    def pause(self, repo: str, revision: str | None = None) -> None:
        """Pause a download that waits or runs, without waiting for its thread, which ends soon after.

        What was downloaded stays; a paused one stays paused. revision: None for the default one. Raises ModelError if
        the download is not in the list or has ended.
        """
        with self._lock:
            key, row = self._row_of(repo, revision)
            if row.state in ENDED:
                raise ModelError("downloads.ended", repo=repo)
            self._set_stop(key)
            self._set(key, row, state="paused", message=None)

    def resume(self, repo: str, revision: str | None = None) -> Download:
        """Resume a download. Raises ModelError if it is not in the list."""
        self._row_of(repo, revision)
        return self.start(repo, revision)

    def cancel(self, repo: str, revision: str | None = None) -> None:
        """Stop a download, delete its incomplete files (a running one's once its thread has ended) and remove it from
        the list; a finished one is only removed. Raises ModelError if it is not in the list."""
        with self._lock:
            key, row = self._row_of(repo, revision)
            self._set_stop(key)
            del self._rows[key]
            with suppress(RunError):  # of a full disk: cancelling frees it
                self._save(self._rows)
            if key not in self._work and row.state != "done":
                self._delete_files(row)

    def begin(self) -> None:
        """Work on waiting downloads until `close`; for the app that owns the workspace."""
        with self._lock:
            self._open = True
            self._start_waiting()

    def close(self) -> None:
        """Stop the downloads of this process and wait for their threads; they resume at the next start."""
        with self._lock:
            self._open = False
            threads = [thread for thread, _ in self._work.values()]
            for key in self._work:
                self._set_stop(key)
        for thread in threads:
            thread.join()

    # --- the work
    def _start_waiting(self) -> None:
        """Start the first waiting downloads, up to AT_ONCE at a time, between `begin` and `close`. The caller holds the
        lock."""
        for key, row in self._rows.items():
            if self._open and row.state == "waiting" and key not in self._work and len(self._work) < AT_ONCE:
                stop = threading.Event()
                thread = threading.Thread(target=self._download, args=(key, row, stop), name="download", daemon=True)
                self._work[key] = thread, stop
                self._rows[key] = row.model_copy(update={"state": "running"})
                thread.start()

    def _download(self, key: str, row: Download, stop: threading.Event) -> None:
        """Carry out a download in its thread: keep its row up to date, retry after a broken connection, and start what
        waits behind it. Deletes the files of one that was cancelled meanwhile."""
        change, speed = partial(self._change, key, stop), Speed()

        def check_and_note_speed() -> None:
            """Raise NotWanted once the download is to stop; until then write its present speed into its row."""
            if stop.is_set():
                raise NotWanted
            change(bytes_per_s=speed.add(self._rows.get(key, row).done))

        def note_progress(progress: Progress) -> None:
            """Write the bytes or rows done and their total into the download's row."""
            change(done=int(progress.done), total=int(progress.total), unit=progress.unit)

        def note_retry(message: Message | None) -> None:
            """Set the row's state and message: "again" with the error before the pause of a retry, "running" without
            one (None) after it."""
            change(state="again" if message else "running", message=message)

        fetch = partial(
            self._fetch, row, check=check_and_note_speed, check_disk=partial(self._check_disk, key, row, change)
        )
        try:
            result = download.patiently(fetch, note_progress, check_and_note_speed, note_retry, row.done)
            change(state="done", done=self._rows.get(key, row).total, message=None, result=result)
        except NotWanted:
            pass
        except GarageError as error:
            change(state="failed", message=with_nearest(row.repo, error.message, self._known))
        except Exception as error:  # a bug: the row must not seem to run, and the log gets the traceback
            change(state="failed", message=msg("downloads.mistake", repo=row.repo, kind=type(error).__name__))
            raise
        finally:
            with self._lock:
                del self._work[key]
                if key not in self._rows:
                    self._delete_files(row)  # cancelled
                self._start_waiting()

    def _change(self, key: str, stop: threading.Event, **values: object) -> None:
        """Change these values of the row of a download that works; nothing once it was stopped."""
        with self._lock:
            if not stop.is_set():
                self._set(key, self._rows[key], **values)

    def _set(self, key: str, row: Download, **values: object) -> None:
        """Change values of a row. If `state` is among them, the row's speed is cleared and the list is saved; a full
        disk is ignored."""
        if "state" not in values:
            self._rows[key] = row.model_copy(update=values)
            return
        self._rows[key] = row.model_copy(update={"bytes_per_s": None} | values)
        with suppress(RunError):  # of a full disk: the page shows the state, the next start retries
            self._save(self._rows)

    def _fetch(self, row: Download, report: Report, check: Check, check_disk: CheckDisk) -> str:
        """Download a model, a part of a dataset or an adapter, as the row has it; return the dataset's id, the name of
        the adapter's run, or "" for a model. Raises GarageError, and what check raises."""
        if row.adapter is not None:
            return self._bring_adapter(row, report, check)
        if row.part:
            return fetch_part(self.workspace, row.part, row.reading, self._bring, report, check, check_disk)
        accept = partial(self._accept, row.repo)
        download.fetch(row.repo, row.revision, report, check, accept=accept, check_disk=check_disk)
        return ""

    def _check_disk(self, key: str, row: Download, change: Callable[..., None], missing: int, total: int) -> None:
        """Raise ModelError if the disk has no room for the missing bytes of this download beside those that the other
        running downloads to the same drive still need; else set done and total of its row, in bytes. change: the
        function that changes the row."""
        with self._lock:
            others = [each for other, each in self._rows.items() if other in self._work and other != key]
            needed = sum(
                each.total - each.done
                for each in others
                if each.state in ACTIVE
                and each.total
                and each.unit == "bytes"
                and self._drive(each) == self._drive(row)
            )
            if row.part:
                refuse_full_disk_of_set(self.workspace, row.part, missing, needed)
            else:
                refuse_full_disk(_cached(row.repo), missing, needed, DISK_MARGIN)
            change(done=total - missing, total=total)

    def _drive(self, row: Download) -> int:
        """Return the number of the drive that a download is written to. Raises OSError while its folder is missing."""
        is_model = not row.part and row.adapter is None
        return (cache_folder(None) if is_model else self.workspace.root).stat().st_dev

    def _set_stop(self, key: str) -> None:
        """Signal the thread of a download to stop, without waiting for it. Nothing happens if none works on it. The
        caller holds the lock."""
        if key in self._work:
            self._work[key][1].set()

    def _save(self, rows: dict[str, Download]) -> None:
        """Write the list of downloads, complete or not at all. Raises RunError."""
        with files.writing(self.workspace.root):
            dumped = [row.model_dump(mode="json") for row in rows.values()]
            files.replace_json(self._file, {"v": 1, "downloads": dumped})

    def _delete_files(self, row: Download) -> None:
        """Delete a cancelled download's incomplete files, and all of a model if this was its first download and it is
        incomplete. Nothing is deleted while the list has another revision of the model, or another process downloads
        it. Other tools' files stay, and what Windows refuses to delete stays for the next download."""
        if row.part:
            files.remove_tree(part_folder(self.workspace, row.part), files.MOMENT_S)
            return
        cached = _cached(row.repo)
        if any(each.repo == row.repo and each.state != "done" for each in self._rows.values()):
            return
        cached.lock.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), WeakFileLock(cached.lock, timeout=files.LOOK_S):
            if row.is_first and cached.snapshot(row.revision) is None:
                files.remove_tree(cached.folder, files.MOMENT_S)
            for path in (cached.folder / "blobs").glob("*.incomplete"):
                with suppress(PermissionError):
                    files.retry_if_busy(partial(path.unlink, missing_ok=True), files.MOMENT_S)

    def _row_of(self, repo: str, revision: str | None) -> tuple[str, Download]:
        """Return (key, row) of a download. Raises ModelError if it is not in the list."""
        key = _key(repo, revision)
        if key not in self._rows:
            raise ModelError("downloads.not_there", repo=repo, there=[row.repo for row in self.rows()][:10] or ["-"])
        return key, self._rows[key]


def _key(repo: str, revision: str | None) -> str:
    """Return the key of a download in the list, "repo@revision". Raises ModelError for an invalid name or revision."""
    revision = revision or constants.DEFAULT_REVISION
    if not REPO_ID.fullmatch(repo) and not PartName.parse(repo):
        raise ModelError("hub.bad_id", found=repo[:100])
    if not REVISION.fullmatch(revision):
        raise ModelError("hub.bad_revision", repo=repo, revision=revision[:100])
    return f"{repo}@{revision}"


def _cached(repo: str) -> CachedRepo:
    """Return the model's place in this PC's default cache, whether it exists or not."""
    return CachedRepo(repo, cache_folder(None))


# --- parts of datasets
def part_folder(workspace: Workspace, part: PartName) -> Path:
    """Return the folder for the files of a part until they are a dataset of the library."""
    mark = hashlib.sha256(str(part).encode()).hexdigest()[:10]
    return workspace.root / "downloads" / f"set-{slug(part.repo.partition('/')[2], 'data')[:30]}-{mark}"


def fetch_part(
    workspace: Workspace,
    part: PartName,
    reading: JsonObject,
    bring: Bring,
    report: Report,
    check: Check,
    check_disk: CheckDisk | None = None,
) -> str:
    """Download a part of a dataset, make it a dataset of the library with bring, remove the downloaded files and return
    its id. Raises DataError, RunError, and what check raises."""
    folder = part_folder(workspace, part)
    with files.writing(workspace.root):
        folder.mkdir(parents=True, exist_ok=True)
    check_disk = check_disk or (lambda missing, total: refuse_full_disk_of_set(workspace, part, missing, 0))
    result = bring(part, fetching.fetch(part, folder, report, check, check_disk), reading, check)
    files.remove_tree(folder, files.MOMENT_S)
    return result


def refuse_full_disk_of_set(workspace: Workspace, part: PartName, missing: int, reserved: int) -> None:
    """Raise ModelError as refuse_full_disk, for a part of a dataset."""
    cached = CachedRepo(part.repo, part_folder(workspace, part), "dataset")
    refuse_full_disk(cached, missing, reserved, SET_MARGIN)


# --- mistyped names
def with_nearest(repo: str, message: Message, known: Sequence[str]) -> Message:
    """Return message, the error of a download; with known ids that resemble repo, if it says that the hub has none of
    that name."""
    near = nearest(repo, known) if message.key == "hub.missing" else []
    return msg("downloads.missing_near", missing=message, near=near) if near else message


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Return at most NEAR known ids that resemble name, as a whole or in the part after the owner, in any case."""
    by_id = {each.lower(): each for each in known}
    by_short_name = {each.rpartition("/")[2].lower(): each for each in reversed(known)}
    lowered = name.lower()
    close = [by_id[each] for each in get_close_matches(lowered, by_id, NEAR, 0.75)]
    close += [by_short_name[each] for each in get_close_matches(lowered.rpartition("/")[2], by_short_name, NEAR, 0.75)]
    return list(dict.fromkeys(close))[:NEAR]
