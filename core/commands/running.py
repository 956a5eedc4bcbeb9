"""`train`, `further`, `pause`, `resume`, `runs`: a run from its recipe to its end, and the list of runs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer
from filelock import Timeout

from core import COMMAND
from core.advice import curve_doctor, plan, run_doctor
from core.advice.case import Grounds
from core.advice.diagnosis import Diagnosis
from core.advice.run_doctor import Planned
from core.commands.data import AcceptGuessOption, AnswerOption, dataset_store, with_imported_data
from core.commands.estimating import memory_corrections
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
from core.data.labels import Learning
from core.data.preview import Preview, Previews
from core.data.reading.choices import Choices
from core.errors import BusyError, GarageError, RecipeError
from core.files import LOOK_S, JsonObject
from core.memory import budget
from core.messages import Message, msg, terminal_language
from core.models.library import ModelRef, Models
from core.queue import queue as line_commands
from core.queue.queue import Queue
from core.queue.supervisor import spawn_worker
from core.queue.turns import busy
from core.recipe import Recipe
from core.runs import further as further_runs
from core.runs import sample_answers
from core.runs.all import Runs
from core.runs.cards import better
from core.runs.folder import RunFolder, Status
from core.runs.measure import measures
from core.runs.reporter import EXIT
from core.runs.run_json import RunFacts
from core.runs.states import BUSY, TERMINAL, State
from core.system import devices
from core.system.awake import KeepAwake
from core.system.gpu import Card, Nvidia
from core.system.machine import this_machine
from core.system.nodes import Nodes
from core.system.processes import kill_tree, own_group, worker_environment
from core.workspace import lease, writable
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
    chosen, settings = parse_cards(cards, cpu, settings or [])
    parsed = recipe_of(recipe, settings)
    parent_run = Runs(space).find(parent) if parent else None
    require_trainable_together(parsed, nodes)
    base = recipe.absolute().parent
    run = prepare_run(space, parsed, base, as_json, parent_run, cpu, queue, at, chosen, answer, accept_guess)
    if not queue:
        carry_out(run, space, as_json, nodes)


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
    chosen, settings = parse_cards(cards, cpu, settings or [])
    names = {setting.partition("=")[0].strip() for setting in settings}
    if "train.num_train_epochs" in names and "train.max_steps" not in names:
        value["train"]["max_steps"] = -1  # with epochs given, the parent's max_steps does not apply
    recipe = Recipe.parse(apply_settings(value, settings), where=parent.name)
    accept_guess |= recipe.data.source == parent.recipe().data.source  # the parent was trained with it
    child = prepare_run(
        space, recipe, Path.cwd(), as_json, parent, cpu, cards=chosen, answer=answer, accept_guess=accept_guess
    )
    carry_out(child, space, as_json)


def parse_cards(option: str | None, cpu: bool, settings: list[str]) -> tuple[list[Card], list[str]]:
    """Return the GPUs that --cards names, and settings with as many ranks; ([], settings) without the option. Raises
    RecipeError for unknown GPUs, or with --cpu."""
    if option is None:
        return [], settings
    if cpu:
        raise RecipeError("device.cards_or_cpu")
    cards = devices.cards_named([word.strip() for word in option.split(",")], devices.read_cards())
    return cards, [*settings, f"train.ranks={len(cards)}"]


def prepare_run(
    space: Workspace,
    recipe: Recipe,
    relative_to: Path,
    as_json: bool,
    parent: RunFolder | None,
    cpu: bool = False,
    queue: bool = False,
    at: str | None = None,
    cards: Sequence[Card] = (),
    answer: str = "",
    accept_guess: bool = False,
) -> RunFolder:
    """Return a new run of recipe that is about to start here, or (queue) that waits in the app's queue: its data is
    imported, open settings are planned, warnings printed. Raises GarageError, also while another run is at work."""
    writable.require(space)
    if parent:
        recipe = further_runs.child_of(recipe, parent)
    if ModelRef.parse(recipe.model.id).kind == "library":
        Models(space).library_folder(recipe.model.id)
    recipe, datasets = with_imported_data(space, recipe, relative_to, answer), dataset_store(space)
    plan.require_decided(datasets, recipe.data, accept_guess)
    preview = preview_of(space, recipe)
    grounds = grounds_of(space, recipe, preview, cpu, cards, continues=parent is not None)
    made = plan.make(recipe, grounds, datasets.get(recipe.data.source).name)
    if not as_json:
        for warning in made.advice.warnings:
            if warning.key not in run_doctor.COVERED_WARNINGS:
                say(warning)
        for finding in run_doctor.before(Planned.from_advice(made.recipe, made.advice, preview)) if preview else ():
            say_finding(finding)
    runs, device = Runs(space), devices.CPU if cpu else budget.device_of(made.advice.budget, devices.read_cards())

    def begin(recipe: Recipe, facts: RunFacts) -> RunFolder:
        if not queue:
            refuse_while_busy(runs)
            return runs.create(recipe, "command", facts)
        run, message = line_commands.create(space, recipe, facts, at)
        print_json(in_words(summary(run, runs.status(run)))) if as_json else say(message)
        if not Queue(space).read().app_is_open:
            say(msg("queue.no_app"))
        return run

    return plan.submit(made, datasets, begin, device, parent)


def require_trainable_together(recipe: Recipe, nodes: Nodes | None) -> None:
    """Raise RecipeError for a recipe that several PCs cannot train."""
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
    cards, _ = parse_cards(option, cpu, [])
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


def carry_out(run: RunFolder, space: Workspace, as_json: bool, nodes: Nodes | None = None) -> None:
    """Train the run in the foreground, report its end, and raise typer.Exit with the code of its state. With nodes,
    first print the other PCs' command."""
    if nodes:
        other = f"{COMMAND} train --nnodes {nodes.count} --node-rank 1 --rdzv-endpoint {nodes.endpoint}"
        say(msg("nodes.type_there", command=other, count=nodes.count - 1))
    status = follow(run, space, quiet=as_json, environment=nodes.environment if nodes else {})
    report_end(run, status, as_json)
    raise typer.Exit(EXIT.get(status.state, 1))


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
    refuse_while_busy(runs)
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


