"""The evaluation of a run with its usual contestants, on the questions that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import ValidationError

from core import files
from core.chat.comparison import Contestant
from core.chat.evaluation.evaluation import EXAMPLES, SetEvaluation
from core.chat.evaluation.table import Table
from core.judges.specs import JUDGE_SPEC, JudgeSpec
from core.judges.texts import quoted
from core.messages import Message, msg
from core.runs.all import Runs
from core.runs.cards import evaluated
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace

# Questions. Fewer than 73 cannot show that a prompt does as well, even where all are right.
ROWS = 80
ROWS_BEFORE = 20  # of a base model, before training
# Contestants: the base model, the fine-tuned one, each as it is or with what stands before the question.
OF_BASE = ("base", "base+prompt", "base+examples")
OF_RUN = (*OF_BASE, "tuned", "tuned+prompt")
JUDGE = "judge.json"  # in the evaluation's folder: the spec of its judge (core/judges/specs)


def keep_judge(workspace: Workspace, evaluation: SetEvaluation, judge: JudgeSpec) -> None:
    """Write a judge's spec into the folder of an evaluation, where `table_of` reads it. Raises RunError if the disk
    refuses."""
    with files.writing(workspace.root):
        files.replace(evaluation.path / JUDGE, JUDGE_SPEC.dump_json(judge))


def keep_result(run: RunFolder, table: Table) -> None:
    """Write the table's result in short into the run's folder, for its model card, if it has a conclusion and is that
    of the run's own adapter at full strength."""
    conclusion, places = table.conclusion(), range(len(table.contestants))
    own = None if table.tuned is None else table.contestants[table.tuned]
    if conclusion is None or own is None or own.run != run.id or not own.is_as_trained:
        return
    count = len(table.counted)
    results = [
        evaluated.ContestantResult(
            label=table.contestants[place].label,
            right=table.share(place).right,
            score=round(sum(table.scores(place)) / count, 4),
        )
        for place in places
    ]
    evaluated.write(
        run,
        evaluated.RunEvaluation(
            step=run.facts().adapter_step,
            count=count,
            conclusion=conclusion,
            contestants=tuple(results),
            own=table.contestants.index(own),
        ),
    )


def contestants_of_run(run: RunFolder, system: str) -> Iterator[Contestant]:
    """Yield the base and the run, each also with the system prompt if there is one, and the base with examples."""
    return contestants_of(OF_RUN, system, run.id)


def parents_of(run: RunFolder, runs: Runs) -> Iterator[Contestant]:
    """Yield the runs whose adapters a run was combined of, as contestants; those that are still here."""
    for parent, checkpoint in runs.combined_in(run):
        label = f"{parent.name}@{checkpoint}" if checkpoint else parent.name
        yield Contestant(label=label, run=parent.id, checkpoint=checkpoint)


def contestants_of(words: Iterable[str], system: str, run: str = "", other: str = "") -> Iterator[Contestant]:
    """Yield a contestant for each word, such as "base", "base+examples" or "tuned+prompt" (OF_RUN).

    A word with "+prompt" is skipped if system, the system prompt, is "". run: id of the run to evaluate; other:
    base:<model>, if a base model is evaluated without a run.
    """
    for word in words:
        column, _, extra = word.partition("+")
        if extra != "prompt" or system:
            yield Contestant(
                label=word,
                run=run,
                other=other,
                column="tuned" if column == "tuned" else "base",
                system=system if extra == "prompt" else "",
                examples=EXAMPLES if extra == "examples" else 0,
            )


def newest_evaluation_of(workspace: Workspace, run_id: str) -> SetEvaluation | None:
    """Return the newest evaluation whose first fine-tuned contestant is this run; None without one."""
    return next((evaluation for evaluation in SetEvaluation.all_of(workspace) if evaluation.run == run_id), None)


def table_of(evaluation: SetEvaluation) -> Table | None:
    """Return the verdicts on an evaluation's answers so far; None if its judge cannot be read."""
    try:
        return Table(evaluation, JUDGE_SPEC.validate_json((evaluation.path / JUDGE).read_bytes()))
    except (OSError, ValidationError):
        return None


def earlier_table(workspace: Workspace, table: Table) -> Table | None:
    """Return the newest earlier evaluation of the same test set with another fine-tuned model, judged as table is; None
    without one."""
    place, lineup = table.tuned, table.evaluation.lineup
    if place is None or lineup.test_set is None:
        return None
    for other in SetEvaluation.all_of(workspace):
        if other.lineup.test_set and other.lineup.test_set[0] == lineup.test_set[0] and other.id < table.evaluation.id:
            earlier = Table(other, table.judge)
            earlier_place = earlier.tuned
            if (
                earlier_place is not None
                and earlier.contestants[earlier_place].weights != table.contestants[place].weights
            ):
                return earlier
    return None


def lost_since(workspace: Workspace, table: Table) -> Message | None:
    """Return a sentence with the number of questions that the newest earlier evaluation of this test set with another
    fine-tuned model had right and this one has not, and the first three of them; or one that says why the two cannot be
    compared. None if nothing was lost, or there is no earlier one."""
    earlier = earlier_table(workspace, table)
    lost, why_not = table.lost(earlier) if earlier else ([], None)
    questions = [quoted(table.evaluation.lineup.prompts[number].question) for number in lost[:3]]
    return msg("evaluation.lost", count=len(lost), questions=questions) if lost else why_not
