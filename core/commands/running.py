"""`train`, `further`, `pause`, `resume`, `runs`: a run from its recipe to its end, and the list of runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from core import COMMAND
from core.advice import curve_doctor
from core.advice.diagnosis import Diagnosis
from core.api import training
from core.commands.data import AcceptGuessOption, AnswerOption
from core.commands.terminal import (
    CardsOption,
    CpuOption,
    JsonOption,
    RunArgument,
    SettingsOption,
    WorkspaceOption,
    app,
    apply_settings,
    in_words,
    print_json,
    progress_line,
    recipe_of,
    say,
    say_finding,
    written_over,
)
from core.errors import RecipeError
from core.files import JsonObject
from core.messages import Message, msg, terminal_language
from core.queue import queue as line_commands
from core.queue.queue import Queue
from core.recipe import Recipe
from core.runs import further as further_runs
from core.runs import sample_answers
from core.runs.all import Runs
from core.runs.cards import better
from core.runs.folder import RunFolder, Status
from core.runs.measure import measures
from core.runs.reporter import EXIT
from core.runs.run_json import RunFacts
from core.runs.states import BUSY, State
from core.system import devices
from core.system.awake import KeepAwake
from core.system.gpu import Card
from core.system.nodes import Nodes
from core.system.processes import kill_tree, own_group, worker_environment
from core.workspace import lease
from core.workspace.folder import Workspace

NodesOption = Annotated[int | None, typer.Option(help="Train on this many PCs together, including this one.")]
EndpointOption = Annotated[str | None, typer.Option(help="HOST:PORT at which the other PCs reach the main PC.")]


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe file (YAML).")] = None,
    settings: SettingsOption = None,
    parent: Annotated[str | None, typer.Option("--from", help="Start from the adapter of this finished run.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    queue: Annotated[bool, typer.Option("--queue", help="Add it to the app's queue and return at once.")] = False,
    at: Annotated[str | None, typer.Option(help="With --queue: not before this time of day, e.g. 23:00.")] = None,
    cpu: CpuOption = False,
    cards: CardsOption = None,
    nnodes: NodesOption = None,
    node_rank: Annotated[int, typer.Option(help="Number of this PC: 0 is the main PC, any other joins its run.")] = 0,
    rdzv_endpoint: EndpointOption = None,
    answer: AnswerOption = "",
    accept_guess: AcceptGuessOption = False,
) -> None:
    """Train one run in the foreground. Exit 0 completed, 1 failed, 2 bad recipe, 3 stopped, 4 paused."""
    if at is not None and not queue:
        raise RecipeError("queue.no_queue_at")
    nodes = Nodes.from_options(nnodes, node_rank, rdzv_endpoint)
    if queue and nodes:
        raise RecipeError("nodes.no_queue")
    space = Workspace.open(workspace)
    if nodes and nodes.rank:
        raise typer.Exit(join_run(space, nodes, cards, cpu))
    if recipe is None:
        raise RecipeError("nodes.no_recipe")
    chosen = training.cards_of(cards, cpu)
    parsed = recipe_of(recipe, [*(settings or []), *ranks_of(chosen)])
    parent_run = Runs(space).find(parent) if parent else None
    require_trainable_together(parsed, nodes)
    base = recipe.absolute().parent
    prepared = training.prepare(space, parsed, base, parent_run, cpu, chosen, answer, accept_guess)
    say_before(prepared, as_json)
    if not queue:
        carry_out(prepared.begin(), space, as_json, nodes)
    run, message = prepared.enqueue(at)
    print_json(in_words(summary(run, Runs(space).status(run)))) if as_json else say(message)
    if not Queue(space).read().app_is_open:
        say(msg("queue.no_app"))


@app.command("further")
def further(
    run: RunArgument,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    cpu: CpuOption = False,
    cards: CardsOption = None,
    answer: AnswerOption = "",
    accept_guess: AcceptGuessOption = False,
) -> None:
    """Continue training a finished run: a new run with its adapter and settings; --set changes them. Exits like
    `train`."""
    space = Workspace.open(workspace)
    parent = Runs(space).find(run)
    value = further_runs.recipe_of(parent).model_dump(mode="json")
    chosen = training.cards_of(cards, cpu)
    settings = [*(settings or []), *ranks_of(chosen)]
    names = {setting.partition("=")[0].strip() for setting in settings}
    if "train.num_train_epochs" in names and "train.max_steps" not in names:
        value["train"]["max_steps"] = -1  # with epochs given, the parent's max_steps does not apply
    recipe = Recipe.parse(apply_settings(value, settings), where=parent.name)
    accept_guess |= recipe.data.source == parent.recipe().data.source  # the parent was trained with it
    prepared = training.prepare(space, recipe, Path.cwd(), parent, cpu, chosen, answer, accept_guess)
    say_before(prepared, as_json)
    carry_out(prepared.begin(), space, as_json)


def ranks_of(cards: Sequence[Card]) -> list[str]:
    """Return the setting with as many ranks as there are chosen GPUs; [] without any."""
    return [f"train.ranks={len(cards)}"] if cards else []


def say_before(prepared: training.PreparedRun, quiet: bool) -> None:
    """Print the warnings and findings of a plan, unless quiet."""
    if not quiet:
        for warning in prepared.warnings:
            say(warning)
        for finding in prepared.findings:
            say_finding(finding)


def require_trainable_together(recipe: Recipe, nodes: Nodes | None) -> None:
    """Raise RecipeError for a recipe that several PCs cannot train; nodes None: one PC, which is always allowed."""
    if nodes is None:
        return
    if recipe.train.fsdp:
        raise RecipeError("fsdp.machines")
    ranks = f"train.ranks={recipe.train.ranks + nodes.count - 1}"
    Recipe.parse(apply_settings(recipe.model_dump(mode="json"), [ranks]), where=recipe.name or "--nnodes")


def join_run(space: Workspace, nodes: Nodes, option: str | None, cpu: bool) -> int:
    """Take part in another PC's run with this PC's GPUs (option: of --cards) and its copy of the base model. Returns
    the exit status."""
    nvidia = devices.read_cards()
    cards = training.cards_of(option, cpu)
    first = cards[0] if cards else None if cpu else devices.best_card(nvidia)
    chosen = [card.uuid or "" for card in cards]
    environment = devices.environment_of(devices.selector_of(first, nvidia), nvidia, len(cards) or 1, chosen)
    agent = [sys.executable, "-m", "core.training.ranks.agent", "--workspace", str(space.root)]
    main = nodes.endpoint
    with lease.hold(space, msg("nodes.lease", main=main)), KeepAwake(lambda: True, lambda how: None):
        say(msg("nodes.reaching", main=main))
        environment = worker_environment() | environment | nodes.environment
        command = [*agent, "--ranks", str(len(cards) or 1)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **own_group())
        try:
            code = process.wait()
        except KeyboardInterrupt:
            kill_tree(process.pid)
            raise
    say(msg("nodes.lost" if code else "nodes.over", main=main))
    return 1 if code else 0


def carry_out(run: RunFolder, space: Workspace, as_json: bool, nodes: Nodes | None = None) -> NoReturn:
    """Train the run in the foreground, report its end, and raise typer.Exit with the code of its state. With nodes,
    first print the other PCs' command."""
    if nodes:
        other = f"{COMMAND} train --nnodes {nodes.count} --node-rank 1 --rdzv-endpoint {nodes.endpoint}"
        say(msg("nodes.type_there", command=other, count=nodes.count - 1))
    status = follow(run, space, as_json, nodes.environment if nodes else {})
    report_end(run, status, as_json)
    raise typer.Exit(EXIT.get(status.state, 1))


