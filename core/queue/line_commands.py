"""The line without a browser: what `queue` lists and does. The app, while it is open, works the line off."""

from __future__ import annotations

import time
from typing import Any, Literal

from core.errors import RunError
from core.messages import Text, text
from core.queue.queue import Hold, Line, arranged, time_of_day
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace

Action = Literal["list", "up", "down", "remove", "at", "go", "hold"]


def listing(space: Workspace) -> dict[str, Any]:
    """What `queue --json` prints: the runs in their order, and what the line waits for (null: for its turn only)."""
    runs, order = Runs(space), Line(space).read()
    rows = [
        {"place": place, "run": entry.run, "name": runs.get(entry.run).name, "not_before": entry.not_before}
        for place, entry in enumerate(arranged(order, [run.id for run in runs.waiting()]), 1)
    ]
    hold = order.hold.model_dump(mode="json") if order.hold else None
    game = order.game.model_dump(mode="json") if order.game else None
    return {"runs": rows, "hold": hold, "game": game, "sleep_at": order.sleep_at, "app_is_open": order.app_is_open}


def sentences(space: Workspace) -> list[Text]:
    """The same for people."""
    found, order = listing(space), Line(space).read()
    said = [text("line.place", **(row | {"when": _when(row["not_before"])})) for row in found["runs"]] or [text("line.empty")]
    if order.hold and found["runs"]:
        said.append(text(f"line.held_{order.hold.why}", run=order.hold.run or ""))
    if order.game:
        said.append(order.game.why)
    if found["runs"] and not order.app_is_open:
        said.append(text("line.no_app"))
    return said


def _when(not_before: float | None) -> Text | str:
    if not_before is None or not_before <= time.time():
        return ""
    return text("line.not_before", time=time.strftime("%m-%d %H:%M", time.localtime(not_before)))


def act(space: Workspace, action: Action, name: str | None, at: str | None) -> list[Text]:
    """Raises RunError for a run that does not wait, RecipeError for a time that is none."""
    line = Line(space)
    if action == "go":
        line.put(hold=None)
        return [text("line.goes_on")]
    if action == "hold":
        line.put(hold=Hold(why="person", since=time.time()))
        return [text("line.is_held")]
    if action == "list":
        return sentences(space)
    run, waiting = _waiting_run(space, action, name)
    if action == "remove":
        run.ask("stop")
        if not line.read().app_is_open:  # nobody else would carry it out before the app is opened again
            Runs(space).drop(run)
        line.forget(run.id)
        return [text("line.taken_out", name=run.name)]
    if action == "at":
        if at is None:
            raise RunError("line.needs_time")
        line.set_time(run.id, None if at == "now" else time_of_day(at, time.time()), waiting)
    else:
        line.move(run.id, -1 if action == "up" else 1, waiting)
    return sentences(space)


def _waiting_run(space: Workspace, action: str, name: str | None) -> tuple[RunFolder, list[str]]:
    runs = Runs(space)
    waiting = [run.id for run in runs.waiting()]
    if name is None:
        raise RunError("line.needs_run", action=action)
    run = runs.find(name)
    if run.id not in waiting:
        raise RunError("line.not_in_line", run=run.id)
    return run, waiting


def create(space: Workspace, recipe: Recipe, facts: dict[str, Any], at: str | None) -> tuple[RunFolder, Text]:
    """A run at the end of the line, for the app to train."""
    runs, line, not_before = Runs(space), Line(space), time_of_day(at, time.time())
    with line.locked():  # the app must not see it before its time is written
        waiting = [other.id for other in runs.waiting()]
        run = runs.create(recipe, "app", facts)
        line.add(run.id, waiting, not_before)
    return run, text("line.added", name=run.name, place=len(waiting) + 1)
