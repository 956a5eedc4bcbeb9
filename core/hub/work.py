"""Runs one download for the holder of its lock: saves its progress once a second, and retries after a broken
connection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress

from core.errors import GarageError
from core.hub.cached import CachedRepo
from core.hub.download import DISK_MARGIN, Check, CheckDisk, Report, refuse_full_disk
from core.hub.entry import CAME, ENDED, Download, Entry, Phase
from core.messages import Message
from core.progress import Progress

ReserveDisk = Callable[[], AbstractContextManager[int]]
Fetch = Callable[[Download, Report, Check, CheckDisk], str]
# a dataset needs the downloaded files, the file made of them, and the copy with its rows (core/data/store.py)
SET_MARGIN = 3.0
POLL_S = 0.3
SAVE_S = 1.0
SPEED_S = 10.0  # over which the speed is averaged
BROKEN = {
    "hub.interrupted",
    "hub.no_network",
    "hub.server_trouble",
    "hub.rate_limit",
    "hub.rate_limit_until",
    "hub.not_a_hub",
}
BROKEN |= {"hub_set.no_network", "hub_set.not_a_hub"}
# Seconds before each retry: a router takes two minutes to restart, a provider's maintenance an hour.
WAITS_S = (5, 15, 60, 120, 300, 600, 600, 600, 600)
LONGEST_WAIT_S = 3600


class NotWanted(Exception):
    """The download is to be paused, cancelled, or left for the next start."""


class DownloadWork:
    """The work on one download.

    fetch: downloads what is missing and returns the result to save. check: as in download.fetch. reserve_disk: locks
    the workspace's disk check and yields the bytes that other downloads need. Raises NotWanted if the download is not
    to run.
    """

    def __init__(self, entry: Entry, report: Report, check: Check, fetch: Fetch, reserve_disk: ReserveDisk):
        download = entry.read()
        if download is None or download.wanted != "run":
            raise NotWanted
        self._entry, self._fetch, self._report_to, self._check = entry, fetch, report, check
        self._reserve_disk, self._download = reserve_disk, download.model_copy(update={"has_room": False})
        self._samples: deque[tuple[float, float]] = deque()  # when, bytes
        self._saved_at = 0.0

    def run(self, explain: Callable[[Message], Message]) -> None:
        """Download until it is done or has failed, and save that. explain: completes the message of a failure.

        Raises NotWanted, what check raises, and OSError if the status cannot be saved.
        """
        tries, most_done = 0, self._download.done
        self._save("running")
        while True:
            try:
                result = self._fetch(self._download, self._report, self._check_wanted, self._check_disk)
            except GarageError as error:
                tries = 0 if self._download.done > most_done else tries
                most_done = max(most_done, self._download.done)
                # A download without a first byte is no broken connection: the user waits for the message.
                if error.message.key not in BROKEN or not self._download.total or tries >= len(WAITS_S):
                    return self._save("failed", explain(error.message))
                self._wait(error.message, WAITS_S[tries])
                tries += 1
            else:
                return self._save("done", done=self._download.total, result=result)

    def _check_disk(self, missing: int, total: int) -> None:
        """Check the disk; of two that begin together the second counts what the first still needs. Raises
        ModelError."""
        with self._reserve_disk() as reserved:
            part, margin = self._download.part, SET_MARGIN if self._download.part else DISK_MARGIN
            cached = CachedRepo(part.repo, self._entry.folder / CAME, "dataset") if part else self._download.cached
            refuse_full_disk(cached, missing, reserved, margin)
            self._save("running", done=total - missing, total=total, has_room=True)

    def _wait(self, message: Message, seconds: float) -> None:
        """Wait before another attempt: seconds, or as long as the hub requests, at most LONGEST_WAIT_S. Raises once the
        download is no longer wanted."""
        self._save("again", message)
        requested_s = message.params.get("seconds")  # by the hub, if it says so
        end = time.monotonic() + min(LONGEST_WAIT_S, max(seconds, requested_s if isinstance(requested_s, int) else 0))
        while time.monotonic() < end:
            self._check_wanted()
            time.sleep(min(POLL_S, seconds))
        self._samples.clear()
        self._save("running")

    def _check_wanted(self) -> None:
        """Save the progress every SAVE_S; raise NotWanted after a pause or cancel."""
        self._check()
        record = self._entry.read()
        is_wanted = record is not None and record.wanted == "run"
        if not is_wanted or time.monotonic() - self._saved_at >= SAVE_S:
            self._save(self._download.phase, self._download.message)
        if not is_wanted:
            raise NotWanted

    def _report(self, progress: Progress) -> None:
        """Note the progress, from which the speed is computed. Only the first one is saved here."""
        self._report_to(progress)
        self._samples.append((time.monotonic(), progress.done))
        is_first = not self._download.total
        numbers = {"done": int(progress.done), "total": int(progress.total), "unit": progress.unit}
        self._download = self._download.model_copy(update=numbers)
        if is_first:
            self._save("running")

    def _save(self, phase: Phase, message: Message | None = None, **more: object) -> None:
        """Save the progress with the speed of the last seconds, None without data in them."""
        self._saved_at = time.monotonic()
        while self._samples and self._saved_at - self._samples[0][0] > SPEED_S:
            self._samples.popleft()
        span = self._saved_at - self._samples[0][0] if self._samples else 0.0
        speed = max(0.0, self._samples[-1][1] - self._samples[0][1]) / span if span >= SAVE_S else None
        self._download = self._download.model_copy(
            update={"phase": phase, "message": message, "bytes_per_s": speed, **more}
        )
        with suppress(OSError) if phase not in ENDED else nullcontext():
            # the next second saves it again, but an end is saved once
            self._entry.save_progress(self._download)
