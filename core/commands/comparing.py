"""`compare`: the same prompts for runs, checkpoints, strengths and the base, on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from core.api.contestants import generate_answers, is_base, named_contestants
from core.api.datasets import dataset_store
from core.chat import corrections
from core.chat.comparison import Contestant, PromptComparison, same_beginning
from core.chat.prompts import Prompt, prompts_of, prompts_of_file
from core.chat.questions import target_of
from core.commands.hub_sets import data
from core.commands.terminal import (
    JsonOption,
    WorkspaceOption,
    app,
    counting,
    in_words,
    plain,
    print_json,
    say,
)
from core.errors import ChatError, ModelError, RecipeError
from core.export import weighted_sum
from core.files import JsonObject
from core.messages import Message, msg, terminal_language
from core.runs.all import Runs
from core.workspace.folder import Workspace, expand


@app.command()
def compare(
    contestants: Annotated[
        list[str] | None,
        typer.Argument(
            help=(
                "RUN, RUN@checkpoint-40, RUN@0.8 (adapter strength), RUN@4bit or "
                "RUN@16bit (its base), base (of the first run) or base:MODEL."
            )
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="One prompt per line, or JSONL with prompt and expected. Default: questions from the first run's data."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=1000, help="Number of prompts if --prompts is not given.")] = 10,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Tokens per answer, at most.")] = 256,
    resume: Annotated[str | None, typer.Option(help="The id of an unfinished comparison.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give several runs, checkpoints or bases the same prompts (greedy decoding) and show where their answers first
    differ."""
    space = Workspace.open(workspace)
    if resume is not None:
        comparison = PromptComparison.open(space, resume)
    else:
        named = named_contestants(space, contestants or [])
        chosen_prompts = prompts_of_file(prompts) if prompts else _prompts_of_first(space, named, count)
        comparison = PromptComparison.create(space, chosen_prompts, named, max_new_tokens)
    try:
        with counting(quiet=as_json) as count_answers:
            generate_answers(space, comparison, count_answers)
    except ChatError:
        say(msg("compare.resume", id=comparison.id))
        raise
    result = comparison_json(comparison)
    print_json(in_words(result)) if as_json else _show(result)


@app.command("sum")
def sum_of(
    adapters: Annotated[
        list[str], typer.Argument(help="Two runs with the same base, each weighted: RUN@0.7 OTHER@0.5.")
    ],
    out: Annotated[Path, typer.Option(help="The folder to create, with one adapter in PEFT's format.")],
    rank: Annotated[
        int | None,
        typer.Option(help="Approximate at this rank (svd). Default: exact, with the sum of both ranks (cat)."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the weighted sum of two runs' adapters as one adapter, exactly or at a lower rank."""
    space = Workspace.open(workspace)
    if len(adapters) != 2 or any(map(is_base, adapters)):
        raise RecipeError("summed.two")
    first, second = (
        weighted_sum.WeightedAdapter(
            target_of(Runs(space).get(one.run), one.checkpoint).adapter or Path(), one.strength
        )
        for one in named_contestants(space, adapters)
    )
    folder = expand(str(out))
    try:
        made = weighted_sum.write((first, second), folder, rank)
    except OSError as error:
        raise ModelError("summed.cannot_write", folder=str(folder), reason=error.strerror or str(error)) from error
    print_json({"folder": str(folder), "rank": made}) if as_json else say(
        msg("summed.done", folder=str(folder), rank=made)
    )


@data.command()
def pairs(
    comparison: Annotated[str, typer.Argument(help="The id of a comparison that was judged.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Save a comparison's verdicts as pairs of a better and a worse answer, in the run's dataset of corrections."""
    space = Workspace.open(workspace)
    store, judged = dataset_store(space), PromptComparison.open(space, comparison)
    name = f"Corrections of {corrections.learner(judged).label}"
    info, added = corrections.keep(
        space, store, corrections.answered_by(judged), name, corrections.rows_from_votes(judged)
    )
    if as_json:
        print_json({"id": info.id, "added": added, "rows": info.good_rows})
    else:
        say(msg("corrections.added", added=added, id=info.id, rows=info.good_rows or 0))


def _prompts_of_first(space: Workspace, named: Sequence[Contestant], count: int) -> list[Prompt]:
    """Return count questions from the data of the first run in `named`. Raises RecipeError if there is none."""
    first = next((one.run for one in named if one.run), None)
    if first is None:
        raise RecipeError("compare.no_run")
    return prompts_of(Runs(space).get(first), dataset_store(space), count)


def comparison_json(comparison: PromptComparison) -> JsonObject:
    """Return the object that --json prints: each contestant's counts and speed, each prompt's answers. same_beginning:
    how many characters all answers have in common there. How many answers are right says `evaluate`."""
    lineup, answers = comparison.lineup, comparison.answers()
    by_contestant: list[dict[str, object]] = []
    for place, one in enumerate(lineup.contestants):
        given = [answers[prompt, place] for prompt in range(len(lineup.prompts)) if (prompt, place) in answers]
        seconds = sum(answer.seconds for answer in given)
        by_contestant.append(
            one.model_dump(mode="json")
            | {
                "answers": len(given),
                "tokens": sum(answer.tokens for answer in given),
                "tokens_per_second": round(sum(answer.tokens for answer in given) / seconds, 2) if seconds else None,
            }
        )
    rows, gone = list[dict[str, object]](), comparison.left_out()
    for number, prompt in enumerate(lineup.prompts):
        texts = [
            answers[number, place].text if (number, place) in answers else None
            for place in range(len(lineup.contestants))
        ]
        there = [text for text in texts if text is not None]
        rows.append(
            {"prompt": prompt.question, "source": prompt.source, "expected": prompt.expected, "answers": texts}
            | {"same_beginning": same_beginning(there)}
            | ({"left_out": plain(gone[number])} if number in gone else {})
        )
    return {"comparison": comparison.id, "folder": str(comparison.path), "contestants": by_contestant, "prompts": rows}


def _show(result: JsonObject) -> None:
    """Print each prompt with its answers, then the contestants' figures."""
    for row in result["prompts"]:
        print(f"> {row['prompt']}")
        for one, text in zip(result["contestants"], row["answers"], strict=True):
            print(f"  [{one['label']}] {text}")
        if "left_out" in row:
            print(f"  {Message.model_validate(row['left_out']).render(terminal_language())}")
        print()
    for one in result["contestants"]:
        print(f"[{one['label']}] {one['answers']} answers, {one['tokens']} tokens, {one['tokens_per_second']} tokens/s")
    print(result["folder"])
