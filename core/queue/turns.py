"""The choice of the next run, and what happens between two runs: called by the supervisor.

All lasting state is in line.json (core/queue/queue); only what game mode must observe twice is kept in memory. One
thread calls this, the supervisor's; pages and commands change line.json at the same time.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import psutil

from core.errors import GarageError
from core.messages import Message, msg
from core.queue import game_mode
from core.queue.game_mode import HoldState, Observation
from core.queue.queue import App, Game, Hold, Order, Queue, first
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.process import recipe_of
from core.runs.run_json import RunFacts
from core.runs.states import ACTIVE, State, may_pause, may_resume
from core.system import devices
from core.system.gpu import Card
from core.system.machine import Machine, this_machine
from core.workspace import lease, preferences
from core.workspace.folder import Workspace
from core.workspace.preferences import Automation

LOOK_S = 2.0  # between two checks for game mode
OTHER = "other"  # in place of a run's id: it is the turn of OtherWork
WAITED_FOR = ("export.lease", "making.lease")  # holders of the device that runs wait for


class OtherWork:
    """Work besides runs that needs the device for itself and takes its turn in the queue. This one never wants it."""

    def waits_since(self) -> float | None:
        """Return when it asked for its turn, in seconds since 1970; None while it does not wait."""
        return None

    def is_at_work(self) -> bool:
        """Return whether it has the device, or has just been told to begin."""
        return False

    def begin(self) -> None:
        """Start the work, because its turn has come; nothing in this base class."""


class Turns:
    """The order of runs, and game mode. exporting: whether an export has begun. other: takes turns with the runs."""

    def __init__(
        self,
        workspace: Workspace,
        machine: Callable[[], Machine] = this_machine,
        programs: Callable[[], set[str]] = game_mode.running_programs,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        exporting: Callable[[], bool] = lambda: False,
        other: OtherWork | None = None,
    ):
        """Start nothing yet. machine, programs, clock, steady: the outside world, replaced in tests; steady is
        monotonic, clock the wall clock."""
        self.workspace, self.queue, self.runs = workspace, Queue(workspace), Runs(workspace)
        self._machine, self._programs, self._exporting = machine, programs, exporting
        self.other = other or OtherWork()
        self.clock, self._steady = clock, steady
        self._hold_state = HoldState()
        self._looked_at = float("-inf")

    def app_started(self, waiting: Sequence[str]) -> None:
        """Record this app, end game mode and hold waiting runs: opening an app starts no training without the user
        (core/queue/queue.first)."""
        if (game := self.queue.read().game) and game.run:
            with contextlib.suppress(GarageError):  # offered like any run paused at the end of an app
                self.runs.get(game.run).request("pause", by="close")
        app = App(pid=os.getpid(), started=psutil.Process().create_time())
        hold = Hold(why="restart", since=self.clock()) if waiting else None
        self.queue.put(app=app, hold=hold, game=None, ignore_game=False)

    def next(self, waiting: Callable[[], Sequence[str]]) -> str | None:
        """Return the id of the run to start now, while no other run uses the device, or OTHER for the other work; None
        while the queue, game mode, an export or the other work holds the device.

        With game mode on, it is checked again first, which may hold the queue. waiting: reads the ids, the longest
        waiting first.
        """
        if not waiting() and self.other.waits_since() is None:
            return None
        chosen = self._first(waiting)
        if chosen and (automation := preferences.read(self.workspace).automation).game_mode:
            # programs and settings since the last check count before the run starts
            self._watch_game(self.queue.read(), automation, None, True)
            chosen = self._first(waiting)
        holder = lease.owner(self.workspace) if chosen and lease.is_held(self.workspace) else None
        if chosen and (self._exporting() or self.other.is_at_work() or (holder and holder.key in WAITED_FOR)):
            return None  # the chat releases the device when a run starts
        return chosen

    def _first(self, waiting: Callable[[], Sequence[str]]) -> str | None:
        """Return the id of the run whose turn it is (`queue.first`), or OTHER for the other work if it has waited
        longer than this run, or if no run may start; None if nothing may start.

        A run that is to start at once goes before the other work. Game mode, and a hold that began after the other work
        requested its turn, keep it waiting.
        """
        with self.queue.locked():
            # Both are read inside the lock, so that a run which is just being added or resumed has its place.
            order = self.queue.read()
            run = first(order, waiting(), self.clock())
        since = self.other.waits_since()
        at_once = any(entry.run == run and entry.now for entry in order.runs)
        is_first = since is not None and (run is None or since < self.runs.get(run).status().since) and not at_once
        # A person who holds the queue holds what was asked for before.
        is_held = order.game or (order.hold and since is not None and since < order.hold.since)
        return OTHER if is_first and not is_held else run

    def ended(self, run: RunFolder, status: Status, waiting: Sequence[str]) -> None:
        """Remove a run of this app that ended or paused from the queue. If anything but game mode paused it and other
        runs or the other work wait, hold the queue for the user. One that game mode paused is noted, to be resumed
        later, or resumed at once if game mode is over.

        waiting: the ids of the runs behind it.
        """
        now = self.clock()

        def without_run(order: Order) -> Order:
            """Return the order without the run. If game mode paused the run, it is noted there, to be resumed; if it
            was paused otherwise and others wait, the order gets a hold."""
            order = order.with_changes(runs=tuple(entry for entry in order.runs if entry.run != run.id))
            if status.state == State.PAUSED and run.requested_by == "game":
                return order.with_changes(game=order.game.model_copy(update={"run": run.id})) if order.game else order
            if status.state == State.PAUSED:
                others = waiting or self.other.waits_since() is not None
                return order.with_changes(hold=Hold(why="paused", since=now, run=run.id)) if others else order
            return order

        self.queue.change(without_run)
        if status.state == State.PAUSED and self.queue.read().game is None:  # the user let it go on while it paused
            self._resume(run)

    # ---- between ---------------------------------------------------------------------------------
    def look(self, active: RunFolder | None, is_of_app: bool = True) -> None:
        """Check game mode at most every LOOK_S, if it is on or still has an effect, and apply it: hold or release the
        queue, request a pause of the running run, resume the run that it paused. active: the running run or None; one
        that a command started (is_of_app False) is never paused."""
        if self._steady() - self._looked_at < LOOK_S:
            return
        self._looked_at = self._steady()
        order, automation = self.queue.read(), preferences.read(self.workspace).automation
        if automation.game_mode or order.game or order.ignore_game:
            self._watch_game(order, automation, active, is_of_app)

    def _watch_game(self, order: Order, automation: Automation, active: RunFolder | None, is_of_app: bool) -> None:
        """Decide whether game mode holds the queue, and write that with the reason to the queue's file. On hold,
        request a pause of active if it is a run of this app; otherwise end a hold of game mode and resume the run that
        it paused."""
        state = replace(self._hold_state, held=order.game is not None, ignored=order.ignore_game)
        verdict = game_mode.decide(automation, self._observe(automation, active), state, self._steady())
        self._hold_state = verdict.state
        if order.ignore_game and not verdict.state.ignored:
            self.queue.put(ignore_game=False)
        if not verdict.hold:
            if order.game:
                if run := self._paused_by_game():
                    self._resume(run)
                self.queue.put(game=None)
            return
        until = None if verdict.seconds_left is None else self.clock() + verdict.seconds_left

        def held_by_game(order: Order) -> Order:  # unless the user let training go on between the two reads
            """Return the order with game mode's reason and end; unchanged if the user has let training go on
            meanwhile."""
            return (
                order
                if order.ignore_game
                else order.with_changes(game=_renewed(order.game, verdict.why, until, self.clock()))
            )

        order = self.queue.change(held_by_game)
        if active and is_of_app and order.game and not active.requested() and may_pause(active.status().state):
            active.request("pause", by="game")

    def _observe(self, automation: Automation, active: RunFolder | None) -> Observation:
        """Return the minute of the day, what else needs the device now (a listed program, or another's use of the GPU),
        and why that is unknown."""
        local = time.localtime(self.clock())
        minute = local.tm_hour * 60 + local.tm_min
        demand = game_mode.demand_of_programs(automation.programs, self._programs()) if automation.programs else None
        if demand is not None or not automation.watch_card:
            return Observation(minute, demand)
        at_work = active is not None and active.status().state in ACTIVE
        run = active or self._paused_by_game()
        worker = active.status().pid if active else None
        our_processes = game_mode.our_processes() | ({worker} if worker else set())
        demands = [
            game_mode.demand_of_card(
                card, our_processes, at_work, used_bytes_of(active, card) if active else None, automation.min_gib
            )
            for card in cards_of(self._machine(), run)
        ]
        return Observation(minute, *(next(filter(None, values), None) for values in zip(*demands, strict=True)))

    def _paused_by_game(self) -> RunFolder | None:
        """Return the run that game mode paused; None if there is none or it was deleted."""
        game = self.queue.read().game
        try:
            return self.runs.get(game.run) if game and game.run else None
        except GarageError:
            return None

    def _resume(self, run: RunFolder) -> None:
        """Resume the run that game mode paused, in front and at once, unless the user has done something else
        with it."""
        if may_resume(self.runs.status(run).state) and run.requested_by == "game":
            with self.queue.locked():
                self.runs.queue_again(run, "app")
                self.queue.add(run.id, [entry.run for entry in self.queue.read().runs], now=True)


def _renewed(game: Game | None, why: Message | None, until: float | None, now: float) -> Game:
    """Return game mode's record with this reason and end; the same one for small differences, so that line.json is not
    written at each check."""
    if game is None:
        return Game(why=why or msg("game.soon"), since=now, until=until)
    same_time = game.until == until or (game.until and until and abs(game.until - until) < 5)
    same_reason = why is None or (game.why.key, game.why.params.get("program")) == (why.key, why.params.get("program"))
    return game if same_time and same_reason else game.model_copy(update={"why": why or game.why, "until": until})


def cards_of(machine: Machine, run: RunFolder | None) -> list[Card | None]:
    """Return the GPUs that run computes on, or would: those it was given, else the best. None for a missing one, and
    for the CPU."""
    facts = run.facts() if run else RunFacts()
    if devices.CPU in (facts.wanted_device, facts.device):
        return [None]
    if not (first_uuid := facts.wanted_device or facts.device_uuid):
        return [devices.best_card(machine.nvidia)]
    ranks = recipe_of(run).train.ranks if run and facts.wanted_beside else 1
    by_uuid = {card.uuid: card for card in machine.nvidia.cards}
    return [by_uuid.get(uuid) for uuid in [first_uuid, *facts.wanted_beside][:ranks]]


def used_bytes_of(run: RunFolder, card: Card | None) -> int | None:
    """Return the bytes that run last reported on card; None before. GPUs of the same name are not distinguished: the
    largest value."""
    of_ranks = [
        rank.used_bytes for rank in run.status().ranks if card and rank.host is None and rank.device == card.name
    ]
    lines = [line for line in run.newest_metrics() if line.get("kind") == "gpu"]
    value = max(of_ranks) if of_ranks else lines[-1].get("memory_bytes") if lines else None
    return int(value) if isinstance(value, int | float) else None


def busy(runs: Runs) -> RunFolder | None:
    """Return the run that is at work, started by a command, or next in an open app's queue, in this app or in any other
    process on its workspace; None without one."""
    waiting = {}
    for run in runs.list():
        status = runs.status(run)
        if status.state in ACTIVE or (status.state == State.QUEUED and not run.is_of_app):
            return run
        if status.state == State.QUEUED:
            waiting[run.id] = status.since
    order = Queue(runs.workspace).read()
    turn = first(order, sorted(waiting, key=waiting.__getitem__), time.time()) if order.app_is_open else None
    return RunFolder(runs.workspace.runs / turn) if turn else None
