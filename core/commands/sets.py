"""`data list`, `rows`, `change`, `fix`, `undo`, `redo`, `versions`, `export`, `join`, `split`: work on a workspace's
datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from core.api.datasets import dataset_store
from core.commands.hub_sets import data
from core.commands.terminal import JsonOption, WorkspaceOption, columns, in_words, plain, print_json, say
from core.data.reading.choices import Choices
from core.data.sets import working
from core.data.sets.edits import Change
from core.data.sets.info import DatasetInfo
from core.data.sets.working import ShownRow
from core.data.store import DatasetStore
from core.errors import DataError
from core.messages import msg, terminal_language
from core.runs.all import Runs
from core.workspace.folder import Workspace, expand

IdArgument = Annotated[str, typer.Argument(help="A dataset, by the id that `data list` shows.")]
VersionOption = Annotated[int | None, typer.Option(min=0, help="A version of a changed dataset. Default: the newest.")]
CELL = 70


@data.command("list")
def show_list(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List all datasets (yours, samples, library folders) with their rows and the runs trained on them."""
    space = Workspace.open(workspace)
    used = _runs_by_dataset(space)
    sets = [info.model_dump(mode="json") | {"runs": used.get(info.id, [])} for info in dataset_store(space).list()]
    if as_json:
        print_json(in_words({"sets": sets}))
        return
    language = terminal_language()
    for info in sets:
        numbers = msg("sets.line", rows="?" if info["good_rows"] is None else info["good_rows"], runs=len(info["runs"]))
        print(
            columns(info["id"], numbers.render(language)) + (f"  {info['name']}" if info["name"] != info["id"] else "")
        )


def _runs_by_dataset(space: Workspace) -> dict[str, list[str]]:
    """Return the ids of the runs trained on each dataset, newest first, by the dataset's id.

    As the runs recorded it themselves: one that has recorded no data yet is not counted, a dataset without runs has no
    key.
    """
    runs = Runs(space)
    used: dict[str, list[str]] = {}
    for run in runs.list():
        if of_run := run.facts().data:
            used.setdefault(of_run.id, []).append(run.id)
    return used


