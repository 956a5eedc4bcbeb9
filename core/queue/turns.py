"""Which run is next: what the supervisor asks between two runs, and reports when one has ended.

Everything lasting is in line.json (core/queue/queue); only what game mode must see twice before it believes it is kept
in memory. One thread calls this, the supervisor's; pages and commands change line.json beside it.
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
from core.queue.game_mode import Sight, Standing
from core.queue.queue import App, Game, Hold, Order, Queue, first
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.process import recipe_of
from core.runs.run_json import RunFacts
from core.runs.states import ACTIVE, State, may_pause, may_resume
from core.system import devices, sleep
from core.system.gpu import Card
from core.system.machine import Machine, this_machine
from core.workspace import lease, preferences
from core.workspace.folder import Workspace
from core.workspace.preferences import Automation

LOOK_S = 2.0  # between two looks for game mode and for sleep
COUNTDOWN_S = 60.0  # in which the person may keep the PC awake
LATE_S = 30.0  # the clock jumped past the countdown: the PC slept already, or somebody set its clock


class Turns:
    """exporting: whether an export was begun. machine, programs, clock, steady, put_to_sleep: the world, for tests to
    replace. steady never jumps; clock is the wall's."""

    def __init__(
        self,
        workspace: Workspace,
        machine: Callable[[], Machine] = this_machine,
        programs: Callable[[], set[str]] = game_mode.running_programs,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        put_to_sleep: Callable[[], Message | None] = sleep.now,
        exporting: Callable[[], bool] = lambda: False,
    ):
        self.workspace, self.queue, self.runs = workspace, Queue(workspace), Runs(workspace)
        self._machine, self._programs, self._put_to_sleep, self._exporting = machine, programs, put_to_sleep, exporting
        self.clock, self._steady = clock, steady
        self._standing = Standing()
        self._looked_at = float("-inf")

    def app_started(self, waiting: Sequence[str]) -> None:
        """Nothing trains by itself because an app was opened: what waited before waits for the person
        (core/queue/queue.first)."""
        if (game := self.queue.read().game) and game.run:
            with contextlib.suppress(GarageError):  # it is offered like any run that the end of the app paused
                self.runs.get(game.run).request("pause", by="close")
        here = App(pid=os.getpid(), started=psutil.Process().create_time())
        hold = Hold(why="restart", since=self.clock()) if waiting else None
        self.queue.put(app=here, hold=hold, game=None, ignore_game=False, sleep_at=None, said=None)

    def next(self, waiting: Callable[[], Sequence[str]]) -> str | None:
        """The run to begin now, the device being free of other runs. waiting: reads the ids, the longest waiting
        first."""
        if not waiting():
            return None
        chosen = self._first(waiting)
        if chosen and (wanted := preferences.read(self.workspace).automation).game_mode:
            # what was saved since the last look counts before it begins
            self._watch_game(self.queue.read(), wanted, None, True)
            chosen = self._first(waiting)
        holder = lease.owner(self.workspace) if chosen and lease.is_held(self.workspace) else None
        if chosen and (self._exporting() or (holder and holder.key == "export.lease")):
            return None  # an export is waited for; the chat gives the device up when a run begins
        return chosen

    def _first(self, waiting: Callable[[], Sequence[str]]) -> str | None:
        with self.queue.locked():
            # both are read inside: a run that is just being added or resumed is seen, with its place
            return first(self.queue.read(), waiting(), self.clock())

    def ended(self, run: RunFolder, status: Status, waiting: Sequence[str]) -> None:
        """A run that this app trained came to its end, or stands still. waiting: those behind it."""
        now, wanted = self.clock(), preferences.read(self.workspace).automation

        def after(order: Order) -> Order:
            order = order.but(runs=tuple(entry for entry in order.runs if entry.run != run.id))
            if status.state == State.PAUSED and run.requested_by == "game":
                return order.but(game=order.game.model_copy(update={"run": run.id})) if order.game else order
            if status.state == State.PAUSED:
                return order.but(hold=Hold(why="paused", since=now, run=run.id)) if waiting else order
            if status.state in (State.FAILED, State.INTERRUPTED) and waiting and not wanted.go_on_after_failure:
                return order.but(hold=Hold(why="failed", since=now, run=run.id))
            if wanted.sleep_when_empty and not waiting and order.game is None and status.state != State.STOPPED:
                return order.but(sleep_at=now + COUNTDOWN_S)
            return order

        self.queue.change(after)
        if status.state == State.PAUSED and self.queue.read().game is None:  # "all the same" was said while it paused
            self._again(run)

    # ---- between ---------------------------------------------------------------------------------
    def look(self, active: RunFolder | None, waiting: Sequence[str], is_of_app: bool = True) -> None:
        """Game mode and sleep, at most each LOOK_S. active: what is at work now, here or in a command, which is left
        alone."""
        if self._steady() - self._looked_at < LOOK_S:
            return
        self._looked_at = self._steady()
        order, wanted = self.queue.read(), preferences.read(self.workspace).automation
        if order.sleep_at is not None:
            self._watch_sleep(order.sleep_at, is_idle=active is None and not waiting)
        if wanted.game_mode or order.game or order.ignore_game:
            self._watch_game(order, wanted, active, is_of_app)

    def _watch_sleep(self, sleep_at: float, is_idle: bool) -> None:
        now = self.clock()
        if not is_idle or lease.is_held(self.workspace) or now > sleep_at + LATE_S:
            self.queue.put(sleep_at=None)
        elif now >= sleep_at:
            self.queue.put(sleep_at=None)  # first, so that waking up does not find it
            if problem := self._put_to_sleep():
                self.queue.put(said=problem)

    def _watch_game(self, order: Order, wanted: Automation, active: RunFolder | None, is_of_app: bool) -> None:
        standing = replace(self._standing, held=order.game is not None, ignored=order.ignore_game)
        verdict = game_mode.decide(wanted, self._sight(wanted, active), standing, self._steady())
        self._standing = verdict.standing
        if order.ignore_game and not verdict.standing.ignored:
            self.queue.put(ignore_game=False)
        if not verdict.hold:
            if order.game:
                if run := self._paused_by_game():
                    self._again(run)
                self.queue.put(game=None)
            return
        until = None if verdict.seconds_left is None else self.clock() + verdict.seconds_left

        def held(order: Order) -> Order:  # unless somebody pressed "Go on all the same" between the two looks
            return (
                order if order.ignore_game else order.but(game=_renewed(order.game, verdict.why, until, self.clock()))
            )

        order = self.queue.change(held)
        if active and is_of_app and order.game and not active.requested() and may_pause(active.status().state):
            active.request("pause", by="game")

    def _sight(self, wanted: Automation, active: RunFolder | None) -> Sight:
        here = time.localtime(self.clock())
        minute = here.tm_hour * 60 + here.tm_min
        wish = game_mode.wish_of_programs(wanted.programs, self._programs()) if wanted.programs else None
        if wish is not None or not wanted.watch_card:
            return Sight(minute, wish)
        at_work = active is not None and active.status().state in ACTIVE
        run = active or self._paused_by_game()
        worker = active.status().pid if active else None
        ours = game_mode.our_processes() | ({worker} if worker else set())
        sights = [
            game_mode.wish_of_card(card, ours, at_work, bytes_of(active, card) if active else None, wanted.min_gib)
            for card in cards_of(self._machine(), run)
        ]
        return Sight(minute, *(next(filter(None, told), None) for told in zip(*sights, strict=True)))

    def _paused_by_game(self) -> RunFolder | None:
        game = self.queue.read().game
        try:
            return self.runs.get(game.run) if game and game.run else None
        except GarageError:
            return None

    def _again(self, run: RunFolder) -> None:
        """What game mode paused, in front and at once, unless somebody has done something else with it meanwhile."""
        if may_resume(self.runs.status(run).state) and run.requested_by == "game":
            with self.queue.locked():
                self.runs.queue_again(run, "app")
                self.queue.add(run.id, [entry.run for entry in self.queue.read().runs], now=True)


