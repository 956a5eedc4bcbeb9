"""`evaluate`: was fine-tuning needed, and did it work? One table of base, base with a prompt, base with examples and
fine-tuned model, on questions that were not trained on."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from core import files
from core.chat.comparison import Contestant
from core.chat.evaluation import model_judge, sets, system_prompt
from core.chat.evaluation.evaluation import EXAMPLES, SetEvaluation
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.of_run import (
    OF_BASE,
    OF_RUN,
    ROWS,
    ROWS_BEFORE,
    contestants_of_run,
    earlier_table,
    keep_judge,
    keep_result,
)
from core.chat.evaluation.table import Table, judge_for, judge_of_kind, unsent
from core.chat.questions import target_of
from core.commands.comparing import generate_answers, named_contestants
from core.commands.data import dataset_id, dataset_store
from core.commands.terminal import (
    JsonOption,
    WorkspaceOption,
    app,
    columns,
    in_words,
    plain,
    print_json,
    progress_on_terminal,
    say,
)
from core.errors import ChatError, DataError, RecipeError
from core.files import JsonObject
from core.judges.specs import JudgeSpec, ModelJudge
from core.messages import Message, msg, terminal_language
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.cards import benchmarked
from core.runs.folder import RunFolder
from core.system import programs
from core.values import width
from core.workspace.folder import Workspace

CELL = 40  # columns of a question or an answer in the table


@app.command()
def evaluate(
    run: Annotated[str | None, typer.Argument(help="A run: its id or name.")] = None,
    base: Annotated[
        str | None, typer.Option(help="Instead of a run: a base model, to try without fine-tuning first.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="The dataset to try it on: an id, or a file.")] = None,
    set_name: Annotated[
        str | None, typer.Option("--set", help="A test set of the workspace. Default: held-out rows.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Questions with `prompt` and `expected`, one JSON object a line.")
    ] = None,
    save: Annotated[str | None, typer.Option(help="Keep the questions as a test set with this name.")] = None,
    contestants: Annotated[
        str | None,
        typer.Option(
            help=(
                f"Default: {','.join(OF_RUN)}. Also RUN@checkpoint-40, RUN@0.5 (adapter strength), base@4bit; "
                "+prompt and +examples can be added to each."
            )
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Your system prompt, instead of the proposed one.")] = None,
    rows: Annotated[int | None, typer.Option(min=1, max=1000, help="The first N questions only.")] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help=(
                f"exact, contains, number=0.5, regex=PATTERN, json=SCHEMA, ...; or a server's URL, up to /v1, with a "
                f"model. API key: {model_judge.KEY}."
            )
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="The judge's model, as its server names it.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Send it. Without, only what would be sent is shown.")] = False,
    fail_below: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit with 1 if a smaller share of the answers is right.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge answers of the base model, of the base with a prompt and with examples, and of the fine-tuned model; say in
    one sentence whether fine-tuning was needed."""
    space = Workspace.open(workspace)
    if (run is None) == (base is None) or (base is None) != (data is None):
        raise RecipeError("evaluation.what")
    of_run = None if run is None else Runs(space).find(run)
    recipe = of_run.recipe() if of_run else _recipe_of(space, base or "", data or "")
    learned, notes = _learned(space, of_run, recipe)
    test_set = _questions(space, (set_name, file), learned, of_run.name if of_run else recipe.data.source, recipe)
    if save is not None:
        named_set = sets.create(save, test_set.prompts, test_set.judge, recipe.model.id if of_run else "")
        test_set = sets.save(space, named_set)
    count = rows or (None if set_name or file else ROWS if of_run else ROWS_BEFORE)
    test_set = test_set.model_copy(update={"prompts": test_set.prompts[:count]})
    expected = [one.expected for one in test_set.prompts if one.expected]
    spec = _judge(judge, model, expected) if judge else judge_for(test_set, learned)
    pairs = learned.pairs if learned else ()
    own = prompt if prompt is not None else system_prompt.proposed(pairs, spec)
    if of_run and contestants is None:
        named = list(contestants_of_run(of_run, own))
    else:
        words = contestants.split(",") if contestants else OF_BASE
        named = [_contestant(space, word.strip(), of_run, base, own) for word in words]
    evaluation = SetEvaluation.prepare(space, test_set, named, learned, enable_thinking=None if of_run else False)
    keep_judge(space, evaluation, spec)
    generate_answers(space, evaluation, as_json)
    why = _send_to_judge(space, spec, evaluation, yes, as_json) if judge and isinstance(spec, ModelJudge) else None
    table = Table(evaluation, spec)
    if of_run and set_name:
        sets.give_base(space, set_name, recipe.model.id)
    elif of_run and not file:  # questions that the run kept out of training, as on the page
        keep_result(of_run, table)
    result = _result(space, table, notes)
    print_json(in_words(result)) if as_json else _show(table, result)
    if why:
        raise why
    _fail_below(table, fail_below)


