"""`evaluate`: was fine-tuning needed, and did it work? One table of base, base with a prompt, base with examples and
fine-tuned model, on questions that were not trained on."""

from __future__ import annotations

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from core import files
from core.api import evaluating as api
from core.chat.endpoint import Endpoint
from core.chat.evaluation import model_judge
from core.chat.evaluation.of_run import OF_RUN
from core.chat.evaluation.table import Share, Table
from core.chat.questions import target_of
from core.commands.terminal import (
    JsonOption,
    WorkspaceOption,
    app,
    columns,
    counting,
    in_words,
    print_json,
    say,
)
from core.errors import ChatError
from core.files import JsonObject
from core.messages import Message, msg, terminal_language
from core.runs.all import Runs
from core.runs.cards import benchmarked
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
    show_request = partial(_show_request, send=yes, quiet=as_json)
    with counting(quiet=as_json) as count_answers:
        outcome = api.evaluate(
            run, base=base, data=data, test_set=set_name, file=file, save=save, prompt=prompt, rows=rows, judge=judge,
            contestants=contestants.split(",") if contestants else None, judge_model=model, send=yes,
            on_request=show_request, on_progress=count_answers, workspace=workspace,
        )  # fmt: skip
    result = outcome.as_json()
    print_json(in_words(result)) if as_json else _show(outcome.table, result)
    if outcome.error:
        raise outcome.error
    _fail_below(outcome.best, fail_below)


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
    benchmarked.write(of_run, results := benchmarked.benchmark_results(answer["results"]))
    if as_json:
        print_json([one.model_dump() for one in results])
    else:
        print("\n".join(one.sentence.render(terminal_language()) for one in results))


def _show_request(endpoint: Endpoint, left: model_judge.Missing, send: bool, quiet: bool) -> None:
    """Print what a server as judge is sent, or with --yes would be: the first request, and how many; unless quiet."""
    if left and not quiet:
        print(file=sys.stderr)  # below the line of the progress
        print(json.dumps(model_judge.request_body(endpoint, *left[0]), ensure_ascii=False, indent=1), file=sys.stderr)
        say(msg("judge.leaves" if send else "judge.ask_yes", count=len(left), url=endpoint.url))


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


def _fail_below(best: Share, least: float | None) -> None:
    """Exit with status 1, saying why, if the share of right answers is below least; None: never."""
    if least is not None and (not best.count or best.right / best.count < least):
        say(msg("evaluation.below", label=best.label, right=best.right, count=best.count, percent=round(100 * least)))
        raise typer.Exit(1)