def refuse_while_busy(runs: Runs) -> None:
    """Raise BusyError, with its name, if a run is at work, was started by a command, or is next in the queue of an open
    app."""
    if at_work := busy(runs):
        raise BusyError("run.already_training", name=at_work.name)


def preview_of(space: Workspace, recipe: Recipe) -> Preview | None:
    """Return a preview of the data with its token counts, or None if data or model are missing: the run reports why."""
    data = recipe.data
    with contextlib.suppress(GarageError):
        return Previews(dataset_store(space), Models(space)).get(
            data.source, recipe.model.id, Learning.from_recipe(recipe), data.format, Choices.from_data(data)
        )
    return None


def grounds_of(
    space: Workspace,
    recipe: Recipe,
    preview: Preview | None,
    cpu: bool = False,
    cards: Sequence[Card] = (),
    continues: bool = False,
) -> Grounds:
    """Return the grounds of a plan: this PC, the model and the data.

    Missing parts are left out: the plan mentions it, and the run reports why.
    """
    machine, shape = this_machine(Nvidia() if cpu else None), None
    with contextlib.suppress(GarageError):
        shape = Models(space).shape(recipe.model.id, recipe.model.revision)
    available = budget.of_chosen(cards, machine.nvidia, machine.ram_free_bytes) if cards else budget.of_machine(machine)
    available = budget.of_ranks(available, machine.nvidia, recipe.train.ranks)
    return Grounds.from_preview(
        available, shape, preview, memory_corrections(space, machine, recipe.model.id), continues
    )


def follow(
    run: RunFolder, space: Workspace, quiet: bool, environment: Mapping[str, str] = MappingProxyType({})
) -> Status:
    """Start the worker of run, show a progress line on stderr until it ends, and return the run's status; Ctrl-C
    requests a pause, a second one kills it. A run that its worker left without an end is marked as failed.

    environment: variables for the worker, beside the usual ones.
    """
    process = spawn_worker(space, run, environment)
    runs = Runs(space)
    shown = ""
    while process.poll() is None:
        try:
            line = progress_line(run.status())
            if not quiet and line != shown:
                live = sys.stderr.isatty()
                print(
                    written_over(shown, line) if live else line, end="" if live else "\n", file=sys.stderr, flush=True
                )
                shown = line
            time.sleep(0.3 if sys.stderr.isatty() else 1.0)
        except KeyboardInterrupt:
            if run.requested():
                kill_tree(process.pid)
            else:
                say(msg("command.pausing", run=run.id))
                run.request("pause")
    if sys.stderr.isatty() and not quiet:
        print(file=sys.stderr)
    status = runs.status(run)
    if status.state not in TERMINAL | {State.PAUSED}:
        changes = {"state": State.FAILED, "message": msg("run.never_started", code=str(process.returncode))}
        status = status if status.state == State.INTERRUPTED else status.model_copy(update=changes)
        with (
            contextlib.suppress(Timeout),
            run.lock().acquire(timeout=LOOK_S),
        ):  # on Timeout another process is changing it
            run.write_status(status)
    return status


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
    """Return the object that `runs --json` and `train --json` print for a run: state, steps, losses, settings,
    findings; few of them if its recipe cannot be read."""
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
