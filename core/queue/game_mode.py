"""Game mode: whether training should make room now, and when it may resume. Off by default
(core/workspace/preferences).

Two things are decided here, both without a thread or a clock of their own: `wish_of_card` says who wants the card, out
of what NVML tells, or why that cannot be known; `decide` makes a verdict out of it that neither a picture viewer nor a
loading screen turns over. Chosen hours hold at once and end at once; they and named programs work without a card too.

What NVML tells differs. Linux gives bytes for each process. Windows' display driver model gives the processes without
bytes; then the whole card's memory counts, less what training has. In a container the numbers are another namespace's,
so ours are not among them while we train; then, too, only the whole card's memory says anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import psutil

from core.messages import Message, msg
from core.system.gpu import Card, Holder
from core.values import GIB
from core.workspace.preferences import Automation, clock_of

# What a desktop keeps of a card for itself (Windows more than Linux), and CUDA's own context beside torch's allocator.
DESKTOP_GIB, CONTEXT_GIB = 1.3, 0.6
BUSY_PERCENT = 50  # of a card that nothing of ours uses: a game that is small in memory


@dataclass(frozen=True)
class Sight:
    """minute: since midnight, local. wish: which program wants the device. unknown: why the card cannot be asked."""

    minute: int
    wish: Message | None = None
    unknown: Message | None = None


@dataclass(frozen=True)
class Standing:
    """What a verdict depends on besides the moment; clock is any that never jumps. ignored: let go on all the same."""

    held: bool = False
    wanted_since: float | None = None
    free_since: float | None = None
    why: Message | None = None  # the program that it was held for; None where it was only the hours
    ignored: bool = False


@dataclass(frozen=True)
class Verdict:
    """seconds_left: until training may go on, where that is known."""

    standing: Standing
    why: Message | None = None
    seconds_left: float | None = None

    @property
    def hold(self) -> bool:
        return self.standing.held


def decide(wanted: Automation, sight: Sight, before: Standing, clock: float) -> Verdict:
    hours = next((hours for hours in wanted.hours if hours.covers(sight.minute)), None)
    wish = sight.wish
    since = None if wish is None else clock if before.wanted_since is None else before.wanted_since
    free = None if wish else clock if before.free_since is None else before.free_since
    now = replace(before, wanted_since=since, free_since=free)
    is_free_long = free is not None and clock - free >= wanted.free_s
    if before.ignored:
        return Verdict(replace(now, held=False, why=None, ignored=bool(hours) or not is_free_long))
    # A program holds once it wants the device for a while, or at once where training stands still already.
    by_program = since is not None and (before.held or clock - since >= wanted.wanted_s)
    if by_program:
        now = replace(now, held=True, why=wish)
    elif before.why is not None and is_free_long:
        now = replace(now, why=None)
    if hours:
        said = msg("game.hours", hours=str(hours), until=clock_of(hours.end))
        return Verdict(replace(now, held=True), said, hours.minutes_left(sight.minute) * 60.0)
    if by_program:
        return Verdict(now, wish)
    if before.held and now.why is not None:
        left = None if free is None else max(0.0, wanted.free_s - (clock - free))
        return Verdict(now, msg("game.soon") if left is not None else now.why, left)
    return Verdict(replace(now, held=False, why=None))


def wish_of_card(
    card: Card | None, ours: Collection[int], at_work: bool, our_bytes: int | None, min_gib: float
) -> tuple[Message | None, Message | None]:
    """(who wants the card, why that is not known); both None: nobody.

    ours: process numbers of the app and its workers; at_work: one of them computes on this card; our_bytes: what
    training has on it.
    """
    if card is None or card.lost:
        return None, msg("game.no_card")
    if card.holders is not None:
        others = [holder for holder in card.holders if holder.pid not in ours]
        numbers_are_ours = not at_work or len(others) < len(card.holders)
        told = [holder for holder in others if holder.used_bytes is not None]
        if numbers_are_ours and (told or not others):
            return _most_wanting(card, told, at_work, min_gib), None
    if card.used_bytes is None or (at_work and our_bytes is None):
        return None, msg("game.cannot_tell")
    ours_gib = (our_bytes or 0) / GIB + CONTEXT_GIB if at_work else 0.0
    others_gib = card.used_bytes / GIB - ours_gib - DESKTOP_GIB
    return (msg("game.somebody", gib=others_gib + DESKTOP_GIB) if others_gib >= min_gib else None), None


def _most_wanting(card: Card, others: list[Holder], at_work: bool, min_gib: float) -> Message | None:
    most = max(others, key=lambda holder: holder.used_bytes or 0, default=None)
    if most is not None and most.used_bytes is not None and most.used_bytes >= min_gib * GIB:
        return msg("game.program", program=most.name or msg("game.process", pid=most.pid), gib=most.used_bytes / GIB)
    if not at_work and (card.utilization_percent or 0) >= BUSY_PERCENT:
        return msg("game.computing", percent=card.utilization_percent)
    return None


def wish_of_programs(named: Iterable[str], running: Iterable[str]) -> Message | None:
    """The first of the named programs that runs, whether or not it was written with .exe."""
    there = {_plain(name): name for name in running}
    found = next((there[_plain(name)] for name in named if _plain(name) in there), None)
    return msg("game.named", program=found) if found else None


def _plain(name: str) -> str:
    return name.casefold().removesuffix(".exe")


def running_programs() -> set[str]:
    names = set()
    for process in psutil.process_iter():
        try:
            names.add(process.name())
        except psutil.Error:
            continue
    return names


def our_processes() -> set[int]:
    """This process and all it started, its workers among them."""
    here = psutil.Process()
    try:
        return {here.pid, *(child.pid for child in here.children(recursive=True))}
    except psutil.Error:
        return {here.pid}
