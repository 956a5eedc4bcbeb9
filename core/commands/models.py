"""`models`: models on this PC, known models, and their download."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from core import files
from core.advice import shelf
from core.advice.shelf import Shelf
from core.advice.wish import Wish
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, plain, print_json, say, written_over
from core.export.llamacpp.export_support import ExportSupport, export_support, support_of_known
from core.hub import search as hub_search
from core.hub.cached import REPO_ID
from core.hub.download import Report
from core.hub.downloads import Speed
from core.hub.hub_errors import format_size as size_in_words
from core.hub.search import FoundModel
from core.memory import budget
from core.messages import Message, msg, terminal_language
from core.models import on_disk
from core.models.library import Models
from core.models.on_disk import StoredModel
from core.progress import Progress
from core.runs import foreign
from core.runs.all import Runs
from core.system.machine import this_machine
from core.values import width
from core.workspace.folder import Workspace, expand

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
    words: Annotated[
        list[str] | None, typer.Argument(help="In your own words: qwen3 4b, small japanese model. Without any, all.")
    ] = None,
    fits: Annotated[bool, typer.Option("--fits", help="Only models that can be trained on this PC.")] = False,
    vram: Annotated[float | None, typer.Option(help="For a GPU with this many GB of VRAM, as sold.")] = None,
    hub: Annotated[bool, typer.Option("--hub", help="Also search the Hub; needs a network.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search the known models, those that can be trained here first; with --hub also the Hub."""
    machine = this_machine()
    memory = budget.of_machine(machine) if vram is None else budget.planned(vram, machine.system)
    query = " ".join(words or [])
    matches = shelf.find(query, memory, Wish(fits=fits))
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
    """Download a known model, or owner/name from the Hub. Ctrl-C pauses; the same command resumes."""
    local_models = Models(Workspace.open(workspace))
    repo = local_models.hub_id(name)
    with in_foreground(msg("models.paused", model=repo), as_json) as report:
        folder = local_models.download(repo, revision, report, lambda: None)
    if as_json:
        print_json({"repo": repo, "revision": revision or "main", "folder": str(folder)})
    else:
        say(msg("models.is_here", model=repo))


@models.command("bring-in")
def bring_in(
    source: Annotated[str, typer.Argument(help="A PEFT folder, a LoRA in GGUF format, or owner/name on the Hub.")],
    base: Annotated[str, typer.Option(help="Its base model, on this PC. Default: the one that it names.")] = "",
    revision: RevisionOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a finished run of a LoRA adapter that was trained elsewhere: to chat with, compare, evaluate, export, or
    train further."""
    space, folder = Workspace.open(workspace), expand(source).absolute()
    if folder.exists() or not REPO_ID.fullmatch(source):
        run = foreign.from_folder(space, folder, base)
    else:
        with in_foreground(msg("foreign.cancelled"), as_json) as report:
            run = foreign.from_hub(space, source, revision, base, report, lambda: None)
    notes = foreign.notes_of(run)
    if as_json:
        print_json(in_words({"run": run.id, "name": run.name, "folder": str(run.path), "notes": plain(notes)}))
        return
    say(msg("foreign.is_here", name=run.name))
    for note in notes:
        say(note)


@contextmanager
def in_foreground(paused: Message, quiet: bool) -> Iterator[Report]:
    """Context manager: a report that shows a download on stderr, unless quiet. Ctrl-C prints paused and exits with
    4."""
    line, speed, live = "", Speed(), sys.stderr.isatty()

    def show_if_changed(progress: Progress) -> None:
        """Print the download's progress if its line differs from the last one: over that on a terminal, else as a new
        line; nothing if quiet."""
        nonlocal line
        text = progress_of(progress, speed.add(progress.done) if live else None)
        if not quiet and text != line:
            print(written_over(line, text) if live else text, end="" if live else "\n", file=sys.stderr, flush=True)
            line = text

    try:
        yield show_if_changed
    except KeyboardInterrupt:
        say(paused)
        raise typer.Exit(4) from None
    finally:
        if line and live:
            print(file=sys.stderr)


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
    """Return whether the person types the model's name on the terminal when this asks for it. False for other input, or
    without a terminal."""
    try:
        return (
            sys.stdin.isatty()
            and input(msg("models.ask_delete", model=repo).render(terminal_language())).strip() == repo
        )
    except EOFError:  # Windows' null device is a terminal to isatty
        return False


# --- how it is shown
def row_of(name: str, *cells: str) -> str:
    """Return name and cells as a line of columns."""
    return (
        name + " " * max(1, 46 - width(name)) + "  ".join(cell + " " * max(0, 10 - width(cell)) for cell in cells)
    ).rstrip()


def progress_of(progress: Progress, speed: float | None) -> str:
    """Describe a download with per cent and size, and in bytes with speed and minutes left."""
    in_bytes = progress.unit == "bytes"
    total = size_in_words(progress.total) if in_bytes else msg("hub_set.rows", rows=int(progress.total))
    values = {"percent": int(100 * progress.done / progress.total), "total": total}
    if in_bytes and speed:
        values |= {"speed": size_in_words(speed), "minutes": (progress.total - progress.done) / speed / 60}
        return msg("models.at_speed", **values).render(terminal_language())
    return msg("models.at", **values).render(terminal_language())


def hub_cells(row: FoundModel) -> list[str]:
    """Return the cells of a model of the Hub: why it cannot be used, or parameters, licence and gate."""
    if row.why_not:
        return [row.why_not.render(terminal_language())]
    cells = [f"{row.params / 1e9:.1f}B" if row.params else "", row.license or ""]
    return [*cells, msg("models.gated").render(terminal_language())] if row.gated else cells


def kept_json(row: StoredModel) -> dict[str, object]:
    """Return a stored model as a JSON object for `models --json`; reads its config.json.

    Keys: store, id, folder, bytes, last_used (seconds since 1970), is_whole, can_delete, uses (the runs that use it),
    and leaves: the best export besides the adapter, and why no better one; None if no config.json can be read.
    """
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
