"""Runs one download for the holder of its lock: reports once a second, and retries after a broken connection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from core.errors import GarageError
from core.hub.cached import CachedRepo
from core.hub.download import DISK_MARGIN, Check, Report, Room, refuse_full_disk
from core.hub.entry import CAME, ENDED, Download, Entry, Phase
from core.messages import Message
from core.progress import Progress

Others = Callable[[], AbstractContextManager[int]]
Fetch = Callable[[Download, Report, Check, Room], str]
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
        found = entry.read()
        if found is None or found.wanted != "run":
            raise NotNow
        self._entry, self._fetch, self._report_to, self._check, self._others = entry, fetch, report, check, others
        self._now = found.model_copy(update={"has_room": False})
        self._samples: deque[tuple[float, float]] = deque()  # when, bytes
        self._told_at = 0.0

    def to_its_end(self, better: Callable[[Message], Message]) -> None:
        """Done or failed, and told so. better: what a failure says at last. Raises NotNow, what check raises, and
        OSError for a workspace that cannot be told."""
        tries, longest = 0, self._now.done
        self._tell("running")
        while True:
            try:
                result = self._fetch(self._now, self._report, self._go_on, self._room)
            except GarageError as error:
                tries = 0 if self._now.done > longest else tries
                longest = max(longest, self._now.done)
                # What never brought a byte is no broken line: a person waits for the sentence.
                if error.message.key not in BROKEN or not self._now.total or tries >= len(WAITS_S):
                    return self._tell("failed", better(error.message))
                self._wait(error.message, WAITS_S[tries])
                tries += 1
            else:
                return self._tell("done", done=self._now.total, result=result)

    def _room(self, missing: int, total: int) -> None:
        """Of two that begin in the same second, the second counts what the first still needs. Raises ModelError."""
        with self._others() as spoken_for:
            part, margin = self._now.part, SET_MARGIN if self._now.part else DISK_MARGIN
            cached = CachedRepo(part.repo, self._entry.folder / CAME, "dataset") if part else self._now.cached
            refuse_full_disk(cached, missing, spoken_for, margin)
            self._tell("running", done=total - missing, total=total, has_room=True)

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
        wish = self._entry.read()
        is_wanted = wish is not None and wish.wanted == "run"
        if not is_wanted or time.monotonic() - self._told_at >= TELL_S:
            self._tell(self._now.phase, self._now.message)
        if not is_wanted:
            raise NotNow

    def _report(self, progress: Progress) -> None:
        self._report_to(progress)
        self._samples.append((time.monotonic(), progress.done))
        is_first = not self._now.total
        numbers = {"done": int(progress.done), "total": int(progress.total), "unit": progress.unit}
        self._now = self._now.model_copy(update=numbers)
        if is_first:
            self._tell("running")

    def _tell(self, phase: Phase, message: Message | None = None, **more: Any) -> None:
        """Write the progress with the speed of the last seconds; None where nothing came in them."""
        self._told_at = time.monotonic()
        while self._samples and self._told_at - self._samples[0][0] > SPEED_S:
            self._samples.popleft()
        span = self._told_at - self._samples[0][0] if self._samples else 0.0
        speed = max(0.0, self._samples[-1][1] - self._samples[0][1]) / span if span >= TELL_S else None
        self._now = self._now.model_copy(update={"phase": phase, "message": message, "bytes_per_s": speed, **more})
        with suppress(OSError) if phase not in ENDED else nullcontext():
            # the next second tells it again, an end is told once
            self._entry.tell(self._now)