@data.command()
def rows(
    id: IdArgument,
    begin: Annotated[
        int, typer.Option("--from", min=0, help="First row to show; --json gives the next page's as `next`.")
    ] = 0,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Rows to show.")] = 20,
    search: Annotated[str, typer.Option(help="Only rows that contain this text.")] = "",
    problems: Annotated[
        bool, typer.Option("--problems", help="Only rows that cannot be trained, with the reason.")
    ] = False,
    version: VersionOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a page of a dataset's rows, which may be searched or limited to those with problems."""
    stored = dataset_store(Workspace.open(workspace)).rows(id, choices=Choices(version=version))
    shown = working.problems(stored, begin, count) if problems else working.page(stored, begin, count, search)
    if as_json:
        print_json(in_words({"rows": [_row(row) for row in shown.rows], "next": shown.next, "of": len(stored)}))
        return
    for row in shown.rows:
        print(f"{row.number:>8,}  {_cell(row)}")
    if not shown.rows:
        say(msg("sets.no_such_rows"))


def _row(row: ShownRow) -> dict[str, object]:
    """Return a row as JSON: number, example or else its values, and the problem if it has one."""
    value = {"row": row.number} | (row.example.as_dict() if row.example else {"values": row.values})
    return value | ({"problem": plain(row.problem)} if row.problem else {})


def _cell(row: ShownRow) -> str:
    """Return a row, or why it is none, as one line of at most CELL characters."""
    text = (
        working.text_of(row.example)
        if row.example
        else f"{row.problem.render(terminal_language()) if row.problem else ''} {row.values or ''}"
    )
    text = " ".join(text.split())
    return text if len(text) <= CELL else text[: CELL - 1] + "…"


@data.command()
def change(
    id: IdArgument,
    remove: Annotated[list[int] | None, typer.Option(help="The number of a row to remove; can be repeated.")] = None,
    row: Annotated[
        list[str] | None, typer.Option("--set", help='New contents of a row, e.g. 5={"question": ..., "answer": ...}.')
    ] = None,
    add: Annotated[list[str] | None, typer.Option(help="A new row as JSON; can be repeated.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove, change and add rows, as one new version that `undo` reverts. The imported file stays unchanged."""
    store = dataset_store(Workspace.open(workspace))
    _report_change(
        store,
        id,
        working.edit_rows(store, id, remove or (), map(_row_to_set, row or ()), map(_json, add or ())),
        as_json,
    )


@data.command()
def fix(
    id: IdArgument,
    kind: Annotated[str, typer.Argument(help="A kind of problem from `findings` of `inspect`, e.g. repeated.")],
    value: Annotated[str, typer.Option(help="The text that replaces a placeholder.")] = "",
    argument: Annotated[str, typer.Option(help="Which placeholder or kind of secret, if there are several.")] = "",
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove the affected rows instead of rewriting them.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fix one kind of problem in all rows."""
    store = dataset_store(Workspace.open(workspace))
    _report_change(
        store, id, working.repair_rows(store, id, kind, value, argument, "remove" if remove else ""), as_json
    )


@data.command()
def undo(id: IdArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Undo the dataset's last change, and print its version and rows."""
    store = dataset_store(Workspace.open(workspace))
    with store.editing(id) as (edits, _):
        undone = edits.undo()
    _report_change(store, id, undone, as_json)


@data.command()
def redo(id: IdArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Redo the last change that was undone, and print the version and rows."""
    store = dataset_store(Workspace.open(workspace))
    with store.editing(id) as (edits, _):
        again = edits.redo()
    _report_change(store, id, again, as_json)


@data.command()
def versions(id: IdArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the changes of a dataset and its current version."""
    edits = dataset_store(Workspace.open(workspace)).edits(id)
    story = [
        {"version": change.version, "parent": change.parent, "time": change.time, "what": plain(change.what)}
        for change in edits.changes.values()
    ]
    if as_json:
        print_json(in_words({"id": id, "version": edits.head, "versions": story}))
        return
    if not edits.changes:
        say(msg("sets.unchanged"))
    for change in edits.changes.values():
        print(
            f"{'>' if change.version == edits.head else ' '} {change.version:>4}  "
            f"{change.what.render(terminal_language())}"
        )


@data.command()
def export(
    id: IdArgument,
    file: Annotated[Path, typer.Argument(help="The JSONL file to write.")],
    version: VersionOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset's rows to a new file that any trainer can read. Raises DataError if the file exists."""
    target = expand(str(file))
    if target.exists():
        raise DataError("sets.file_exists", file=str(target))
    stored = dataset_store(Workspace.open(workspace)).rows(id, choices=Choices(version=version))
    try:
        count = working.write(stored, target)
    except OSError as error:
        raise DataError("data.cannot_store", name=target.name, reason=error.strerror or str(error)) from error
    if as_json:
        print_json({"file": str(target), "rows": count})
    else:
        say(msg("sets.exported", rows=count, file=str(target)))


@data.command()
def join(
    ids: Annotated[list[str], typer.Argument(help="Two or more datasets.")],
    name: Annotated[str, typer.Option(help="Name of the new dataset.")] = "joined",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join datasets into a new one; the originals stay."""
    space = Workspace.open(workspace)
    _print_new(as_json, working.join(dataset_store(space), ids, name, space.cache / "sets"))


@data.command()
def split(
    id: IdArgument,
    share: Annotated[float, typer.Option(help="Share of the rows for the second dataset.")] = 0.1,
    count: Annotated[
        int | None, typer.Option(help="Number of rows for the second dataset, instead of a share.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the split.")] = 42,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Split a dataset into two new ones, the second with the held-out rows; the original stays."""
    space = Workspace.open(workspace)
    store = dataset_store(space)
    name = store.get(id).name
    _print_new(
        as_json,
        *working.split(
            store, id, share if count is None else count, seed, (f"{name} 1", f"{name} 2"), space.cache / "sets"
        ),
    )


def _print_new(as_json: bool, *made: DatasetInfo) -> None:
    """Print ids and rows of new datasets, as JSON or a sentence each."""
    if as_json:
        print_json(in_words({"sets": [info.model_dump(mode="json") for info in made]}))
        return
    for info in made:
        say(msg("sets.made", id=info.id, rows=info.good_rows))


def _report_change(store: DatasetStore, id: str, change: Change, as_json: bool) -> None:
    """Print the dataset's version and rows after a change, as JSON or a sentence."""
    info = store.get(id)
    if as_json:
        print_json(in_words({"id": id, "version": info.version, "rows": info.good_rows, "what": plain(change.what)}))
    else:
        say(msg("sets.now", id=id, version=info.version, rows=info.good_rows))


def _json(text: str) -> object:
    """Parse text as JSON. Raises DataError that quotes it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise DataError("sets.no_json", found=text[:80]) from None


def _row_to_set(text: str) -> tuple[int, object]:
    """Return number and contents of a row from NUMBER=JSON. Raises DataError."""
    number, given, row = text.partition("=")
    if not given or not number.strip().isdecimal():
        raise DataError("sets.no_row_to_set", found=text[:80])
    return int(number), _json(row)
