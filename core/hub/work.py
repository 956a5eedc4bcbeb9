"""Runs one download for the holder of its lock: reports once a second, and retries after a broken connection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Literal

from core.errors import GarageError
from core.hub.download import DISK_MARGIN, Check, Report, Room, refuse_full_disk
from core.hub.entry import ENDED, Entry, ToldProgress, WantedDownload
from core.hub.sets.name import PartName
from core.messages import Message
from core.progress import Progress

Others = Callable[[], AbstractContextManager[int]]
Fetch = Callable[[WantedDownload, Report, Check, Room], str]
# of a data set: what comes, what is made of it, and the copy with its rows in the workspace (core/data/store.py)
SET_MARGIN = 3.0
POLL_S = 0.3
TELL_S = 1.0
SPEED_S = 10.0  # of which the speed is the mean
BROKEN = {
    "hub.interrupted",
    "hub.no_network",
    "hub.server_trouble",
    "hub.rate_limit",
    "hub.rate_limit_until",
    "hub.not_a_hub",
}
BROKEN |= {"hub_set.no_network", "hub_set.not_a_hub"}
# After so many seconds a broken line is tried again: a router that starts anew takes two minutes, a provider's night
# work an hour.
WAITS_S = (5, 15, 60, 120, 300, 600, 600, 600, 600)
LONGEST_WAIT_S = 3600


class NotNow(Exception):
    """It is to be paused, cancelled, or left for the next start."""


class DownloadWork:
    """fetch: does it, as far as it is not done yet, and gives the result that is told. check: as of download.fetch,
    besides the wish. others: while it lasts no other download looks for room; gives the bytes of the disk that are
    spoken for. Raises NotNow where nobody wants it to run."""

    def __init__(self, entry: Entry, report: Report, check: Check, fetch: Fetch, others: Others):
        wish = entry.wish()
        if wish is None or wish.wanted != "run":
            raise NotNow
        self._entry, self._wish, self._fetch = entry, wish, fetch
        self._report_to, self._check, self._others = report, check, others
        self._now = entry.told() or ToldProgress(asked=wish.asked, state="running")
        self._now = self._now.model_copy(update={"bytes_per_s": None, "has_room": False})
        self._samples: deque[tuple[float, float]] = deque()  # when, bytes
        self._told_at, self._is_told = 0.0, True

    def to_its_end(self, better: Callable[[Message], Message]) -> None:
        """Done or failed, and told so. better: what a failure says at last. Raises NotNow, what check raises, and
        OSError for a workspace that cannot be told."""
        tries, longest = 0, self._now.done
        self._tell("running")
        while True:
            try:
                result = self._fetch(self._wish, self._report, self._go_on, self._room)
            except GarageError as error:
                tries = 0 if self._now.done > longest else tries
                longest = max(longest, self._now.done)
                # What never brought a byte is no broken line: a person waits for the sentence.
                if error.message.key not in BROKEN or not self._now.total or tries >= len(WAITS_S):
                    return self._tell("failed", better(error.message))
                self._wait(error.message, WAITS_S[tries])
                tries += 1
            else:
                self._now = self._now.model_copy(update={"done": self._now.total, "result": result})
                return self._tell("done")

    def _room(self, missing: int, total: int) -> None:
        """Of two that begin in the same second, the second counts what the first still needs. Raises ModelError."""
        with self._others() as spoken_for:
            margin = SET_MARGIN if PartName.parse(self._wish.repo) else DISK_MARGIN
            refuse_full_disk(self._entry.cached(self._wish), missing, spoken_for, margin)
            self._now = self._now.model_copy(update={"done": total - missing, "total": total, "has_room": True})
            self._tell("running")

    def _wait(self, why: Message, seconds: float) -> None:
        self._tell("again", why)
        wanted = why.params.get("seconds")  # by the hub, where it says
        end = time.monotonic() + min(LONGEST_WAIT_S, max(seconds, wanted if isinstance(wanted, int) else 0))
        while time.monotonic() < end:
            self._go_on()
            time.sleep(min(POLL_S, seconds))
        self._samples.clear()
        self._tell("running")

    def _go_on(self) -> None:
        self._check()
        wish = self._entry.wish()
        if wish is None or wish.wanted != "run":
            self._tell(self._now.state, self._now.message)
            raise NotNow
        if wish != self._wish:
            self._wish = wish
            self._tell(self._now.state, self._now.message)
        if not self._is_told and time.monotonic() - self._told_at >= TELL_S:
            self._tell("running")
        if self._samples and time.monotonic() - self._samples[-1][0] > SPEED_S:  # nothing comes any more
            self._samples.clear()
            self._now = self._now.model_copy(update={"bytes_per_s": None})
            self._tell(self._now.state, self._now.message)

    def _report(self, progress: Progress) -> None:
        self._report_to(progress)
        now = time.monotonic()
        self._samples.append((now, progress.done))
        while now - self._samples[0][0] > SPEED_S:
            self._samples.popleft()
        span, came = now - self._samples[0][0], progress.done - self._samples[0][1]
        speed = max(0.0, came) / span if span >= TELL_S else None
        numbers = {
            "done": int(progress.done),
            "total": int(progress.total),
            "bytes_per_s": speed,
            "unit": progress.unit,
        }
        is_first = not self._now.total
        self._now, self._is_told = self._now.model_copy(update=numbers), False
        if is_first or now - self._told_at >= TELL_S:
            self._tell("running")

    def _tell(self, state: Literal["running", "again", "failed", "done"], message: Message | None = None) -> None:
        self._now = self._now.model_copy(update={"state": state, "message": message, "asked": self._wish.asked})
        with suppress(OSError) if state not in ENDED else nullcontext():
            # the next second tells it again, an end is told once
            self._entry.tell(self._now)
        self._told_at, self._is_told = time.monotonic(), True