def follow(run: RunFolder, space: Workspace, quiet: bool, environment: Mapping[str, str]) -> Status:
    """Train the run with a progress line on stderr until it ends, unless quiet, and return its status."""
    shown, live = "", sys.stderr.isatty()

    def show_if_changed(status: Status) -> None:
        """Print the run's progress if its line differs from the last one: over that on a terminal, else as a new line;
        nothing if quiet."""
        nonlocal shown
        line = progress_line(status)
        if not quiet and line != shown:
            print(written_over(shown, line) if live else line, end="" if live else "\n", file=sys.stderr, flush=True)
            shown = line

    pausing = partial(say, msg("command.pausing", run=run.id))
    status = training.follow(run, space, show_if_changed, pausing, environment, 0.3 if live else training.LOOKS_S)
    if live and not quiet:
        print(file=sys.stderr)
    return status


@app.command("queue")
def show_queue(
    action: Annotated[
        line_commands.Action, typer.Argument(help="list, up, down, remove or at with a run; go, hold")
    ] = "list",
    run: Annotated[str | None, typer.Argument(help="A queued run: its id or name.")] = None,
    at: Annotated[str | None, typer.Argument(help="For `at`: a time of day such as 23:00, or now.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change the queue of runs that the app trains one after another; `train RECIPE --queue` adds one."""
    space = Workspace.open(workspace)
    sentences = line_commands.act(space, action, run, at)
    if as_json:
        print_json(in_words(line_commands.listing(space)))
        return
    for sentence in sentences:
        print(sentence.render(terminal_language()))


@app.command()
def pause(run: RunArgument, workspace: WorkspaceOption = None) -> None:
    """Pause a run, here or in the app: it saves a checkpoint and frees the GPU."""
    runs = Runs(Workspace.open(workspace))
    folder = runs.find(run)
    runs.pause(folder)
    say(msg("command.pause_asked", name=folder.name, run=folder.id))


@app.command()
def resume(
    run: RunArgument,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    ranks: Annotated[int | None, typer.Option(help="Resume on this many GPUs (train.ranks).")] = None,
    nnodes: NodesOption = None,
    rdzv_endpoint: EndpointOption = None,
) -> None:
    """Resume a paused, interrupted or failed run in the foreground. Exits like `train`."""
    space = Workspace.open(workspace)
    runs = Runs(space)
    folder = runs.find(run)
    training.refuse_while_busy(runs)
    if ranks is not None:  # checked as if the recipe had this number
        # as in core.runs.process.recipe_of
        now = [f"train.ranks={ranks}", *(["train.fsdp=false"] if ranks == 1 else [])]
        Recipe.parse(apply_settings(folder.recipe().model_dump(mode="json"), now), where=folder.name)
    nodes = Nodes.from_options(nnodes, 0, rdzv_endpoint)
    require_trainable_together(folder.recipe(), nodes)
    runs.queue_again(folder, "command")
    if ranks is not None:
        folder.add_facts(RunFacts(ranks=ranks))
    carry_out(folder, space, as_json, nodes)


def report_end(run: RunFolder, status: Status, as_json: bool) -> None:
    """Print how the run ended, with what to try and the log's end if it failed; with as_json its summary."""
    if as_json:
        print_json(in_words(summary(run, status)))
        return
    for sentence in (status.message, status.advice):
        if sentence:
            say(sentence)
    if status.state == State.FAILED:
        print(run.log_tail(20), file=sys.stderr)
    say(msg("command.run_is", run=run.id, folder=run.path))


def findings_of(run: RunFolder, recipe: Recipe, status: Status, metrics: list[dict[str, object]]) -> list[Diagnosis]:
    """Return the run doctor's findings from the run's metrics and sample answers."""
    facts = run.facts()
    series = curve_doctor.Series.of_records(metrics, facts.rows_measured or 0, sample_answers.mean_lengths(run))
    return curve_doctor.of_run(recipe, series, status.state in BUSY, facts.planned.usual_rate)


def summary(run: RunFolder, status: Status) -> JsonObject:
    """Return the object that `runs --json` and `train --json` print for a run.

    It has the state, steps, settings, findings, checkpoints and bytes on disk, and the first, last and newest evaluated
    measure: first_loss, last_loss and eval_loss, or first_reward and so on if the recipe has rewards. An unreadable
    recipe leaves the id, name, state and the error as message, with 0, None or [] for step, total_steps, last_loss,
    findings and bytes.
    """
    try:
        recipe = run.recipe()
    except RecipeError as error:
        of_none: dict[str, object] = {"step": 0, "total_steps": 0, "last_loss": None, "findings": [], "bytes": 0}
        return {
            "run": run.id,
            "name": run.name,
            "state": status.state.value,
            "message": error.message.model_dump(),
        } | of_none
    metrics, parent = run.all_metrics(), run.facts().parent
    measure = "reward" if recipe.rewards else "loss"
    trained, evaluated = measures(metrics, "train"), measures(metrics, "eval")
    return {
        "run": run.id,
        "name": run.name,
        "state": status.state.value,
        "step": status.step,
        "total_steps": status.total_steps,
        "message": status.message.model_dump() if status.message else None,
        "method": recipe.adapter.method,
        "r": recipe.adapter.r,
        "model": recipe.model.id,
        "data": recipe.data.source,
        "parent": parent.run if parent else None,
        f"first_{measure}": trained[0] if trained else None,
        f"last_{measure}": trained[-1] if trained else None,
        f"eval_{measure}": evaluated[-1] if evaluated else None,
        "findings": [finding.model_dump(mode="json") for finding in findings_of(run, recipe, status, metrics)],
        "better": [sentence.model_dump(mode="json") for sentence in better.sentences(run)]
        if status.state == State.COMPLETED
        else [],
        "adapter": str(run.adapter) if run.has_adapter() else None,
        "checkpoints": [folder.name for folder in run.checkpoints()],
        "film": str(run.path / sample_answers.FILE) if (run.path / sample_answers.FILE).exists() else None,
        "bytes": run.bytes_used(),
    }


@app.command()
def runs(
    run: Annotated[
        str | None, typer.Argument(help="Show one run (id or name), with the run doctor's findings.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs of the workspace, newest first, or show one."""
    all_runs = Runs(Workspace.open(workspace))
    chosen = [all_runs.find(run)] if run else all_runs.list()
    rows = [summary(each, all_runs.status(each)) for each in chosen]
    if as_json:
        print_json(in_words(rows[0] if run else {"runs": rows}))
        return
    language = terminal_language()
    for row in rows:
        measure = "reward" if "last_reward" in row else "loss"
        value = "-" if row[f"last_{measure}"] is None else f"{row[f'last_{measure}']:.3f}"
        state = msg(f"state.{row['state']}").render(language)
        print(
            f"{row['run']:<50} {state:<12} {row['step']}/{row['total_steps']:<6} {measure} {value:<8} "
            f"{row['bytes'] / 1e6:.0f} MB  {row['name']}"
        )
        for sentence in row["better"] if run else ():
            say(Message.model_validate(sentence))
        for finding in row["findings"] if run else ():
            say_finding(Diagnosis.model_validate(finding))
    if not rows:
        say(msg("command.no_runs"))
