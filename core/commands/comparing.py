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
from core.errors import ChatError, RecipeError
from core.export import combination
from core.files import JsonObject
from core.messages import Message, msg, terminal_language
from core.recipe import NO_DATA
from core.runs.all import Runs
from core.runs.run_json import Combination, WeightedAdapter
from core.workspace.folder import Workspace


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


@app.command("merge")
def merge(
    adapters: Annotated[
        list[str],
        typer.Argument(help="Two or more runs of one base model, weighted: RUN@0.7 OTHER@0.5 THIRD@checkpoint-40."),
    ],
    combination_type: Annotated[
        str, typer.Option(help=f"PEFT's: {', '.join(combination.METHODS)}. cat is exact, with the sum of all ranks.")
    ] = "cat",
    density: Annotated[float, typer.Option(help="The share of values that ties and dare keep.")] = 0.5,
    majority_sign_method: Annotated[str, typer.Option(help="Of ties: total or frequency.")] = "total",
    svd_rank: Annotated[int | None, typer.Option(help="The rank of svd. Default: the largest of the ranks.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of dare, which drops values at random.")] = 0,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Combine several runs' adapters into one by PEFT's add_weighted_adapter, as a finished run."""
    space = Workspace.open(workspace)
    if any(map(is_base, adapters)):
        raise RecipeError("merge.two")
    named = named_contestants(space, adapters)
    targets = [target_of(Runs(space).get(one.run), one.checkpoint) for one in named]
    parts = [
        WeightedAdapter(folder=str(target.adapter), name=target.label.replace(", ", "@"), weight=one.strength)
        for one, target in zip(named, targets, strict=True)
    ]
    how = Combination(
        adapters=parts, combination_type=combination_type, density=density, svd_rank=svd_rank, seed=seed,
        majority_sign_method=majority_sign_method,
    )  # fmt: skip
    run = combination.as_run(space, how, targets[0].model_id)
    if as_json:
        print_json(in_words({"run": run.id, "name": run.name, "folder": str(run.path)}))
    else:
        say(msg("foreign.is_here", name=run.name))


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
    """Return count questions from the data of the first run in `named` that has some. Raises RecipeError if there is no
    run."""
    runs = [Runs(space).get(one.run) for one in named if one.run]
    if not runs:
        raise RecipeError("compare.no_run")
    with_data = [run for run in runs if run.recipe().data.source != NO_DATA]
    return prompts_of((with_data or runs)[0], dataset_store(space), count)


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
