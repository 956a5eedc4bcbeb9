"""`data search`, `data show`, `data add`: datasets on the Hub: found, previewed before any download, added. Files are
added too."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from core.api.datasets import dataset_id, dataset_store
from core.commands.models import in_foreground
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, plain, print_json, say
from core.data.hub_sets import adding
from core.data.hub_sets.head import cell, is_recognized
from core.data.reading.choices import Choices
from core.data.reading.suffixes import SUFFIXES
from core.data.sets.info import DatasetInfo
from core.data.shapes.roles import parse
from core.errors import DataError
from core.hub import download
from core.hub.downloads import fetch_part
from core.hub.hub_errors import format_size as size_in_words
from core.hub.sets import search as hub_search
from core.hub.sets.about import AboutPart, AboutSet, SetHead, about
from core.hub.sets.name import PAGES, SetName
from core.hub.sets.search import FoundSet
from core.messages import Message, msg, terminal_language
from core.values import width
from core.workspace.folder import Workspace, expand

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Datasets: those of the Hub, and your own.")
app.add_typer(data, name="data")
NameArgument = Annotated[str, typer.Argument(help="owner/name, with :configuration:split if it has several.")]
CELL = 60  # characters of a cell that is shown


@data.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What the dataset is about, or part of its name.")],
    as_json: JsonOption = False,
) -> None:
    """Search datasets on the Hub, the most downloaded first."""
    matches = hub_search.search(" ".join(words))
    if as_json:
        print_json(in_words({"sets": [plain(asdict(row)) for row in matches]}))
        return
    for row in matches:
        print(_line(row.id, *_cells(row)))
    if not matches:
        say(msg("hub_set.none_found", words=" ".join(words)))


@data.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a dataset on the Hub: parts, rows, sizes, licence, gate and first rows. Downloads nothing."""
    dataset = about(SetName.parse(name), with_rows=True)
    head = dataset.head
    failure = head if isinstance(head, Message) else None
    if as_json:
        rows = head.model_dump(mode="json") if isinstance(head, SetHead) else None
        print_json(
            in_words(
                dataset.model_dump(mode="json", exclude={"head"})
                | {"first_rows": rows, "message": failure and plain(failure)}
            )
        )
        return
    language = terminal_language()
    print(dataset.page)
    print(" · ".join(_text(fact) for fact in facts(dataset)))
    for each in dataset.parts:
        print(_line(f"{each.config}:{each.split}", *_part_cells(each)))
    print()
    if isinstance(head, SetHead):
        print(msg("hub_set.first_rows_of", part=f"{dataset.part.config}:{dataset.part.split}").render(language))
        for row in head.rows[:3]:
            print("\n".join(f"  {column}: {cell(row.get(column), CELL)}" for column in head.columns))
            print()
        if head.left_out:
            say(msg("hub_set.some_media", columns=list(head.left_out)[:10]))
        if not is_recognized(head):
            say(msg("hub_set.say_columns", columns=list(head.columns)[:20]))
    if failure is not None:
        say(failure)


@data.command()
def add(
    name: Annotated[str, typer.Argument(help="owner/name, with :configuration:split if it has several; or a file.")],
    rows: Annotated[
        int | None, typer.Option(min=1, help="Only this many rows from the beginning. Default: all.")
    ] = None,
    columns: Annotated[str, typer.Option(help="What each column is, e.g. question=Frage,answer=Antwort.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a file, a folder or a part of a dataset on the Hub to your own. Ctrl-C pauses a download; the same command
    resumes."""
    space = Workspace.open(workspace)
    store = dataset_store(space)
    roles = parse(columns) if columns else None
    if expand(name).exists() or Path(name).suffix.lower() in SUFFIXES:
        if rows:
            raise DataError("sets.rows_of_a_file")
        _say_added(store.get(dataset_id(space, name, Path(), Choices(columns=roles))), name, as_json)
        return
    parsed = SetName.parse(name)
    dataset = about(parsed)
    part = adding.part_of(dataset.repo, dataset.part, rows or 0)
    name, reading = str(part).removeprefix(PAGES), {"columns": roles} if roles else {}
    bring = partial(adding.add_part, store)
    with in_foreground(msg("hub_set.paused", part=name), as_json) as report:
        added = download.patiently(
            lambda noted: fetch_part(space, part, reading, bring, noted, lambda: None), report, lambda: None
        )
    _say_added(store.get(added), name, as_json)


def _say_added(info: DatasetInfo, source: str, as_json: bool) -> None:
    """Print the dataset that was added from source."""
    if as_json:
        print_json(in_words({"id": info.id, **info.model_dump(mode="json")}))
    else:
        say(msg("hub_set.added", part=source, id=info.id, good=info.good_rows, rows=info.rows))


def facts(dataset: AboutSet) -> list[str | Message]:
    """Return licence, languages, gate, downloads and likes of a dataset, as messages or text for the terminal."""
    return [
        msg("hub_set.licence", licence=dataset.licence) if dataset.licence else msg("hub_set.no_licence"),
        *([", ".join(dataset.languages[:5])] if dataset.languages else []),
        *([msg("hub_set.is_gated", page=dataset.page)] if dataset.gated else []),
        msg("hub_set.liked", downloads=dataset.downloads or 0, likes=dataset.likes or 0),
    ]


def _text(fact: str | Message) -> str:
    """Return fact in the terminal's language."""
    return fact.render(terminal_language()) if isinstance(fact, Message) else fact


def _line(name: str, *cells: str) -> str:
    """Return name and cells as a line of columns."""
    return (
        name + " " * max(1, 46 - width(name)) + "  ".join(cell + " " * max(0, 12 - width(cell)) for cell in cells)
    ).rstrip()


def _cells(row: FoundSet) -> list[str]:
    """Return the cells of a search result: why it cannot be used, or rows, size, licence and gate."""
    if row.why_not:
        return [_text(row.why_not)]
    rows = row.rows if row.rows is not None else row.about_rows
    cells = [
        _text(msg("hub_set.rows", rows=rows)) if rows else "",
        _text(size_in_words(row.bytes)) if row.bytes is not None else "",
    ]
    return [*cells, row.licence, *([_text(msg("hub_set.gated_word"))] if row.gated else [])]


def _part_cells(each: AboutPart) -> list[str]:
    """Return the cells of a part of a dataset: rows, size, kind."""
    rows = _text(msg("hub_set.rows", rows=each.rows)) if each.rows is not None else ""
    return [rows, _text(size_in_words(each.bytes)), each.kind]