@app.command()
def benchmark(
    run: Annotated[str, typer.Argument(help="A run: its id or name.")],
    tasks: Annotated[str, typer.Option(help="Tasks of lm-eval. Default: two short ones.")] = "arc_easy,piqa",
    rows: Annotated[int | None, typer.Option(min=1, help="Questions of each task. Default: all.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Tasks of your own: a folder of lm-eval's YAML files.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a run and its base in known benchmarks by lm-eval (pip install lm_eval): did it forget anything?"""
    space = Workspace.open(workspace)
    of_run = Runs(space).find(run)
    target = target_of(of_run)
    request = {
        "model_id": target.model_id, "revision": target.revision, "adapter": str(target.adapter),
        "four_bit": target.four_bit, "eight_bit": target.eight_bit, "tasks": tasks.split(","), "limit": rows,
        "include": str(folder.absolute()) if folder else None,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=space.cache) as work:
        files.replace_json(Path(work) / "request.json", request)
        module, log = "core.chat.evaluation.benchmark_worker", Path(work) / "log"
        paths = [str(space.root), *(str(Path(work) / name) for name in ("request.json", "answer.json"))]
        _, tail = programs.run(["-m", module, *paths], log, lambda: None)
        answer = files.read_object(Path(work) / "answer.json")
    if "results" not in answer:
        refused = answer.get("refused")
        reason = msg("evaluation.benchmark_failed", reason=programs.last_line(tail))
        raise ChatError(Message.model_validate(refused) if refused else reason)
    benchmarked.write(of_run, results := benchmarked.results_of(answer["results"]))
    if as_json:
        print_json([one.model_dump() for one in results])
    else:
        print("\n".join(one.sentence.render(terminal_language()) for one in results))


def _judge(name: str, model: str, expected: Sequence[str]) -> JudgeSpec:
    """Return the judge of name: KIND=OPTION, or the URL of a server, with its model. expected: the labels of a judge by
    labels. Raises GarageError."""
    is_server = name.startswith(("http://", "https://"))
    kind, _, option = ("model", "", name) if is_server else name.partition("=")
    return judge_of_kind(kind, expected, option, model)


def _send_to_judge(
    space: Workspace, spec: ModelJudge, evaluation: SetEvaluation, yes: bool, as_json: bool
) -> ChatError | None:
    """Show on stderr what the judge would receive and, if yes, send it with its progress; not questions with another
    judge of their own. Verdicts that arrived are kept; returns the error that ended it, else None."""
    endpoint, left = model_judge.endpoint_of(spec), unsent(evaluation, spec)
    if left and not as_json:
        print(json.dumps(model_judge.request_body(endpoint, *left[0]), ensure_ascii=False, indent=1), file=sys.stderr)
        say(msg("judge.leaves" if yes else "judge.ask_yes", count=len(left), url=endpoint.url))
    try:
        with progress_on_terminal(quiet=as_json) as show:
            for done, total in model_judge.ask(space, endpoint, left) if yes else ():
                show(msg("compare.progress", done=done, wanted=total))
    except ChatError as error:
        return error
    return None


def _recipe_of(space: Workspace, base: str, data: str) -> Recipe:
    """Return a recipe with the default split for training base on data, which is imported if it is a file."""
    return Recipe.parse({"model": {"id": base}, "data": {"source": dataset_id(space, data, Path.cwd())}})


def _learned(space: Workspace, run: RunFolder | None, recipe: Recipe) -> tuple[LearnedRows | None, list[Message]]:
    """Return the rows that the run was trained on, or without one those that recipe trains on, and []; (None, [a note])
    if the run's dataset cannot be read."""
    store = dataset_store(space)
    if run is None:
        return LearnedRows.of_recipe(recipe, store), []
    try:
        return LearnedRows.of_run(run, store, Runs(space)), []
    except DataError as error:
        why = msg("foreign.no_data") if run.facts().brought_from else error.message
        return None, [msg("evaluation.data_gone", why=why)]


def _questions(
    space: Workspace,
    chosen: tuple[str | None, Path | None],
    learned: LearnedRows | None,
    name: str,
    recipe: Recipe,
) -> sets.TestSet:
    """Return the chosen set or file, else the questions of a sample dataset, else the held-out rows as a set with this
    name. Raises ChatError, also without any question."""
    set_name, file = chosen
    if set_name is not None:
        return sets.open_set(space, set_name)
    if file is not None:
        return sets.import_file(file)
    return sets.of_sample(recipe.data.source) or sets.create(name, learned.held_out if learned else ())


def _contestant(space: Workspace, word: str, run: RunFolder | None, base: str | None, prompt: str) -> Contestant:
    """Return the contestant in a word such as base+prompt, tuned or RUN@0.5+examples, of run or else of base; prompt is
    that of +prompt. Raises ChatError for an unknown one, or without a prompt; RunError for an unknown run."""
    name, *extras = word.split("+")
    while extras and extras[0] not in ("prompt", "examples"):  # a run's name may have a +
        name += "+" + extras.pop(0)
    if not name or any(extra not in ("prompt", "examples") for extra in extras):
        raise ChatError("evaluation.unknown_contestant", found=word[:60], known=",".join(OF_RUN))
    who, _, how = name.partition("@")
    if run is None:
        if who != "base":
            raise ChatError("evaluation.unknown_contestant", found=word[:60], known=",".join(OF_BASE))
        who = f"base:{base}"
    elif who == "tuned":
        who = run.id
    named = [f"{who}@{how}" if how else who] + ([run.id] if run else [])
    one = named_contestants(space, named)[0]
    if "prompt" in extras and not prompt:
        raise ChatError("evaluation.no_prompt")
    return one.model_copy(
        update={
            "label": word,
            "system": prompt if "prompt" in extras else "",
            "examples": EXAMPLES if "examples" in extras else 0,
        }
    )


def _result(space: Workspace, table: Table, notes: Sequence[Message]) -> JsonObject:
    """Return the object that --json prints: contestants' shares, rows with verdicts, what was lost since an earlier
    evaluation, conclusion and notes."""
    evaluation, lineup = table.evaluation, table.evaluation.lineup
    lost, why_not = list[int](), list[Message]()
    if (earlier := earlier_table(space, table)) is not None:
        lost, other = table.lost(earlier)
        why_not += [other] if other else []
    shares = [table.share(place) for place in range(len(lineup.contestants))]
    return {
        "evaluation": evaluation.id,
        "folder": str(evaluation.path),
        "set": dict(zip(("title", "fingerprint"), lineup.test_set or (), strict=False)),
        "judge": table.judge.model_dump(mode="json"),
        "settings": {
            "do_sample": False,
            "max_new_tokens": lineup.max_new_tokens,
            "enable_thinking": lineup.enable_thinking,
        },
        "contestants": [
            asdict(share) | {"interval": share.interval} | one.model_dump(mode="json", exclude={"label"})
            for share, one in zip(shares, lineup.contestants, strict=True)
        ],
        "rows": [_row(table, number) for number in range(len(lineup.prompts))],
        "lost": lost,
        "conclusion": plain(table.conclusion()),
        "notes": [plain(note) for note in (*notes, *table.notes(), *why_not)],
    }


def _row(table: Table, number: int) -> JsonObject:
    """Return one question as JSON with each contestant's answer and verdict (None without an answer)."""
    prompt = table.evaluation.lineup.prompts[number]
    cells = list[JsonObject | None]()
    for place in range(len(table.contestants)):
        answer, verdict = table.answers.get((number, place)), table.verdicts.get((number, place))
        judged: JsonObject = {} if verdict is None else plain(verdict)  # type: ignore[assignment]
        cells.append(None if answer is None else {"text": answer.text, "finish_reason": answer.finish_reason} | judged)
    return {
        "question": prompt.question,
        "expected": prompt.expected,
        "source": prompt.source,
        "tags": prompt.tags,
        "counts": number in table.counted,
        "answers": cells,
    }


def _show(table: Table, result: JsonObject) -> None:
    """Print a mark for each row and contestant, the shares with their intervals, the notes and the conclusion."""
    marks = {"right": "+", "partly": "~", "wrong": "-"}
    language = terminal_language()
    print(columns(*(one.label for one in table.contestants)))
    for row in result["rows"]:
        cells = [marks.get((cell or {}).get("outcome", ""), "?") for cell in row["answers"]]
        print(columns(*cells, ("" if row["counts"] else "* ") + _short(row["question"])))
    print(msg("evaluation.legend").render(language), end="\n\n")
    for share in result["contestants"]:
        low, high = (round(100 * end) for end in share["interval"])
        values = {name: share[name] for name in ("right", "partly", "count", "seconds")}
        print(msg("evaluation.share", label=share["label"], low=low, high=high, **values).render(language))
    lost = [table.evaluation.lineup.prompts[number].question for number in result["lost"]]
    sentences = [Message.model_validate(note) for note in result["notes"]]
    sentences += [msg("evaluation.lost", count=len(lost), questions=[_short(one) for one in lost[:3]])] if lost else []
    sentences += [Message.model_validate(result["conclusion"])] if result["conclusion"] else []
    for sentence in sentences:
        print(sentence.render(language))
    print(result["folder"])


def _short(text: str) -> str:
    """Return text on one line of at most CELL columns, cut with an ellipsis."""
    line = " ".join(text.split())
    while width(line) > CELL:
        line = line[:-2].rstrip() + "…"
    return line


def _fail_below(table: Table, least: float | None) -> None:
    """Exit with status 1, saying why, if the share of right answers of the fine-tuned model, or without one of the
    best, is below least; None: never."""
    if least is None:
        return
    places = range(len(table.contestants)) if table.tuned is None else [table.tuned]
    best = max((table.share(place) for place in places), key=lambda share: share.right)
    if not best.count or best.right / best.count < least:
        say(msg("evaluation.below", label=best.label, right=best.right, count=best.count, percent=round(100 * least)))
        raise typer.Exit(1)