def _renewed(game: Game | None, why: Message | None, until: float | None, now: float) -> Game:
    """Unchanged while it says the same, so that line.json is not written at each look for a GiB more or less."""
    if game is None:
        return Game(why=why or msg("game.soon"), since=now, until=until)
    same_time = game.until == until or (game.until and until and abs(game.until - until) < 5)
    same_reason = why is None or (game.why.key, game.why.params.get("program")) == (why.key, why.params.get("program"))
    return game if same_time and same_reason else game.model_copy(update={"why": why or game.why, "until": until})


def cards_of(machine: Machine, run: RunFolder | None) -> list[Card | None]:
    """The cards that run computes on, or would: those it was given, else the best. None for one that is not there, and
    for the processor."""
    facts = run.facts() if run else RunFacts()
    if devices.CPU in (facts.wanted_device, facts.device):
        return [None]
    if not (wanted := facts.wanted_device or facts.device_uuid):
        return [devices.best_card(machine.nvidia)]
    ranks = recipe_of(run).train.ranks if run and facts.wanted_beside else 1
    there = {card.uuid: card for card in machine.nvidia.cards}
    return [there.get(uuid) for uuid in [wanted, *facts.wanted_beside][:ranks]]


def bytes_of(run: RunFolder, card: Card | None) -> int | None:
    """What the run last said of its memory on card; None where it has not yet. Of cards of one name it does not say
    which is whose: the most."""
    of_ranks = [
        rank.used_bytes for rank in run.status().ranks if card and rank.host is None and rank.device == card.name
    ]
    lines = [line for line in run.newest_metrics() if line.get("kind") == "gpu"]
    value = max(of_ranks) if of_ranks else lines[-1].get("memory_bytes") if lines else None
    return int(value) if isinstance(value, int | float) else None


def busy(runs: Runs) -> RunFolder | None:
    """The run that is at work or just about to be, in this app or in any other process on its workspace."""
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
