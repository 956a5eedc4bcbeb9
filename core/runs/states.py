"""The states of a run and the only table of legal transitions, for worker, supervisor and buttons."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


S = State
MOVES: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.PREPARING, S.PAUSED, S.STOPPED, S.FAILED}),  # paused: a later attempt that was cancelled
    S.PREPARING: frozenset({S.RUNNING, S.PAUSING, S.STOPPING, S.STOPPED, S.FAILED, S.INTERRUPTED}),
    S.RUNNING: frozenset({S.PAUSING, S.STOPPING, S.COMPLETED, S.FAILED, S.INTERRUPTED}),
    # completed: the request came while it ended
    S.PAUSING: frozenset({S.PAUSED, S.STOPPING, S.COMPLETED, S.FAILED, S.INTERRUPTED}),
    S.PAUSED: frozenset({S.QUEUED, S.STOPPED}),
    S.STOPPING: frozenset(
        {S.STOPPED, S.COMPLETED, S.FAILED, S.INTERRUPTED}
    ),  # completed: the request came while it ended
    S.INTERRUPTED: frozenset({S.QUEUED, S.STOPPED}),
    S.STOPPED: frozenset(),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),
}
ACTIVE = frozenset({S.PREPARING, S.RUNNING, S.PAUSING, S.STOPPING})  # a worker process should be alive
BUSY = ACTIVE | {S.QUEUED}
TERMINAL = frozenset({S.STOPPED, S.COMPLETED, S.FAILED})


def may_move(old: State, new: State) -> bool:
    """Return whether a run's state may change from old to new; it may always stay."""
    return new == old or new in MOVES[old]


def may_pause(state: State) -> bool:
    """Return whether there is a worker that can save its position and free the device."""
    return S.PAUSING in MOVES[state]


def may_resume(state: State) -> bool:
    """Return whether a run in this state can be queued again: paused, interrupted or failed."""
    return S.QUEUED in MOVES[state]


def may_stop(state: State) -> bool:
    """Return whether Stop applies: a queued run is removed, an active one saves and ends."""
    return S.STOPPING in MOVES[state] or state == S.QUEUED
