"""`python launch.py join HOST:PORT`: this PC is a rank of a run that another leads.

It brings its device and its own copy of the base model, which must be the same by its fingerprint; the rows, and
everything else, come from the main PC. Here nothing is written but a log (join.log of the workspace). It leaves as the
run ends, and when the main PC is out of reach.
"""

from __future__ import annotations

import os
import queue
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from core.commands.data import dataset_id, dataset_store
from core.commands.terminal import CpuOption, WorkspaceOption, app, say
from core.commands.together.options import SECRET
from core.data.reading.choices import Choices
from core.errors import GarageError, RunError
from core.messages import Message, msg, terminal_language
from core.models import weights
from core.models.library import Models
from core.models.trust import Trust
from core.progress import Progress
from core.recipe import Recipe
from core.system import cores, devices
from core.system.awake import KeepAwake
from core.system.gpu import Card
from core.system.lines import Child
from core.system.linked import Link, Lost, parse, reach, written
from core.system.machine import library_versions, this_machine
from core.workspace import lease
from core.workspace.folder import Workspace

LEAVE_S = 5.0  # for a process that is told to
Event = dict[str, Any] | Lost | int  # a line of the main PC; why the link ended; the exit status of our process


@dataclass
class _VisitOver(Exception):
    """The main PC's run has ended, or sent this PC away."""

    why: Message
    is_good: bool = False


@app.command()
def join(
    main: Annotated[str, typer.Argument(help="HOST:PORT, as shown by the main PC.")],
    workspace: WorkspaceOption = None,
    cpu: CpuOption = False,
    minutes: Annotated[
        float, typer.Option(min=0, max=1440, help="How many minutes to try to reach the main PC.")
    ] = 10.0,
) -> None:
    """Train together with another PC that runs `train RECIPE --machines 2 --main HOST:PORT`. Exit 0 run ended, 1
    connection lost."""
    raise typer.Exit(take_part(Workspace.open(workspace), main, cpu, 60 * minutes))


def take_part(space: Workspace, main: str, cpu: bool, patience_s: float, known: Mapping[str, Any] | None = None) -> int:
    """Returns the exit status. known: what this PC knows of the run, for the main one to compare."""
    address = parse(main)
    nvidia = devices.here()
    card = None if cpu else devices.best_card(nvidia)
    with lease.hold(space, msg("machines.lease", main=written(address))), KeepAwake(lambda: True, lambda how: None):
        link = reach(address, _secret(), patience_s, _say_once(msg("machines.reaching", main=written(address))))
        try:
            return _Visit(
                space, link, written(address), card, devices.environment_of(devices.wanted_of(card, nvidia), nvidia)
            ).last(known or {})
        finally:
            link.close()


class _Visit:
    def __init__(self, space: Workspace, link: Link, main: str, card: Card | None, environment: Mapping[str, str]):
        self._space, self._link, self._main, self._card, self._environment = space, link, main, card, environment
        self._events = queue.SimpleQueue[Event]()

    def last(self, known: Mapping[str, Any]) -> int:
        link, device = self._link, (self._card.name if self._card else None) or this_machine().cpu
        link.listen(self._events.put, self._events.put)
        link.say(versions=library_versions(), device=device, **known)
        say(msg("machines.is_in", main=self._main))
        try:
            self._serve(self._next())
        except _VisitOver as over:
            say(over.why)
            return 0 if over.is_good else 1
        except GarageError as error:
            link.end(failed=error.message.model_dump(mode="json"))
            raise
        except KeyboardInterrupt:
            link.close()
            say(msg("machines.left", main=self._main))
            raise
        return 1

    def _next(self) -> dict[str, Any] | int:
        """The next line, or the exit status of our process. Raises _VisitOver."""
        while True:
            with suppress(queue.Empty):
                event = self._events.get(timeout=1.0)  # on Windows Ctrl-C is heard between two waits only
                break
        if isinstance(event, str):
            raise _VisitOver(msg(f"machines.main_{event}", main=self._main))
        if isinstance(event, dict) and "over" in event:
            raise _VisitOver(msg("machines.over", main=self._main), is_good=True)
        if isinstance(event, dict) and "refused" in event:
            raise _VisitOver(Message.model_validate(event["refused"]))
        return event

    def _check(self) -> None:
        """While the base is fetched: whether the main PC is still there."""
        held: list[Event] = []
        with suppress(queue.Empty):
            while True:
                held.append(self._events.get_nowait())
        for event in held:
            self._events.put(event)
        if any(isinstance(event, str) or "over" in event for event in held if not isinstance(event, int)):
            self._next()

    def _serve(self, first: dict[str, Any] | int) -> None:
        assert isinstance(first, dict)
        base = first["base"]
        report = partial(_report, {})
        folder = Models(self._space).obtain(base["id"], base["revision"], report, self._check)
        if weights.sampled(folder) != base["weights"]:
            raise RunError("machines.other_base", model=base["id"])
        own = {
            "model_folder": str(folder),
            "own_code": Trust(self._space).allows(base["id"], folder),
            "threads": cores.usable(),
        }
        with open(self._space.root / "join.log", "ab") as log:
            child = Child("core.training.ranks.worker", self._main, log=log, environment=self._environment)
        try:
            child.listen(lambda said: self._link.say(**said), self._events.put)
            child.say(**first | own | {"host": self._link.here})
            say(msg("machines.works", main=self._main, log=self._space.root / "join.log"))
            while not isinstance(order := self._next(), int):
                child.say(**order)
            self._link.end(gone=order)
            say(msg("machines.own_process", code=order, log=self._space.root / "join.log"))
        finally:
            child.end(0)


def _secret() -> str:
    """From the environment, else as it is typed: it stands in no command line. Raises RunError."""
    given = os.environ.pop(SECRET, None)
    if given:
        return given
    try:
        asked = msg("machines.ask").render(terminal_language())
        return getpass(asked) if sys.stdin.isatty() else sys.stdin.readline()
    except EOFError:
        return ""


def _say_once(what: Message) -> Any:
    said: list[Message] = []

    def waiting() -> None:
        if not said:
            said.append(what)
            say(what)

    return waiting


def _report(said: dict[str, int], stage: str, progress: Progress | None = None) -> None:
    """Each tenth of what takes long, a line."""
    tenth = int(10 * progress.done / progress.total) if progress and progress.total else 0
    if said.get(stage) != tenth:
        said[stage] = tenth
        say(f"{msg(f'stage.{stage}').render(terminal_language())} {10 * tenth} %")


def by_recipe(space: Workspace, wanted: Recipe, relative_to: Path, main: str, cpu: bool) -> int:
    """`train RECIPE --rank 1`: as `join`, and the main PC compares model and data. Returns the exit status."""
    data = Choices.of(wanted.data)
    source = dataset_id(space, wanted.data.source, relative_to, data)
    known = {"model": wanted.model.id, "data": dataset_store(space).get(source).sha256}
    return take_part(space, main, cpu, 600.0, known)
