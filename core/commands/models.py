"""`models`: models on this PC, known models, and downloads. Uses the same files as the page (core.hub.entry)."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Annotated

import typer

from core import files
from core.advice import shelf
from core.advice.shelf import Shelf
from core.advice.wish import Wish
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, plain, print_json, say, written_over
from core.errors import ModelError
from core.export.llamacpp.export_support import ExportSupport, export_support, support_of_known
from core.hub import search as hub_search
from core.hub.downloads import Downloads
from core.hub.entry import Download
from core.hub.hub_errors import format_size as size_in_words
from core.hub.search import FoundModel
from core.hub.sets.name import PAGES, PartName
from core.memory import budget
from core.messages import Message, msg, terminal_language
from core.models import on_disk
from core.models.library import Models
from core.models.on_disk import StoredModel
from core.progress import Progress
from core.runs.all import Runs
from core.system.machine import this_machine
from core.values import width
from core.workspace import owner
from core.workspace.folder import Workspace

models = typer.Typer(invoke_without_command=True, no_args_is_help=False, rich_markup_mode=None)
app.add_typer(models, name="models")
RevisionOption = Annotated[str | None, typer.Option("--revision", help="A branch, tag or commit. Default: main.")]


@models.callback()
def list_models(context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the models on this PC, where they are, and which runs need them."""
    if context.invoked_subcommand is not None:
        return
    space = Workspace.open(workspace)
    rows = on_disk.on_disk(space, Runs(space).uses())
    if as_json:
        print_json({"models": [kept_json(row) for row in rows]})
        return
    for row in rows:
        used = [use.run for use in row.uses]
        notes = [] if row.is_complete else [msg("models.part").render(terminal_language())]
        notes += [msg("models.used", runs=used[:3]).render(terminal_language())] if used else []
        store = msg(f"models.store_{row.store}").render(terminal_language())
        day = time.strftime("%Y-%m-%d", time.localtime(row.last_used))
        print(row_of(row.id, size_in_words(row.size).render(terminal_language()), day, store, *notes))
    if not rows:
        say(msg("models.none"))


