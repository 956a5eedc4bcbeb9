"""`data search`, `data show`, `data add`: datasets on the Hub: found, previewed before any download, added."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import typer

from core.commands.data import dataset_store
from core.commands.models import to_its_end
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, plain, print_json, say
from core.data.hub_sets import adding
from core.data.hub_sets.head import SetHead, cell, head_of, is_recognised
from core.data.shapes.roles import parse
from core.errors import DataError
from core.hub.answers import in_words as size_in_words
from core.hub.sets import search as hub_search
from core.hub.sets.about import AboutPart, AboutSet, about
from core.hub.sets.name import SetName
from core.hub.sets.search import FoundSet
from core.messages import Message, msg, terminal_language
from core.models.library import Models
from core.values import width
from core.workspace.folder import Workspace

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Datasets: those of the Hub, and your own.")
app.add_typer(data, name="data")
NameArgument = Annotated[str, typer.Argument(help="owner/name, with :configuration:split if it has several.")]
CELL = 60  # characters of a cell that is shown


@data.command()
def search(
    words: Annotated[list[str], typer.Argument(help="What the dataset is about, or part of its name.")], as_json: JsonOption = False
) -> None:
    """Search datasets on the Hub, the most downloaded first."""
    found = hub_search.search(" ".join(words))
    if as_json:
        print_json(in_words({"sets": [plain(asdict(row)) for row in found]}))
        return
    for row in found:
        print(_line(row.id, *_cells(row)))
    if not found:
        say(msg("hub_set.none_found", words=" ".join(words)))


@data.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show a dataset on the Hub: parts, rows, sizes, licence, gate and first rows. Downloads nothing."""
    asked = SetName.parse(name)
    told = about(asked)
    chosen = told.part(asked.named)
    try:
        head, failure = head_of(told, chosen.part), None
    except DataError as error:
        head, failure = None, error.message
    if as_json:
        print_json(in_words(about_json(told, chosen) | {"first_rows": _head_json(head), "message": failure and plain(failure)}))
        return
    language = terminal_language()
    print(told.page)
    print(" · ".join(_said(fact) for fact in facts(told)))
    for each in told.parts:
        print(_line(f"{each.part.config}:{each.part.split}", *_part_cells(each)))
    print()
    if head is not None:
        print(msg("hub_set.first_rows_of", part=f"{chosen.part.config}:{chosen.part.split}").render(language))
        for row in head.rows[:3]:
            print("\n".join(f"  {column}: {_said(cell(row.get(column), CELL))}" for column in head.columns))
            print()
        for note in head.notes:
            say(note)
        if not is_recognised(head):
            say(msg("hub_set.say_columns", columns=list(head.columns)[:20]))
    if failure is not None:
        say(failure)


@data.command()
def add(
    name: NameArgument,
    rows: Annotated[int | None, typer.Option(min=1, help="Only this many rows from the beginning. Default: all.")] = None,
    columns: Annotated[str, typer.Option(help="What each column is, e.g. question=Frage,answer=Antwort.")] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a part of a dataset on the Hub and add it to your own. Ctrl-C pauses; the same command resumes."""
    space, asked = Workspace.open(workspace), SetName.parse(name)
    store = dataset_store(space)
    downloads = Models(space).downloads(partial(adding.bring, store))
    told = about(asked)
    part = adding.part_of(told.repo, told.part(asked.named), rows or 0)

    row = downloads.start(str(part), said={"columns": parse(columns)} if columns else {})
    info = store.get(to_its_end(downloads, str(part), None, msg("hub_set.paused", part=row.name), as_json).result)
    if as_json:
        print_json(in_words({"id": info.id, **info.model_dump(mode="json")}))
    else:
        say(msg("hub_set.added", part=row.name, id=info.id, good=info.good_rows, rows=info.rows))


def facts(told: AboutSet) -> list[str | Message]:
    """Licence, languages, gate, and how many like it."""
    return [
        msg("hub_set.licence", licence=told.licence) if told.licence else msg("hub_set.no_licence"),
        *([", ".join(told.languages[:5])] if told.languages else []),
        *([msg("hub_set.is_gated", page=told.page)] if told.gated else []),
        msg("hub_set.liked", downloads=told.downloads or 0, likes=told.likes or 0),
    ]


def about_json(told: AboutSet, chosen: AboutPart) -> dict[str, Any]:
    said = {"repo": told.repo, "page": told.page, "commit": told.commit, "licence": told.licence, "gated": told.gated}
    said |= {"likes": told.likes, "downloads": told.downloads, "languages": list(told.languages)}
    return said | {"parts": [_part_json(each) for each in told.parts], "chosen": _part_json(chosen)}


def _part_json(each: AboutPart) -> dict[str, Any]:
    part = each.part
    return {
        "config": part.config, "split": part.split, "rows": each.rows, "at_least": each.at_least, "bytes": part.bytes,
        "unpacked_bytes": each.memory, "kind": part.kind, "files": len(part.files),
    }  # fmt: skip


def _head_json(head: SetHead | None) -> dict[str, Any] | None:
    if head is None:
        return None
    rows = [{column: _plain_cell(row.get(column)) for column in head.columns} for row in head.rows]
    return {"columns": list(head.columns), "rows": rows, "cut": [sorted(cut) for cut in head.cut], "notes": [plain(note) for note in head.notes]}  # fmt: skip


def _plain_cell(value: Any) -> Any:
    """As it stands, where JSON has such a thing."""
    if isinstance(value, dict):
        return {str(name): _plain_cell(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain_cell(each) for each in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(type(value).__name__)


def _said(fact: str | Message) -> str:
    return fact.render(terminal_language()) if isinstance(fact, Message) else fact


def _line(name: str, *cells: str) -> str:
    return (name + " " * max(1, 46 - width(name)) + "  ".join(cell + " " * max(0, 12 - width(cell)) for cell in cells)).rstrip()


def _cells(row: FoundSet) -> list[str]:
    if row.why_not:
        return [_said(row.why_not)]
    rows = row.rows if row.rows is not None else row.about_rows
    cells = [
        _said(msg("hub_set.rows", rows=rows)) if rows else "",
        _said(size_in_words(row.bytes)) if row.bytes is not None else "",
    ]
    return [*cells, row.licence, *([_said(msg("hub_set.gated_word"))] if row.gated else [])]


def _part_cells(each: AboutPart) -> list[str]:
    key = "hub_set.rows_at_least" if each.at_least else "hub_set.rows"
    rows = _said(msg(key, rows=each.rows)) if each.rows is not None else ""
    return [rows, _said(size_in_words(each.part.bytes)), each.part.kind]
