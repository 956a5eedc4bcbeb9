"""`pack`, `unpack`: a run as one archive for another PC, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.advice import plan
from core.commands.data import AcceptGuessOption, AnswerOption, dataset_store, with_imported_data
from core.commands.terminal import JsonOption, SettingsOption, WorkspaceOption, app, print_json, recipe_of, say
from core.errors import RecipeError
from core.messages import msg
from core.recipe import Recipe
from core.runs import further
from core.runs.all import Runs
from core.runs.away import job, packed
from core.runs.folder import RunFolder
from core.workspace import writable
from core.workspace.folder import Workspace


@app.command()
def pack(
    what: Annotated[
        str, typer.Argument(help="A recipe file, to train on another PC; or a run, to open on another PC.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The archive to write.")],
    settings: SettingsOption = None,
    parent: Annotated[
        str | None, typer.Option("--from", help="For a recipe: start from the adapter of this finished run.")
    ] = None,
    without_data: Annotated[bool, typer.Option("--without-data", help="For a run: leave out its dataset.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    answer: AnswerOption = "",
    accept_guess: AcceptGuessOption = False,
) -> None:
    """Write one archive: for a recipe, everything another PC needs to train it; for a run, the run itself, for
    `unpack`."""
    space = Workspace.open(workspace)
    store, recipe = dataset_store(space), Path(what)
    if recipe.is_file():
        writable.require(space)
        parent_run = Runs(space).find(parent) if parent else None
        parsed, base = recipe_of(recipe, settings or []), recipe.absolute().parent
        complete = _complete_recipe(space, parsed, base, parent_run, answer, accept_guess)
        top = job.pack(complete, store, out.absolute(), parent=parent_run)
        info = store.get(complete.data.source)
        sentences = [
            msg("away.job_is", file=out.absolute(), megabytes=_megabytes(out), data=info.name, rows=info.rows or 0),
            msg("away.job_use", folder=top),
            msg("away.job_rent", folder=top),
        ]
        value = {
            "kind": "job",
            "file": str(out.absolute()),
            "folder": top,
            "bytes": out.stat().st_size,
            "data": info.id,
        }
    else:
        if settings or parent or answer or accept_guess:
            raise RecipeError("away.no_settings")
        run = Runs(space).find(what)
        manifest = packed.pack(space, store, run, out.absolute(), with_data=not without_data)
        key = "away.run_with_data" if manifest.data else "away.run_is"
        data = store.get(manifest.data).name if manifest.data else ""
        sentences = [msg(key, name=run.name, file=out.absolute(), megabytes=_megabytes(out), data=data)]
        value = {
            "kind": "run",
            "file": str(out.absolute()),
            "run": run.id,
            "bytes": out.stat().st_size,
            "data": manifest.data,
        }
    if as_json:
        print_json(value)
        return
    for sentence in sentences:
        say(sentence)


@app.command()
def unpack(file: Path, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Add a packed run to this workspace, where you can chat with it, export it or resume it."""
    space = Workspace.open(workspace)
    writable.require(space)
    run = packed.unpack(space, file)
    if as_json:
        print_json({"run": run.id, "name": run.name, "state": run.status().state.value, "folder": str(run.path)})
        return
    say(msg("away.opened", name=run.name, run=run.id, state=msg(f"state.{run.status().state.value}")))


def _complete_recipe(
    space: Workspace, recipe: Recipe, relative_to: Path, parent: RunFolder | None, answer: str, accept_guess: bool
) -> Recipe:
    """Return the recipe with its data imported, as an id of the store, in its current version, and with the settings of
    its parent. Raises DataError for columns that nobody has decided."""
    if parent:
        recipe = further.child_of(recipe, parent)
    recipe, store = with_imported_data(space, recipe, relative_to, answer), dataset_store(space)
    plan.require_decided(store, recipe.data, accept_guess)  # the other PC reads the columns that are written next
    return recipe.model_copy(update={"data": store.pinned(recipe.data)})


def _megabytes(file: Path) -> float:
    return round(file.stat().st_size / 1e6, 1)
