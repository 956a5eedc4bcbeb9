"""`chat`, `export` and `recipe`: the results of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from core import files
from core.chat.questions import answer, opened, target_of, target_of_adapter
from core.commands.handing import Receiver
from core.commands.publishing import PublishWish, to_hub
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, plain, print_json, say
from core.errors import ExportError, GarageError, RecipeError
from core.export.exports import Exports
from core.export.llamacpp import tools
from core.export.records import KINDS, ExportResult, ExportStatus, read_result
from core.messages import Message, msg, terminal_language
from core.runs.all import Runs
from core.runs.cards import picture, recipe_card
from core.workspace.folder import Workspace, expand


@app.command()
def chat(
    run: str,
    prompt: Annotated[str, typer.Option("--prompt", help="What to ask.")],
    base: Annotated[bool, typer.Option("--base", help="Ask the base model too.")] = False,
    checkpoint: str | None = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096)] = 256,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Ask it to think first, or not; left out: as it was trained.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a run's model (or an adapter folder's) one thing, greedily; with --base also the model it was made from."""
    if not prompt.strip():
        raise RecipeError("command.empty_prompt")
    space = Workspace.open(workspace)
    folder = expand(run).absolute()
    if (folder / "adapter_config.json").is_file():
        target = target_of_adapter(space, folder)
    else:
        target = target_of(Runs(space).find(run), checkpoint)
    with opened(space, target) as client:
        if elsewhere := client.state().elsewhere:
            say(elsewhere)
        result = answer(client, prompt, base, max_new_tokens, thinking)
    if as_json:
        print_json({"chat": target.label, "prompt": prompt, **result})
        return
    if base:
        print(f"[base]  {result['base']}\n")
        print("[tuned] ", end="")
    print(result["tuned"])


@app.command()
def export(
    run: str,
    to: Annotated[str, typer.Option("--to", help="adapter, merged, gguf, gguf-lora, ollama, lmstudio or hub")],
    quant: Annotated[str | None, typer.Option(help="Precision of a GGUF file: q4_k_m, q5_k_m, q6_k, q8_0, f16 or bf16.")] = None,
    checkpoint: str | None = None,
    strength: Annotated[
        float, typer.Option(help="How much of the adapter the base takes; 1 is all of it, as it was trained.")
    ] = 1.0,
    base_gguf: Annotated[
        Path | None, typer.Option(help="With gguf-lora: your own GGUF file of the base, beside which the adapter is proven.")
    ] = None,
    keep_unproven: Annotated[bool, typer.Option(help="Keep an export that does not prove itself.")] = False,
    repo: Annotated[str | None, typer.Option(help="With --to hub: owner/name.")] = None,
    kind: Annotated[str, typer.Option(help="With --to hub: adapter, merged or gguf.")] = "adapter",
    private: Annotated[bool, typer.Option("--private/--public", help="With --to hub: who sees it.")] = True,
    film: Annotated[
        bool, typer.Option("--film", help="With --to hub: the film's answers on the card, without rows of the data.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --to hub: send it. Without, the files are only listed.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a run home: its adapter, a merged model, or a GGUF file; each is compared with the adapter first."""

    def show(status: ExportStatus) -> None:
        if not as_json and status.stage not in shown:
            shown.append(status.stage)
            say(status.stage_text)

    shown: list[str] = []
    space = Workspace.open(workspace)
    exports = Exports(space)
    chosen = Runs(space).find(run)
    if to == "hub":
        if base_gguf is not None:
            raise ExportError("export.base_gguf")
        return to_hub(exports, chosen, PublishWish(repo or "", kind, quant, checkpoint, strength, private, film, yes, as_json))
    if (KINDS.get(to) or "").startswith("gguf") and not as_json and (offer := tools.offer(space)):
        say(offer)
    receiver = Receiver.find(to, space, chosen)
    job = exports.start(chosen, to, quant, checkpoint, keep_unproven, strength, base_gguf)
    try:
        status = job.wait(on_status=show)
    except KeyboardInterrupt:
        status = exports.cancel(chosen.id, to, quant, checkpoint, strength) or job.status()
        say(status.message or msg("export.cancelled"))
        raise typer.Exit(3) from None
    job.process.wait()
    result = read_result(job.folder) if status.state == "done" else None
    value: dict[str, Any] = {"passed": False, "message": status.message, "check": status.check}
    if not as_json:
        for sentence in _told(result, job.folder) if result else [status.message or msg("export.went_away")]:
            say(sentence)
    is_done = result is not None
    if result:
        value = result.model_dump(mode="json") | {"passed": True, "folder": str(job.folder)}
        try:
            value |= receiver.take(result, job.folder, as_json)
        except GarageError as error:
            is_done = False
            value |= {"message": error.message}
            if not as_json:
                say(error.message)
    if as_json:
        print_json(in_words(plain(value)))
    raise typer.Exit(0 if is_done else 1)


@app.command()
def recipe(
    run: str,
    card: Annotated[
        Path | None,
        typer.Option("--card", help="A file for another PC: the recipe, and what came of it. FILE.svg is a picture of it."),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print a run's recipe, which `train` takes; or write its recipe card, which `train` and the page take too."""
    found = Runs(Workspace.open(workspace)).find(run)
    if card is None:
        print(found.recipe().dump(), end="")
        return
    if card.exists():
        raise RecipeError("recipe.card_exists", file=card)
    if card.suffix.lower() == ".svg":
        files.replace(card, picture.of_run(found, lambda words: words.render(terminal_language())))
        print(card.absolute())
        return
    files.replace(card, recipe_card.of_run(found).dump())
    say(msg("command.card_is", file=card.absolute()))


def _told(result: ExportResult, folder: Path) -> Iterator[Message]:
    """What was compared, and where it is."""
    yield msg("command.export_proof", found=result.check.found)
    for item in result.check.differences:
        yield msg("command.export_difference", prompt=item.prompt, adapter=item.adapter, export=item.export)
    yield from result.notes
    yield msg("command.export_is", folder=folder, megabytes=round(result.bytes / 1e6))
