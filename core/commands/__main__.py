"""The journey without a browser: `python launch.py COMMAND`, which runs `python -m core.commands.__main__ COMMAND`.

`--json` prints one JSON object on stdout and nothing else. A bad argument, file, recipe or name gives one sentence on
stderr and exit status 2, never a traceback. Heavy libraries stay in the worker processes that the commands start.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from filelock import Timeout

from core.advice import plan, run_doctor
from core.advice.recommend import METHOD_NAMES, Advice, recommend
from core.advice.run_doctor import Finding, Planned
from core.data.facts import DataFacts
from core.data.tokenizer import LongExamples
from core.errors import BusyError, GarageError, ModelError, RecipeError, RunError
from core.memory.record import Corrections, MemoryRecord, Rig
from core.messages import Text, terminal_language, text
from core.presets import PRESETS
from core.queue import line_commands
from core.queue.queue import Line
from core.queue.supervisor import spawn_worker
from core.queue.turns import busy
from core.recipe import Recipe
from core.runs import frames, pausing
from core.runs import further as further_runs
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.states import BUSY, TERMINAL, State, may_pause
from core.system.machine import Machine
from core.system.processes import kill_tree
from core.trial.dry_runs import DryRuns, Looked
from core.workspace.folder import Workspace, expand

if TYPE_CHECKING:
    from core.data.preview import Preview

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False, rich_markup_mode=None)

WorkspaceOption = Annotated[Path | None, typer.Option("--workspace", help="Folder for data, models, runs and exports.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Also the training step itself, counted without weights or card.")]
SettingsOption = Annotated[list[str] | None, typer.Option("--set", help="key=value, e.g. train.learning_rate=1e-3")]
EXIT_BY_STATE = {State.COMPLETED: 0, State.STOPPED: 3, State.PAUSED: 4}


def say(message: Text | str) -> None:
    print(message.render(terminal_language()) if isinstance(message, Text) else message, file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def in_words(value: Any) -> Any:
    """JSON values in which each Text also carries its sentence in English."""
    if isinstance(value, dict) and set(value) == {"key", "params"}:
        return value | {"sentence": Text.model_validate(value).render("en")}
    if isinstance(value, dict):
        return {k: in_words(v) for k, v in value.items()}
    return [in_words(v) for v in value] if isinstance(value, list | tuple) else value


# ---- doctor -----------------------------------------------------------------------------------------------------------


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False, port: int = 7860) -> None:
    """Check this PC: interpreter, torch, cards, disk, port; each problem with its fix."""
    from core.system import checkup as checks

    findings = checks.run(Workspace.place(workspace), port)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_json({"ok": healthy, "findings": in_words([finding.model_dump(mode="json") for finding in findings])})
    else:
        language = terminal_language()
        for finding in findings:
            print(f"{'ok ' if finding.ok else '!! '} {finding.found.render(language)}")
            if finding.fix:
                print(f"    {finding.fix.render(language)}")
    raise typer.Exit(0 if healthy else 1)


# ---- data -------------------------------------------------------------------------------------------------------------


def dataset_store(space: Workspace) -> Any:
    from core.data.store import DatasetStore

    return DatasetStore(space.datasets, PRESETS, space.library_folders)


def dataset_id(space: Workspace, source: str, relative_to: Path) -> str:
    """source as an id of the store: an id already, or a file, which is added first (the same file only once)."""
    store = dataset_store(space)
    for candidate in (expand(source), relative_to / source):
        if candidate.is_file():
            return store.import_file(candidate, candidate.stem).id
    store.path(source)  # raises DataError for what is neither
    return source


@app.command()
def inspect(
    data: str,
    model: str | None = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    max_length: int = 512,
    long_examples: Annotated[LongExamples, typer.Option(help="what is done to longer rows")] = "cut",
) -> None:
    """What is in a data file, what is wrong with it by row, and (with --model) what would be learned."""
    from core.data.formats import examples_of, inspect_file

    space = Workspace.open(workspace)
    path = expand(data)
    path = path if path.is_file() else dataset_store(space).path(data)
    report = inspect_file(path)
    learned = None
    if model is not None:
        learned = what_is_learned(space, model, [example for _, example in examples_of(path)], max_length, long_examples)
    if as_json:
        value = {"file": str(path), **report.model_dump(mode="json")}
        print_json(in_words(value | ({"learned": learned} if learned else {})))
        return
    language = terminal_language()
    print(text("command.inspect_summary", format=report.format, rows=report.rows, good=report.good_rows,
               duplicates=report.duplicates, problems=report.problem_count).render(language))  # fmt: skip
    for note in report.notes:
        print(note.render(language))
    for problem in report.problems[:20]:
        print(text("command.problem", row=problem.row or "-", problem=problem.text).render(language))
    if report.problem_count > 20:
        print(text("command.more_problems", count=report.problem_count - 20).render(language))
    if learned:
        print(text("command.inspect_learned", **learned).render(language))


def what_is_learned(space: Workspace, model: str, examples: list, max_length: int, long_examples: LongExamples) -> dict[str, Any]:
    """Token statistics of a data set under a model's tokenizer and template; downloads the model if it must."""
    from core.data.preview import Preview
    from core.data.tokenizer import Tokenizer
    from core.models.library import Models

    folder = Models(space).obtain(model, None, lambda stage, progress: None, lambda: None)
    # Every row, however many: whoever asks in a terminal waits for exact numbers.
    preview = Preview.measure(list(enumerate(examples, 1)), Tokenizer(folder), every_row=True)
    counts = preview.counts(max_length, long_examples)
    return {
        "tokens": counts.tokens,
        "learned": counts.learned,
        "learned_percent": counts.learned_percent,
        "rows_cut": counts.rows_cut,
        "rows_split": counts.rows_split,
        "pieces": counts.pieces,
        "rows_without_answer": counts.rows_dropped,
        "median_length": counts.median,
        "longest": counts.longest,
        "p99_length": counts.p99,
        "max_length": counts.max_length,
    }


