"""`chat`, `export` and `recipe`: the results of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from core import files
from core.api.loading import MAX_NEW_TOKENS, load
from core.commands.handing import Receiver
from core.commands.publishing import PublishWish, to_hub
from core.commands.terminal import (
    JsonOption,
    RunArgument,
    WorkspaceOption,
    app,
    in_words,
    plain,
    print_json,
    recipe_of,
    say,
)
from core.errors import GarageError, RecipeError
from core.export.exports import Exports
from core.export.llamacpp import tools
from core.export.records import KINDS, ExportResult, ExportStatus, read_result
from core.messages import Message, msg, terminal_language
from core.recipe import to_yaml
from core.runs.all import Runs
from core.runs.cards import picture, results
from core.workspace import written_recipes
from core.workspace.folder import Workspace, expand


@app.command()
def chat(
    run: Annotated[str, typer.Argument(help="A run (id or name).")],
    prompt: Annotated[str, typer.Option("--prompt", help="The prompt.")],
    base: Annotated[bool, typer.Option("--base", help="Also show the base model's answer.")] = False,
    checkpoint: Annotated[str | None, typer.Option(help="E.g. checkpoint-40. Default: the finished adapter.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Tokens per answer, at most.")] = MAX_NEW_TOKENS,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help="With or without thinking. Default: as it was trained."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one prompt to the model of a run (greedy decoding); with --base also to its base model."""
    if not prompt.strip():
        raise RecipeError("command.empty_prompt")
    with load(run, checkpoint=checkpoint, workspace=workspace) as model:
        if elsewhere := model.client.state().elsewhere:
            say(elsewhere)
        result = model.answers(prompt, base=base, max_new_tokens=max_new_tokens, thinking=thinking)
    if as_json:
        print_json({"chat": model.label, "prompt": prompt, **result})
        return
    if base:
        print(f"[base]  {result['base']}\n")
        print("[tuned] ", end="")
    print(result["tuned"])


@app.command()
def export(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", help="adapter, merged, gguf, ollama, lmstudio or hub.")],
    quant: Annotated[
        str | None, typer.Option(help="Precision of a GGUF file: q4_k_m, q5_k_m, q6_k, q8_0, f16 or bf16.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="E.g. checkpoint-40. Default: the finished adapter.")] = None,
    strength: Annotated[float, typer.Option(help="Adapter strength; 1 is the adapter as it was trained.")] = 1.0,
    keep_unproven: Annotated[bool, typer.Option(help="Keep an export that fails verification.")] = False,
    repo: Annotated[str | None, typer.Option(help="With --to hub: the repository, owner/name.")] = None,
    kind: Annotated[str, typer.Option(help="With --to hub: what to publish: adapter, merged or gguf.")] = "adapter",
    private: Annotated[
        bool, typer.Option("--private/--public", help="With --to hub: the repository's visibility.")
    ] = True,
    film: Annotated[
        bool,
        typer.Option("--film", help="With --to hub: show sample answers on the model card; never rows of the data."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --to hub: publish. Without it, the files are only listed.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a run as adapter, merged model or GGUF file, verified against base and adapter; or publish it on the
    Hub."""

    def say_new_stage(status: ExportStatus) -> None:
        """Print the export's stage on stderr at its first report, unless as_json."""
        if not as_json and status.stage not in shown:
            shown.append(status.stage)
            say(status.stage_text)

    shown: list[str] = []
    space = Workspace.open(workspace)
    exports = Exports(space)
    chosen = Runs(space).find(run)
    if to == "hub":
        return to_hub(
            exports, chosen, PublishWish(repo or "", kind, quant, checkpoint, strength, private, film, yes, as_json)
        )
    if KINDS.get(to) == "gguf" and not as_json and (offer := tools.offer(space)):
        say(offer)
    receiver = Receiver.find(to, space, chosen)
    job = exports.start(chosen, to, quant, checkpoint, keep_unproven, strength)
    try:
        status = job.wait(on_status=say_new_stage)
    except KeyboardInterrupt:
        status = exports.cancel(job.request.name) or job.status()
        say(status.message or msg("export.cancelled"))
        raise typer.Exit(3) from None
    job.process.wait()
    result = read_result(job.folder) if status.state == "done" else None
    value: dict[str, object] = {"passed": False, "message": status.message, "check": status.check}
    if not as_json:
        for sentence in _result_lines(result, job.folder) if result else [status.message or msg("export.went_away")]:
            say(sentence)
    is_done = result is not None
    if result:
        value = result.model_dump(mode="json") | {"passed": True, "folder": str(job.folder)}
        try:
            value |= receiver.hand_over(result, job.folder, as_json)
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
    run: RunArgument,
    drawn: Annotated[
        Path | None, typer.Option("--picture", help="Instead draw its numbers, answers and curve: FILE.svg.")
    ] = None,
    tool: Annotated[written_recipes.Tool | None, typer.Option("--as", help="Print it for this tool.")] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Print a run's recipe, which `train` and the page accept, or draw the run as a picture. Instead of a run: a recipe
    file, also of LLaMA-Factory, axolotl or TRL, with what became of its keys. --as: as a recipe of another tool."""
    is_file = drawn is None and expand(run).is_file()
    folder = None if is_file else Runs(Workspace.open(workspace)).find(run)
    if drawn is None or folder is None:
        shown = results.shared_recipe(folder) if folder else recipe_of(expand(run), [])
        if tool:
            text = written_recipes.write(shown, tool).text(lambda words: words.render(terminal_language()))
        else:
            text = shown.dump() if folder else to_yaml(shown.model_dump(mode="json", exclude_unset=True))
        print(text, end="")
        return
    if drawn.exists():
        raise RecipeError("recipe.picture_exists", file=drawn)
    files.replace(drawn, picture.of_run(folder, lambda words: words.render(terminal_language())))
    print(drawn.absolute())


def _result_lines(result: ExportResult, folder: Path) -> Iterator[Message]:
    """Yield messages on an export: how it was checked, answers that differ, notes, where it is and its size."""
    yield msg("command.export_proof", found=result.check.summary)
    for item in result.check.differences:
        yield msg("command.export_difference", prompt=item.prompt, adapter=item.adapter, export=item.export)
    yield from result.notes
    yield msg("command.export_is", folder=folder, megabytes=round(result.bytes / 1e6))
