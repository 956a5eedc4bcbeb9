"""Game mode: whether training should release the device now, and when it may resume. Off by default
(core/workspace/preferences).

Two functions decide, without a thread or a clock of their own: `demand_of_card` finds which program needs the GPU, from
NVML's numbers, or why that is unknown; `decide` ignores a short use (a picture viewer) and a short pause (a loading
screen). Chosen hours take effect and end at once; they and named programs work without a GPU too.

Linux's NVML reports bytes for each process. Windows' display driver model lists the processes without bytes; then the
GPU's total counts, minus what training uses. In a container the process ids are of another namespace, so that our own
are not among them while we train; then, too, only the total is usable.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import psutil

from core.messages import Message, msg
from core.system.gpu import Card, Holder
from core.values import GIB
from core.workspace.preferences import Automation, clock_of

# Memory of a desktop on a GPU (Windows more than Linux), and of CUDA's context beside torch's allocator.
DESKTOP_GIB, CONTEXT_GIB = 1.3, 0.6
BUSY_PERCENT = 50  # utilization of a GPU that this app does not use: a game with little memory


@dataclass(frozen=True)
class Observation:
    """An observation of the PC. minute: since midnight, local. demand: the program that needs the device. unknown: why
    the GPU's use is unknown."""

    minute: int
    demand: Message | None = None
    unknown: Message | None = None


@dataclass(frozen=True)
class HoldState:
    """State between verdicts; times are of a monotonic clock. ignored: the user lets training run all the same."""

    held: bool = False
    demand_since: float | None = None
    free_since: float | None = None
    why: Message | None = None  # the program that it is held for; None if only for the hours
    ignored: bool = False


@dataclass(frozen=True)
class HoldDecision:
    """The decision and the new state. seconds_left: until training may resume, if known."""

    state: HoldState
    why: Message | None = None
    seconds_left: float | None = None

    @property
    def hold(self) -> bool:
        """Return whether training must be on hold now, so that other programs get the device."""
        return self.state.held


def decide(automation: Automation, observation: Observation, before: HoldState, clock: float) -> HoldDecision:
    """Return whether training is on hold (in set hours, or while a program needs the GPU for long enough, until it is
    free for long enough), with the reason, the seconds left and the new state; a person's "ignore" lasts until the
    reason is gone. automation: the preferences; before: the state after the last verdict; clock: now, monotonic."""
    hours = next((hours for hours in automation.hours if hours.covers(observation.minute)), None)
    demand = observation.demand
    demand_since = None if demand is None else clock if before.demand_since is None else before.demand_since
    free_since = None if demand else clock if before.free_since is None else before.free_since
    now = replace(before, demand_since=demand_since, free_since=free_since)
    is_free_long = free_since is not None and clock - free_since >= automation.free_s
    if before.ignored:
        return HoldDecision(replace(now, held=False, why=None, ignored=bool(hours) or not is_free_long))
    # A program counts once it has needed the device for wanted_s, or at once if training is on hold already.
    by_program = demand_since is not None and (before.held or clock - demand_since >= automation.wanted_s)
    if by_program:
        now = replace(now, held=True, why=demand)
    elif before.why is not None and is_free_long:
        now = replace(now, why=None)
    if hours:
        message = msg("game.hours", hours=str(hours), until=clock_of(hours.end))
        return HoldDecision(replace(now, held=True), message, hours.minutes_left(observation.minute) * 60.0)
    if by_program:
        return HoldDecision(now, demand)
    if before.held and now.why is not None:
        seconds_left = None if free_since is None else max(0.0, automation.free_s - (clock - free_since))
        return HoldDecision(now, msg("game.soon") if seconds_left is not None else now.why, seconds_left)
    return HoldDecision(replace(now, held=False, why=None))


def demand_of_card(
    card: Card | None, ours: Collection[int], at_work: bool, our_bytes: int | None, min_gib: float
) -> tuple[Message | None, Message | None]:
    """Return two messages, of which one at most is set: which other program needs the GPU (it uses at least min_gib, or
    the GPU computes while no run of ours does), and why that cannot be determined. Both are None if no program needs
    it.

    The bytes of each program count where the driver tells them, else the GPU's used bytes less ours. ours: process ids
    of the app and its workers; at_work: one of them computes on this GPU; our_bytes: what training uses on it. card
    None: there is no GPU.
    """
    if card is None or card.lost:
        return None, msg("game.no_card")
    if card.holders is not None:
        others = [holder for holder in card.holders if holder.pid not in ours]
        numbers_are_ours = not at_work or len(others) < len(card.holders)
        with_bytes = [holder for holder in others if holder.used_bytes is not None]
        if numbers_are_ours and (with_bytes or not others):
            return _largest_demand(card, with_bytes, at_work, min_gib), None
    if card.used_bytes is None or (at_work and our_bytes is None):
        return None, msg("game.cannot_tell")
    ours_gib = (our_bytes or 0) / GIB + CONTEXT_GIB if at_work else 0.0
    others_gib = card.used_bytes / GIB - ours_gib - DESKTOP_GIB
    return (msg("game.somebody", gib=others_gib + DESKTOP_GIB) if others_gib >= min_gib else None), None


def _largest_demand(card: Card, others: list[Holder], at_work: bool, min_gib: float) -> Message | None:
    """Return a message on the program that uses the GPU most, if at least min_gib, or that the GPU computes while no
    run of ours does; else None."""
    most = max(others, key=lambda holder: holder.used_bytes or 0, default=None)
    if most is not None and most.used_bytes is not None and most.used_bytes >= min_gib * GIB:
        return msg("game.program", program=most.name or msg("game.process", pid=most.pid), gib=most.used_bytes / GIB)
    if not at_work and (card.utilization_percent or 0) >= BUSY_PERCENT:
        return msg("game.computing", percent=card.utilization_percent)
    return None


def demand_of_programs(named: Iterable[str], running: Iterable[str]) -> Message | None:
    """Return the message that one of the named programs runs, the first, with or without .exe in its name; None if none
    does."""
    by_plain_name = {_program_key(name): name for name in running}
    match = next((by_plain_name[_program_key(name)] for name in named if _program_key(name) in by_plain_name), None)
    return msg("game.named", program=match) if match else None


def _program_key(name: str) -> str:
    """Return a program's name in the form in which two are compared: lower case, without .exe."""
    return name.casefold().removesuffix(".exe")


def running_programs() -> set[str]:
    """Return the names of all processes that can be read."""
    names = set()
    for process in psutil.process_iter():
        try:
            names.add(process.name())
        except psutil.Error:
            continue
    return names


def our_processes() -> set[int]:
    """Return the ids of this process and its descendants, among them its workers; its own alone if they cannot be
    read."""
    process = psutil.Process()
    try:
        return {process.pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.Error:
        return {process.pid}