@models.command()
def search(
    words: Annotated[list[str], typer.Argument(help="In your own words: qwen3 4b, small japanese model.")],
    fits: Annotated[bool, typer.Option("--fits", help="Only models that can be trained on this PC.")] = False,
    vram: Annotated[float | None, typer.Option(help="For a GPU with this many GB of VRAM, as sold.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Also search the Hub; needs a network.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search the known models, those that can be trained here first; with --hub also the Hub."""
    machine = this_machine()
    memory = budget.of_machine(machine) if vram is None else budget.planned(vram, machine.system)
    query = " ".join(words)
    matches = shelf.find(query, memory, Wish(fits=fits), budget.of_cpu(machine))
    of_hub = hub_search.search(query) if hub else []
    if as_json:
        print_json(in_words(shelf_json(matches) | ({"hub": [plain(asdict(row)) for row in of_hub]} if hub else {})))
        return
    for sentence in matches.remarks:
        say(sentence)
    for row in matches.rows:
        verdict = msg(f"models.{row.verdict}", gib=row.needed_gib).render(terminal_language())
        size = size_in_words(row.download_bytes).render(terminal_language())
        print(row_of(row.model.hub, size, verdict, row.model.licence, *([row.gate] if row.gate else [])))
    for other in of_hub:
        print(row_of(other.id, *hub_cells(other)))


@models.command()
def download(
    name: str, revision: RevisionOption = None, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Download a known model, or owner/name from the Hub. Ctrl-C pauses; what was downloaded is kept."""
    space = Workspace.open(workspace)
    local_models = Models(space)
    repo, downloads = local_models.hub_id(name), local_models.downloads()
    downloads.start(repo, revision)
    row = follow_download(downloads, repo, revision, msg("models.paused", model=repo), as_json)
    if as_json:
        print_json(in_words(download_json(row)))
    else:
        say(msg("models.is_here", model=repo))


def follow_download(downloads: Downloads, repo: str, revision: str | None, paused: Message, quiet: bool) -> Download:
    """Show a download on stderr until it ends, and return it; Ctrl-C pauses it and exits with 4, unless the app
    downloads it. paused: printed after Ctrl-C. Raises ModelError if it does not complete."""
    line = [""]

    def show(progress: Progress) -> None:
        row = downloads.row(repo, revision)
        text = progress_of(row) if row else ""
        if not quiet and text != line[0]:
            live = sys.stderr.isatty()
            print(written_over(line[0], text) if live else text, end="" if live else "\n", file=sys.stderr, flush=True)
            line[0] = text

    try:
        row = downloads.follow(repo, revision, show)
    except KeyboardInterrupt:
        if owner.app_lives(downloads.workspace):  # the app continues the download
            raise
        downloads.pause(repo, revision)
        say(paused)
        raise typer.Exit(4) from None
    if line[0] and sys.stderr.isatty():
        print(file=sys.stderr)
    if row is None or row.state == "paused":
        raise ModelError("downloads.left", repo=repo.removeprefix(PAGES))
    if row.state == "failed" and row.message:
        raise ModelError(row.message)
    return row


def _name_in_list(local_models: Models, name: str) -> str:
    """Return the name of a model, or of a part of a data set, in the list of downloads. Raises ModelError."""
    part = PartName.parse(PAGES + name)
    return str(part) if part else local_models.hub_id(name)


@models.command()
def downloads(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """List the downloads: running, paused and failed."""
    rows = Models(Workspace.open(workspace)).downloads().rows()
    if as_json:
        print_json(in_words({"downloads": [download_json(row) for row in rows]}))
        return
    for row in rows:
        print(row_of(row.name, progress_of(row)))
        if row.message:
            say(row.message)
    if not rows:
        say(msg("models.no_downloads"))


@models.command()
def pause(name: str, revision: RevisionOption = None, workspace: WorkspaceOption = None) -> None:
    """Pause a download, also one started by the app; what was downloaded is kept."""
    local_models = Models(Workspace.open(workspace))
    local_models.downloads().pause(_name_in_list(local_models, name), revision)
    say(msg("models.paused", model=_name_in_list(local_models, name).removeprefix(PAGES)))


@models.command()
def resume(
    name: str, revision: RevisionOption = None, workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Resume a paused or failed download where it stopped."""
    local_models = Models(Workspace.open(workspace))
    local_models.downloads().resume(local_models.hub_id(name), revision)
    download(name, revision, workspace, as_json)


@models.command()
def cancel(name: str, revision: RevisionOption = None, workspace: WorkspaceOption = None) -> None:
    """Cancel a download and delete its partial files; a finished one is only removed from the list."""
    local_models = Models(Workspace.open(workspace))
    local_models.downloads().cancel(_name_in_list(local_models, name), revision)
    say(msg("models.cancelled", model=_name_in_list(local_models, name).removeprefix(PAGES)))


@models.command()
def delete(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a model from the Hub cache (shared with other programs), unless a run needs it."""
    space = Workspace.open(workspace)
    repo = Models(space).hub_id(name)
    if not yes and not _deletion_confirmed(repo):
        say(msg("models.not_deleted", model=repo))
        raise typer.Exit(1)
    freed = on_disk.delete(repo, Runs(space).uses())
    if as_json:
        print_json({"deleted": repo, "freed_bytes": freed})
    else:
        say(msg("models.deleted", model=repo, freed=size_in_words(freed)))


def _deletion_confirmed(repo: str) -> bool:
    """Ask on the terminal for the model's name; without a terminal, or for any other input, False."""
    try:
        return (
            sys.stdin.isatty()
            and input(msg("models.ask_delete", model=repo).render(terminal_language())).strip() == repo
        )
    except EOFError:  # Windows' null device is a terminal to isatty
        return False


# --- how it is shown
def row_of(name: str, *cells: str) -> str:
    return (
        name + " " * max(1, 46 - width(name)) + "  ".join(cell + " " * max(0, 10 - width(cell)) for cell in cells)
    ).rstrip()


def progress_of(row: Download) -> str:
    """Return a download's state as text, with per cent and size once its total is known, and speed while it runs."""
    state = msg(f"models.state_{row.state}")
    if not row.total:  # the hub was not queried yet, or did not answer
        return state.render(terminal_language())
    total = size_in_words(row.total) if row.unit == "bytes" else msg("hub_set.rows", rows=row.total)
    values = {"state": state, "percent": int(100 * row.done / row.total), "total": total}
    if row.unit == "bytes" and row.state == "running" and row.bytes_per_s and row.seconds_left is not None:
        values |= {"speed": size_in_words(row.bytes_per_s), "minutes": row.seconds_left / 60}
        return msg("models.at_speed", **values).render(terminal_language())
    return msg("models.at", **values).render(terminal_language())


def hub_cells(row: FoundModel) -> list[str]:
    if row.why_not:
        return [row.why_not.render(terminal_language())]
    cells = [f"{row.params / 1e9:.1f}B" if row.params else "", row.license or ""]
    return [*cells, msg("models.gated").render(terminal_language())] if row.gated else cells


def kept_json(row: StoredModel) -> dict[str, object]:
    """Return a stored model as JSON: folder, size, last use, exports that it allows, and runs that use it."""
    uses = [asdict(use) for use in row.uses]
    there = [row.folder / "config.json", *row.folder.glob("snapshots/*/config.json")]
    config = next((config for file in there if (config := files.read_object(file))), None)
    value: dict[str, object] = {"leaves": leaves_json(export_support(config)) if config else None}
    value |= {
        "store": row.store,
        "id": row.id,
        "folder": str(row.folder),
        "bytes": row.size,
        "last_used": row.last_used,
    }
    return value | {"is_whole": row.is_complete, "can_delete": row.can_delete, "uses": uses}


def download_json(row: Download) -> dict[str, object]:
    inner = {"asked", "wanted", "is_first", "said", "phase", "has_room"}
    return row.model_dump(mode="json", exclude=inner) | {"seconds_left": row.seconds_left}


def leaves_json(way: ExportSupport) -> dict[str, object]:
    """Return the formats in which a model can be exported besides its adapter: GGUF and merged, or merged only, and
    why."""
    return {"as": way.best, "why": plain(way.why) if way.why else None}


def shelf_json(matches: Shelf) -> dict[str, object]:
    """Return the models that a search found, with their verdicts, and its remarks, as JSON."""
    rows = [
        {
            "id": row.model.id, "hub": row.model.hub, "title": row.model.title, "billions": row.model.billions,
            "verdict": row.verdict, "method": row.method, "needed_gib": row.needed_gib,
            "download_bytes": row.download_bytes,
            "licence": row.model.licence, "commercial": row.model.commercial, "gate": row.gate,
            "languages": list(row.model.languages), "thinking": row.model.thinking, "tools": row.model.tools,
            "note": row.model.note,
            "leaves": leaves_json(support_of_known(row.model)),
        }
        for row in matches.rows
    ]  # fmt: skip
    return {"rows": rows, "told": [plain(sentence) for sentence in matches.remarks]}
