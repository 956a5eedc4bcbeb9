"""`pack`: a recipe with all that another PC needs to train it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.advice import plan
from core.api.datasets import dataset_store, with_imported_data
from core.commands.data import AcceptGuessOption, AnswerOption
from core.commands.terminal import JsonOption, SettingsOption, WorkspaceOption, app, print_json, recipe_of, say
from core.messages import msg
from core.runs import further
from core.runs.all import Runs
from core.runs.away import job
from core.workspace import writable
from core.workspace.folder import Workspace


@app.command()
def pack(
    recipe: Annotated[Path, typer.Argument(help="A recipe file, to train on another PC.")],
    out: Annotated[Path, typer.Option("--out", help="The archive to write.")],
    settings: SettingsOption = None,
    parent: Annotated[str | None, typer.Option("--from", help="Start from the adapter of this finished run.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    answer: AnswerOption = "",
    accept_guess: AcceptGuessOption = False,
) -> None:
    """Write one archive with everything that another PC needs to train a recipe. Raises DataError for columns that are
    not decided."""
    space = Workspace.open(workspace)
    writable.require(space)
    store, parent_run = dataset_store(space), Runs(space).find(parent) if parent else None
    complete = recipe_of(recipe, settings or [])
    if parent_run:
        complete = further.recipe_to_continue(complete, parent_run)
    complete = with_imported_data(space, complete, recipe.absolute().parent, answer)
    plan.require_decided(store, complete.data, accept_guess)  # the other PC reads the columns that are written next
    complete = complete.model_copy(update={"data": store.pinned(complete.data)})
    top = job.pack(complete, store, out.absolute(), parent=parent_run)
    info, size = store.get(complete.data.source), out.stat().st_size
    if as_json:
        print_json({"kind": "job", "file": str(out.absolute()), "folder": top, "bytes": size, "data": info.id})
        return
    megabytes = round(size / 1e6, 1)
    say(msg("away.job_is", file=out.absolute(), megabytes=megabytes, data=info.name, rows=info.rows or 0))
    say(msg("away.job_use", folder=top, runs=space.runs))
    say(msg("away.job_rent", folder=top))