# ---- training ---------------------------------------------------------------------------------------------------------


@app.command()
def train(
    recipe: Path,
    settings: SettingsOption = None,
    parent: Annotated[str | None, typer.Option("--from", help="Start from the adapter of this ended run.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    queue: Annotated[bool, typer.Option("--queue", help="Put it in the line of the app instead, and return at once.")] = False,
    at: Annotated[str | None, typer.Option(help="With --queue: not before this time of day, e.g. 23:00.")] = None,
) -> None:
    """Train one run in the foreground. Exit 0 completed, 1 failed, 2 bad recipe, 3 stopped, 4 paused."""
    if at is not None and not queue:
        raise RecipeError("line.no_queue_at")
    from core.recipe import apply_settings, read_yaml

    space = Workspace.open(workspace)
    value = read_yaml(recipe)
    wanted = Recipe.parse(apply_settings(value, settings or []) if isinstance(value, dict) else value, where=recipe.name)
    found = Runs(space).find(parent) if parent else None
    if found:
        wanted = wanted.model_copy(update={"name": wanted.name or further_runs.next_name(found.name)})
    run = prepared(space, wanted, recipe.absolute().parent, as_json, found, queue, at)
    if not queue:
        carry_out(run, space, as_json)


@app.command("further")
def further(
    run: str,
    settings: SettingsOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an ended run further, as a new run that starts from its adapter, with its settings or others. Exit as `train`."""
    from core.recipe import apply_settings

    space = Workspace.open(workspace)
    found = Runs(space).find(run)
    value = further_runs.recipe_of(found).model_dump(mode="json")
    names = {setting.partition("=")[0].strip() for setting in settings or []}
    if "train.num_train_epochs" in names and "train.max_steps" not in names:
        value["train"]["max_steps"] = -1  # who counts in epochs does not mean the parent's steps
    wanted = Recipe.parse(apply_settings(value, settings or []), where=found.name)
    carry_out(prepared(space, wanted, Path.cwd(), as_json, found), space, as_json)


def prepared(
    space: Workspace,
    wanted: Recipe,
    relative_to: Path,
    as_json: bool,
    parent: RunFolder | None,
    queue: bool = False,
    at: str | None = None,
) -> RunFolder:
    """A run of wanted that is about to begin here, or waits in the app's line."""
    from core.models.library import ModelRef, Models
    from core.workspace import writable

    writable.require(space)
    if parent:
        of_parent = further_runs.check(parent)
        further_runs.require_alike(wanted, of_parent, parent.name)
        wanted = further_runs.held_to(wanted, of_parent)
    if ModelRef.parse(wanted.model.id).kind == "library":
        Models(space).library_folder(wanted.model.id)
    source = dataset_id(space, wanted.data.source, relative_to)
    info = dataset_store(space).get(source)
    wanted = wanted.model_copy(update={"data": wanted.data.model_copy(update={"source": source})})
    seen = preview_of(space, wanted)
    made = plan.make(wanted, grounds_of(space, wanted, seen), info.name)
    if not as_json:
        for warning in made.advice.warnings:
            if warning.key not in run_doctor.SAID_OF_PLANS:
                say(warning)
        for finding in run_doctor.before(Planned.of(made.recipe, made.advice, seen)) if seen else ():
            say_finding(finding)
    runs = Runs(space)
    facts = {
        "data": {"id": source, "name": info.name, "sha256": info.sha256, "rows": info.rows},
        "advice": made.advice.model_dump(mode="json"),
        **(further_runs.facts_of(parent) if parent else {}),
    }
    if queue:
        run, said = line_commands.create(space, made.recipe, facts, at)
        print_json(in_words(summary(run, runs.status(run)))) if as_json else say(said)
        if not Line(space).read().app_is_open:
            say(text("line.no_app"))
        return run
    refuse_while_busy(runs)
    return runs.create(made.recipe, "command", facts)


def carry_out(run: RunFolder, space: Workspace, as_json: bool) -> None:
    status = follow(run, space, quiet=as_json)
    report_end(run, status, as_json)
    raise typer.Exit(EXIT_BY_STATE.get(status.state, 1))


@app.command("queue")
def show_queue(
    action: Annotated[line_commands.Action, typer.Argument(help="list, up, down, remove or at with a run; go, hold")] = "list",
    run: Annotated[str | None, typer.Argument(help="A run that waits: its id, or its name.")] = None,
    at: Annotated[str | None, typer.Argument(help="For `at`: a time of day such as 23:00, or now.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """The line of runs that the app trains one after the other; `train RECIPE --queue` puts one in."""
    space = Workspace.open(workspace)
    said = line_commands.act(space, action, run, at)
    if as_json:
        print_json(in_words(line_commands.listing(space)))
        return
    for sentence in said:
        print(sentence.render(terminal_language()))


@app.command()
def pause(run: str, workspace: WorkspaceOption = None) -> None:
    """Ask a run at work, here or in the app, to save where it is and give the device free."""
    found = Runs(Workspace.open(workspace)).find(run)
    state = Runs(Workspace.open(workspace)).status(found).state
    if not may_pause(state):
        raise RunError("run.not_pausable", name=found.name, state=text(f"state.{state.value}"))
    found.ask("pause")
    say(text("command.pause_asked", name=found.name, run=found.id))


@app.command()
def resume(run: str, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Go on with a run that was paused, interrupted or failed, in the foreground. Exit as `train`."""
    space = Workspace.open(workspace)
    runs = Runs(space)
    found = runs.find(run)
    refuse_while_busy(runs)
    runs.queue_again(found, "command")
    status = follow(found, space, quiet=as_json)
    report_end(found, status, as_json)
    raise typer.Exit(EXIT_BY_STATE.get(status.state, 1))


def refuse_while_busy(runs: Runs) -> None:
    if at_work := busy(runs):
        raise BusyError("run.already_training", name=at_work.name)


def preview_of(space: Workspace, wanted: Recipe) -> Preview | None:
    """None where the data or the model cannot be had: the run says why."""
    from core.data import preview
    from core.models.library import Models

    with contextlib.suppress(GarageError):
        data, previews = wanted.data, preview.Previews(dataset_store(space), Models(space))
        return previews.of(data.source, wanted.model.id, data.train_on, data.format)
    return None


def grounds_of(space: Workspace, wanted: Recipe, seen: Preview | None) -> plan.Grounds:
    """What this PC, the model and the data are. What cannot be had is left out: the plan says so, and the run says why."""
    from core.memory import budget
    from core.models.library import Models
    from core.system import machine as hardware

    models, machine = Models(space), hardware.look()
    shape = None
    with contextlib.suppress(GarageError):
        shape = models.shape(wanted.model.id, wanted.model.revision)
    grounds = plan.Grounds(budget.of_machine(machine), shape, corrections=corrections_here(space, machine, wanted.model.id))
    return replace(grounds, data=seen.facts(), examples=seen.examples, repeats=lambda: seen.repeats) if seen else grounds


def follow(run: RunFolder, space: Workspace, quiet: bool) -> Status:
    """Drive the worker of run in the foreground with a progress line; Ctrl-C asks it to pause."""
    process = spawn_worker(space, run)
    runs = Runs(space)
    shown = ""
    while process.poll() is None:
        try:
            line = progress_line(run.status())
            if not quiet and line != shown:
                print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, end="" if sys.stderr.isatty() else "\n", file=sys.stderr)
                shown = line
            time.sleep(0.3 if sys.stderr.isatty() else 1.0)
        except KeyboardInterrupt:
            if run.asked():
                kill_tree(process.pid)
            else:
                say(text("command.pausing", run=run.id))
                run.ask("pause")
    if sys.stderr.isatty() and not quiet:
        print(file=sys.stderr)
    pausing.process_is_gone(run)
    status = runs.status(run)
    if status.state not in TERMINAL | {State.PAUSED}:
        changes = {"state": State.FAILED, "message": text("run.never_started", code=process.returncode)}
        status = status if status.state == State.INTERRUPTED else status.model_copy(update=changes)
        with contextlib.suppress(Timeout), run.lock().acquire(timeout=0):  # held: another process is about it
            run.write_status(status)
    return status


def progress_line(status: Status) -> str:
    language = terminal_language()
    stage = text(f"stage.{status.stage}").render(language)
    if status.stage == "training" and status.total_steps:
        left = f", {status.seconds_left / 60:.1f} min" if status.seconds_left is not None else ""
        return f"{stage} {status.step}/{status.total_steps}{left}"
    if status.progress and status.progress.total:
        return f"{stage} {100 * status.progress.done / status.progress.total:.0f} %"
    return stage


def report_end(run: RunFolder, status: Status, as_json: bool) -> None:
    if as_json:
        print_json(in_words(summary(run, status)))
        return
    for sentence in (status.message, status.advice):
        if sentence:
            say(sentence)
    if status.state == State.FAILED:
        print(run.log_tail(20), file=sys.stderr)
    say(text("command.run_is", run=run.id, folder=run.path))


UNREADABLE = {"step": 0, "total_steps": 0, "last_loss": None, "findings": [], "bytes": 0}  # a run whose recipe cannot be read


def say_finding(finding: Finding) -> None:
    """As the page says it; the remedy as the setting that it is."""
    language = terminal_language()
    settings = " ".join(f"--set {name}={json.dumps(value)}" for name, value in finding.fix.items())
    words = [part.render(language) for part in (finding.evidence, finding.meaning, finding.remedy)]
    say(" ".join(words) + (f" ({settings})" if settings else ""))


def findings_of(run: RunFolder, recipe: Recipe, status: Status, metrics: list[dict[str, Any]]) -> list[Finding]:
    facts = run.facts()
    series = run_doctor.Series.of_records(metrics, run_doctor.measured_rows(facts))
    return run_doctor.of_run(recipe, series, status.state in BUSY, run_doctor.usual_rate(facts))


def summary(run: RunFolder, status: Status) -> dict[str, Any]:
    """What `runs --json` and `train --json` say of a run."""
    try:
        recipe = run.recipe()
    except RecipeError as error:
        return {"run": run.id, "name": run.name, "state": status.state.value, "message": error.text.model_dump()} | UNREADABLE
    metrics = run.all_metrics()
    train_losses = [line.get("loss") for line in metrics if line.get("kind") == "train"]
    eval_losses = [line.get("eval_loss") for line in metrics if line.get("kind") == "eval"]
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
        "parent": (run.facts().get("parent") or {}).get("run"),
        "first_loss": train_losses[0] if train_losses else None,
        "last_loss": train_losses[-1] if train_losses else None,
        "eval_loss": eval_losses[-1] if eval_losses else None,
        "findings": [finding.model_dump(mode="json") for finding in findings_of(run, recipe, status, metrics)],
        "adapter": str(run.adapter) if run.has_adapter() else None,
        "checkpoints": [folder.name for folder in run.checkpoints()],
        "film": str(run.path / frames.FILE) if (run.path / frames.FILE).exists() else None,
        "bytes": run.bytes_used(),
    }


@app.command()
def trust(
    model: str,
    workspace: WorkspaceOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Trust these files without being asked.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Do not trust the model any more.")] = False,
) -> None:
    """Show the Python that a model brings with it, and let exactly these files run when it is loaded."""
    from core.commands.trust import trust as carry_out

    raise typer.Exit(carry_out(Workspace.open(workspace), model, yes, forget))


@app.command()
def runs(
    run: Annotated[str | None, typer.Argument(help="One run: its id, or its name; with what the run doctor finds.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs of the workspace, newest first; or show one."""
    found = Runs(Workspace.open(workspace))
    chosen = [found.find(run)] if run else found.list()
    rows = [summary(each, found.status(each)) for each in chosen]
    if as_json:
        print_json(in_words(rows[0] if run else {"runs": rows}))
        return
    language = terminal_language()
    for row in rows:
        loss = "-" if row["last_loss"] is None else f"{row['last_loss']:.3f}"
        state = text(f"state.{row['state']}").render(language)
        print(
            f"{row['run']:<50} {state:<12} {row['step']}/{row['total_steps']:<6} loss {loss:<8} {row['bytes'] / 1e6:.0f} MB  {row['name']}"
        )
        for finding in row["findings"] if run else ():
            say_finding(Finding.model_validate(finding))
    if not rows:
        say(text("command.no_runs"))


# ---- chat and export --------------------------------------------------------------------------------------------------


@app.command()
def chat(
    run: str,
    prompt: Annotated[str, typer.Option("--prompt", help="What to ask.")],
    base: Annotated[bool, typer.Option("--base", help="Ask the base model too.")] = False,
    checkpoint: str | None = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096)] = 256,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a run's model (or an adapter folder's) one thing, greedily; with --base also the model it was made from."""
    from core.chat.questions import answers, target_of, target_of_adapter

    if not prompt.strip():
        raise RecipeError("command.empty_prompt")
    space = Workspace.open(workspace)
    folder = expand(run).absolute()
    if (folder / "adapter_config.json").is_file():
        target = target_of_adapter(space, folder)
    else:
        target = target_of(Runs(space).find(run), checkpoint)
    result = answers(space, target, [prompt], base, max_new_tokens)[0]
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
    to: Annotated[str, typer.Option("--to", help="adapter, merged, gguf or ollama")],
    quant: Annotated[str | None, typer.Option(help="Precision of a GGUF file: q8_0 or bf16.")] = None,
    checkpoint: str | None = None,
    keep_unproven: Annotated[bool, typer.Option(help="Keep an export that does not prove itself.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a run home: its adapter, a merged model, or a GGUF file; each is loaded again and compared first."""
    from core.export.exports import Exports, ExportStatus, read_result

    def show(status: ExportStatus) -> None:
        if not as_json and status.stage not in shown:
            shown.append(status.stage)
            say(status.stage_text)

    shown: list[str] = []
    space = Workspace.open(workspace)
    exports = Exports(space)
    job = exports.start(Runs(space).find(run), to, quant, checkpoint, keep_unproven)
    try:
        status = job.wait(on_status=show)
    except KeyboardInterrupt:
        say(job.cancel().message or text("export.cancelled"))
        raise typer.Exit(3) from None
    job.process.wait()
    result = read_result(job.folder) if status.state == "done" else None
    if as_json:
        failed = {"passed": False, "message": status.message, "check": status.check}
        value = result.model_dump(mode="json") | {"passed": True, "folder": str(job.folder)} if result else failed
        print_json(in_words(plain(value)))
    elif result:
        check = result.check
        say(text("command.export_proof", adapter=f"{check.mean_loss_adapter:.3f}", export=f"{check.mean_loss_export:.3f}",
                 equal=check.first_tokens_equal, prompts=check.prompts))  # fmt: skip
        for item in check.differences:
            say(text("command.export_difference", prompt=item.prompt, adapter=item.adapter, export=item.export))
        for note in result.notes:
            say(note)
        say(text("command.export_is", folder=job.folder, megabytes=round(result.bytes / 1e6)))
        if command := exports.ollama_command(result):
            say(text("command.ollama", command=command))
    else:
        say(status.message or text("export.went_away"))
    raise typer.Exit(0 if result else 1)


def plain(value: Any) -> Any:
    """value with every pydantic model in it as JSON values."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value


# ---- what fits --------------------------------------------------------------------------------------------------------


@app.command("plan")
def plan_command(
    model: Annotated[str, typer.Option(help="A known model, owner/name, a folder, a config.json, or a size such as 7B.")],
    data: Annotated[str | None, typer.Option(help="A data set or a file; its lengths decide max_length and more.")] = None,
    goal: Annotated[str | None, typer.Option(help="What the model should become better at, such as style.")] = None,
    vram: Annotated[float | None, typer.Option(help="Plan for a card of so many GB, as sold, instead of this PC.")] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What to train a model with on a card, why, and whether it fits; its weights are not downloaded."""
    import platform

    from core.memory import budget
    from core.models.library import Models, shape_of
    from core.presets import goal_of
    from core.system import machine as hardware

    space = Workspace.open(workspace)
    wanted = goal_of(goal) if goal else None
    machine = hardware.look()
    memory = budget.of_machine(machine) if vram is None else budget.planned(vram, platform.system())
    shape, seen = shape_of(Models(space), model), plan_preview(space, model, data) if data else None
    corrections = corrections_here(space, machine, model) if vram is None else None
    advice = recommend(shape, memory, plan_facts(space, model, seen) if seen else None, wanted, corrections=corrections)
    findings = run_doctor.before(Planned.of(advised_recipe(advice), advice, seen)) if seen else []
    counted = counted_dry_run(Models(space), model, advice.setup) if dry_run else None
    if as_json:
        found = [finding.model_dump(mode="json") for finding in findings]
        more = {"findings": found} | ({"dry_run": dry_run_json(counted)} if counted else {})
        print_json(in_words(plan_json(advice) | more))
    else:
        from core.memory.cases import source_of

        for finding in findings:
            say_finding(finding)
        lines = [*plan_page(advice, terminal_language()), "", source_of(shape).render(terminal_language())]
        print("\n".join(lines + (dry_run_lines(counted, advice.arithmetic_gib, terminal_language()) if counted else [])))


def corrections_here(space: Workspace, machine: Machine, model: str) -> Corrections:
    """What runs on this PC measured of model, and of others."""
    from core.memory import budget
    from core.models.library import Models

    return MemoryRecord(space).corrections(Rig.of(machine, budget.best_card(machine)), Models(space).hub_id(model))


def plan_preview(space: Workspace, model: str, data: str) -> Preview:
    """data under model's tokenizer; what has none (a bare size, a config.json) borrows the starter's."""
    from core.data.preview import Previews
    from core.models.library import Models

    models, source = Models(space), dataset_id(space, data, Path.cwd())
    return Previews(dataset_store(space), models).of(source, tokenizer_id(models, model) or "starter")


def plan_facts(space: Workspace, model: str, seen: Preview) -> DataFacts:
    """Token counts of seen; guessed where the tokenizer was borrowed."""
    from core.models.library import Models

    facts = seen.facts()
    borrowed = tokenizer_id(Models(space), model) is None
    return facts.model_copy(update={"exact": False, "estimated": True}) if borrowed else facts


def tokenizer_id(models: Any, model: str) -> str | None:
    """The id of the model whose tokenizer is model's own; None for a bare size or a config.json."""
    from core.models.library import ModelRef

    try:
        return ModelRef.parse(models.hub_id(model)).id
    except ModelError:
        return None


def advised_recipe(advice: Advice) -> Recipe:
    """What the run doctor looks at of an advice."""
    train = {
        "learning_rate": advice.learning_rate,
        "num_train_epochs": advice.num_train_epochs,
        "per_device_train_batch_size": advice.micro_batch,
        "gradient_accumulation_steps": advice.gradient_accumulation,
    }
    return Recipe.parse({"data": {"source": "planned"}, "train": train})


def plan_json(advice: Advice) -> dict[str, Any]:
    """The fields that `plan --json` promises (design, section 7)."""
    value = advice.model_dump(
        mode="json",
        include={
            "method", "r", "lora_alpha", "target_modules", "max_length", "micro_batch", "gradient_accumulation", "learning_rate",
            "num_train_epochs", "planned_steps", "verdict", "reasons", "alternatives", "warnings", "documented", "budget",
        },
    )  # fmt: skip
    terms = {"trainable_params", "idle_gib", "allocated_gib", "on_card_gib", "terms"}
    return value | {"estimate": advice.estimate.model_dump(mode="json", include=terms) if advice.estimate else None}


def plan_page(advice: Advice, language: str) -> list[str]:
    """The recommendation as lines for a terminal: verdict, reasons, memory, what else was weighed, the documented table."""
    from core.presets import vram_table

    def said(key: str, **params: Any) -> str:
        return text(f"advise.page_{key}", **params).render(language)

    settings = {name: getattr(advice, name) for name in ("r", "lora_alpha", "target_modules")}
    lines = [said("head", method=METHOD_NAMES[advice.method], **settings)]
    lines += [reason.text.render(language) for reason in advice.reasons if reason.field in ("verdict", "budget")]
    if advice.warnings:
        lines += ["", said("warnings"), *(f"  ! {warning.render(language)}" for warning in advice.warnings)]
    lines += ["", said("why")]
    for reason in advice.reasons:
        if reason.field not in ("verdict", "budget"):
            value = getattr(advice, reason.field, "")
            shown = f"{value:g}" if isinstance(value, float) else METHOD_NAMES.get(str(value), value)
            lines.append(f"  {reason.field} {shown}".rstrip() + f": {reason.text.render(language)}")
    lines += ["", said("memory")]
    if advice.estimate:
        rows = [text("memory.row", gib=gib, what=text(f"memory.{name}")) for name, gib in advice.estimate.terms.items()]
        lines += [row.render(language) for row in rows]
        lines.append("  " + said("total", on_card=advice.estimate.on_card_gib, needed=advice.estimate.needed_gib))
        if advice.correction:
            lines.append("  " + text("probe.corrected", **advice.correction.model_dump()).render(language))
    else:
        lines.append("  " + said("total_unknown"))
    if advice.alternatives:
        lines += ["", said("alternatives"), *(f"  - {other.text.render(language)}" for other in advice.alternatives)]
    table = vram_table()
    lines += ["", said("table", document=table.document(language)), "  " + columns(said("size"), said("full"), "LoRA", "QLoRA")]
    for row in table.rows:
        cells = (cell.shown[language] for cell in (row.full, row.lora, row.qlora))
        lines.append("  " + columns(row.name, *cells, said("here") if row.name == advice.documented.row else ""))
    return lines + ([f"  {advice.documented.rule.render(language)}"] if advice.documented.rule else [])


def columns(*cells: str) -> str:
    """cells side by side, each 18 columns of a terminal wide, where a Chinese character takes two."""
    wide = [sum(unicodedata.east_asian_width(letter) in "WF" for letter in cell) for cell in cells]
    return "".join(f"{cell:<{18 - extra}}" for cell, extra in zip(cells, wide, strict=True)).rstrip()


@app.command()
def estimate(
    model: Annotated[
        str | None, typer.Option(help="An id, a hub name, a folder, a config.json, a GGUF file, or a size such as 7B.")
    ] = None,
    method: Annotated[Literal["lora", "qlora", "full"], typer.Option()] = "lora",
    r: Annotated[int, typer.Option("--r", min=1, max=4096, help="Rank of the adapter.")] = 8,
    target_modules: Annotated[str, typer.Option(help="all-linear, or names with commas.")] = "all-linear",
    micro_batch: Annotated[int, typer.Option(min=1, max=4096, help="Rows computed at once.")] = 1,
    max_length: Annotated[int, typer.Option(min=1, max=10_000_000, help="Tokens of the longest row.")] = 512,
    supervised_tokens: Annotated[
        int | None, typer.Option(min=0, max=10_000_000, help="The most that one row learns; left out: all of it.")
    ] = None,
    optim: Annotated[Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"], typer.Option()] = "paged_adamw_8bit",
    gradient_checkpointing: bool = True,
    loss: Annotated[
        Literal["supervised", "chunked", "full", "fused", "fast"] | None,
        typer.Option(help="Logits of the learned tokens (ours), in pieces, all at once (hf), never, or in place."),
    ] = None,
    double_quant: Annotated[bool, typer.Option(help="QLoRA: scales of the 4-bit weights in 8 bit.")] = True,
    adapter_dtype: Annotated[Literal["fp32", "bf16"], typer.Option(help="Type of adapter, gradients and torch's states.")] = "fp32",
    attention: Annotated[Literal["sdpa", "eager"], typer.Option(help="eager makes scores of every pair of tokens.")] = "sdpa",
    dora: Annotated[bool, typer.Option("--dora", help="DoRA. rsLoRA changes a factor and no memory.")] = False,
    lora_dropout: Annotated[float, typer.Option(min=0, max=0.99)] = 0.0,
    load_in_8bit: Annotated[bool, typer.Option("--load-in-8bit", help="LoRA on a base in 8 bit (LLM.int8).")] = False,
    stack: Annotated[
        Literal["ours", "hf", "fms", "litgpt", "torchtune"],
        typer.Option(help="Whose training: this project's, plain Hugging Face, or another one's."),
    ] = "ours",
    cases: Annotated[
        Path | None, typer.Option("--csv", help="A CSV file of cases, all answered in one call (docs/memory.md).")
    ] = None,
    dry_run: DryRunOption = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """How much memory a training would need on a card: the arithmetic, and with --dry-run the step itself; nothing is loaded."""
    from core.memory import cases as memory_cases
    from core.memory.arithmetic import Setup
    from core.memory.arithmetic import estimate as memory_of
    from core.models.library import Models, shape_of

    models = Models(Workspace.open(workspace))
    if cases is not None:
        if dry_run:
            raise RecipeError("dry_run.one_model")
        return answer_cases(memory_cases.read(expand(str(cases)), lambda name: shape_of(models, name)), as_json)
    if model is None:
        raise RecipeError("memory.no_model")
    shape = shape_of(models, model)
    setup = Setup(
        method=method, r=r, target_modules=target_modules, micro_batch=micro_batch, max_length=max_length, optim=optim,
        supervised_tokens=supervised_tokens, gradient_checkpointing=gradient_checkpointing, loss=loss, double_quant=double_quant,
        adapter_dtype=adapter_dtype, attention=attention, use_dora=dora, lora_dropout=lora_dropout,
        load_in_8bit=load_in_8bit, stack=stack,
    )  # fmt: skip
    result = memory_of(shape, setup)
    counted = counted_dry_run(models, model, setup) if dry_run else None
    if as_json:
        value = estimate_json(model, shape, setup, result) | ({"dry_run": dry_run_json(counted)} if counted else {})
        print_json(in_words(value))
        return None
    language = terminal_language()
    print(text("memory.heading", model=model, billion=shape.params_billion, million=result.trainable_params / 1e6).render(language))
    print(memory_cases.source_of(shape).render(language))
    for name, gib in result.terms.items():
        print(text("memory.row", gib=gib, what=text(f"memory.{name}")).render(language))
    totals = ("idle_gib", "allocated_gib", "on_card_gib", "needed_gib")
    for name in totals:
        what = text(f"memory.{name}", percent=round(100 * result.margin))
        print(text("memory.row", gib=getattr(result, name), what=what).render(language))
    for doubt in result.low_confidence:
        print(doubt.render(language))
    if counted:
        print("\n".join(dry_run_lines(counted, result.on_card_gib, language)))
    return None


def counted_dry_run(models: Any, model: str, setup: Any) -> Looked:
    """The dry run of a setup, or why there is none; waits for it."""
    from core.models.library import config_of
    from core.trial.dry_run_answer import Question

    runs = DryRuns(Runs(models.workspace).busy)
    try:
        return runs.wait(Question(config=config_of(models, model), setup=setup))
    finally:
        runs.rest()


def dry_run_json(found: Looked) -> dict[str, Any]:
    """What `dry_run` holds: the fields of `estimate`, where the peak was, and how it was found; or why there is none."""
    if found.answer is None:
        return {"why": found.why.model_dump() if found.why else None}
    answer = found.answer
    numbers = answer.estimate.model_dump(
        mode="json", include={"trainable_params", "idle_gib", "allocated_gib", "on_card_gib", "terms"}
    )
    at_peak = {"place": answer.place, "layer": answer.layer, "operation": answer.operation}
    return numbers | {"at_peak": at_peak, "layers_run": list(answer.layers_run), "seconds": answer.seconds}


def dry_run_lines(found: Looked, arithmetic_gib: float | None, language: str) -> list[str]:
    """arithmetic_gib: on the card, by the arithmetic alone."""
    if found.answer is None:
        return [text("dry_run.none", why=found.why or "-").render(language)]
    answer, counted = found.answer, found.answer.estimate
    place = {"where": answer.where, "operation": answer.operation}
    lines = [text("dry_run.row", gib=counted.on_card_gib, allocated=counted.allocated_gib, **place)]
    if arithmetic_gib:
        difference = 100 * (counted.on_card_gib / arithmetic_gib - 1)
        lines.append(text("dry_run.compared", difference=difference, layers=list(answer.layers_run), seconds=answer.seconds))
    return [line.render(language) for line in lines]


def estimate_json(model: str, shape: Any, setup: Any, result: Any) -> dict[str, Any]:
    """The fields that `estimate --json` promises (design, section 7), and what they were counted from."""
    from core.memory.cases import source_of

    counted = {"params": shape.params, "shape_source": shape.source, "shape": source_of(shape).model_dump()}
    numbers = result.model_dump(mode="json") | {"needed_gib": result.needed_gib}
    return {"model": model, **counted, "setup": setup.model_dump(), **numbers}


def answer_cases(found: list[Any], as_json: bool) -> None:
    """Every case of a file: predicted, and where the file says what was measured, by how much that is off."""
    from core.memory import cases as memory_cases

    answers = [case.answer() for case in found]
    summary = memory_cases.summary(answers)
    if as_json:
        lines = [
            {"id": each.case.id, "counter": each.case.counter, "measured_gib": each.case.measured_gib,
             "predicted_gib": each.predicted_gib, "error": each.error,
             **estimate_json(each.case.model, each.case.shape, each.case.setup, each.estimate)}
            for each in answers
        ]  # fmt: skip
        return print_json(in_words({"cases": lines, "summary": summary}))
    language = terminal_language()
    for each in answers:
        print(memory_cases.line(each).render(language))
    for kind, errors in summary.items():
        percent = {name: 100 * errors[name] for name in ("median", "p90", "worst")}
        print(
            text("memory.case_summary", kind=text(f"memory.counter_{kind}"), rows=int(errors["rows"]), **percent).render(language)
        )
    return None


def main(arguments: list[str]) -> int:
    """Exit status of the command; whatever a person can act on is one sentence and 2."""
    try:
        return typer.main.get_command(app)(arguments, prog_name="launch.py", standalone_mode=False) or 0
    except GarageError as error:
        say(error.text)
        return 2
    except typer.Exit as exit_:
        return exit_.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        say(text("command.os_error", reason=error.strerror or str(error), file=error.filename or "-"))
        return 2
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own: a bad option or argument
            raise
        say(text("command.bad_argument", reason=error.format_message()))
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
