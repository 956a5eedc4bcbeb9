"""`evaluate` as a function: was fine-tuning needed, and did it work? Answers of base and tuned model, judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from core.api.contestants import generate_answers, named_contestants
from core.api.datasets import dataset_id, dataset_store
from core.chat.comparison import Contestant
from core.chat.endpoint import Endpoint
from core.chat.evaluation import model_judge, sets, system_prompt
from core.chat.evaluation.evaluation import EXAMPLES, SetEvaluation
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.model_judge import Missing
from core.chat.evaluation.of_run import (
    OF_BASE,
    OF_RUN,
    ROWS,
    ROWS_BEFORE,
    contestants_of_run,
    earlier_table,
    keep_judge,
    keep_result,
    parents_of,
)
from core.chat.evaluation.table import Share, Table, judge_for, judge_of_kind, unsent
from core.errors import ChatError, DataError, RecipeError
from core.files import JsonObject
from core.judges.specs import JudgeSpec, ModelJudge
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace


@dataclass(frozen=True)
class EvaluatedAnswers:
    """The judged answers of an evaluation. notes: on the data that it used. error: with which a server as judge ended;
    the verdicts that had arrived are in the table."""

    table: Table
    notes: tuple[Message, ...] = ()
    error: ChatError | None = None

    @property
    def conclusion(self) -> str:
        """One sentence on whether fine-tuning was needed; "" without answers of the base model."""
        return str(self.table.conclusion() or "")

    @property
    def best(self) -> Share:
        """The share of right answers of the fine-tuned model; without one that of the best contestant."""
        table = self.table
        places = range(len(table.contestants)) if table.tuned is None else [table.tuned]
        return max((table.share(place) for place in places), key=lambda share: share.right)

    def as_json(self) -> JsonObject:
        """Return what `evaluate --json` prints: contestants' shares, rows with verdicts, what was lost since an earlier
        evaluation, conclusion and notes."""
        table, evaluation, lineup = self.table, self.table.evaluation, self.table.evaluation.lineup
        lost, why_not = list[int](), list[Message]()
        if (earlier := earlier_table(Workspace(evaluation.path.parents[2]), table)) is not None:
            lost, other = table.lost(earlier)
            why_not += [other] if other else []
        conclusion, shares = table.conclusion(), [table.share(place) for place in range(len(lineup.contestants))]
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
            "conclusion": conclusion.model_dump(mode="json") if conclusion else None,
            "notes": [note.model_dump(mode="json") for note in (*self.notes, *table.notes(), *why_not)],
        }


def evaluate(
    run: str | RunFolder | None = None,
    *,
    base: str | None = None,
    data: str | Path | None = None,
    test_set: str | None = None,
    file: Path | None = None,
    save: str | None = None,
    contestants: Sequence[str] | None = None,
    prompt: str | None = None,
    rows: int | None = None,
    judge: str | None = None,
    judge_model: str = "",
    send: bool = False,
    on_request: Callable[[Endpoint, Missing], None] = lambda endpoint, requests: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workspace: str | Path | None = None,
) -> EvaluatedAnswers:
    """Judge answers of the base model, of the base with a prompt and with examples, and of a run, on questions that
    were not trained on. Without a run: of base, on data. The evaluation is kept in the workspace, and the result on
    held-out rows with the run.

    test_set: of the workspace; file: one question a line. save: keep the questions as a test set. prompt: a system
    prompt instead of the proposed one. rows: the first N questions. judge: KIND=OPTION or a server's URL, which is sent
    answers only with send; on_request is called before, with all of them. on_progress(done, total): of the answers,
    then of the judge's. Raises GarageError.
    """
    space = Workspace.open(workspace)
    if (run is None) == (base is None) or (base is None) != (data is None):
        raise RecipeError("evaluation.what")
    of_run = Runs(space).find(run) if isinstance(run, str) else run
    if of_run:
        recipe = of_run.recipe()
    else:  # the default split of data, which is imported if it is a file
        source = dataset_id(space, str(data), Path.cwd())
        recipe = Recipe.parse({"model": {"id": base}, "data": {"source": source}})
    learned, notes = _learned(space, of_run, recipe)
    if of_run and of_run.facts().brought_from and not (test_set or file or (learned and learned.held_out)):
        raise ChatError("merge.no_rows", name=of_run.name)
    chosen_set = _questions(space, (test_set, file), learned, of_run.name if of_run else recipe.data.source, recipe)
    if save is not None:
        chosen_set = sets.save(
            space, sets.create(save, chosen_set.prompts, chosen_set.judge, recipe.model.id if of_run else "")
        )
    count = rows or (None if test_set or file else ROWS if of_run else ROWS_BEFORE)
    chosen_set = chosen_set.model_copy(update={"prompts": chosen_set.prompts[:count]})
    expected = [one.expected for one in chosen_set.prompts if one.expected]
    spec = _judge(judge, judge_model, expected) if judge else judge_for(chosen_set, learned)
    pairs = learned.pairs if learned else ()
    own = prompt if prompt is not None else system_prompt.proposed(pairs, spec)
    if of_run and contestants is None:
        named = [*contestants_of_run(of_run, own), *parents_of(of_run, Runs(space))]
    else:
        named = [_contestant(space, word.strip(), of_run, base, own) for word in contestants or OF_BASE]
    evaluation = SetEvaluation.prepare(space, chosen_set, named, learned, enable_thinking=None if of_run else False)
    keep_judge(space, evaluation, spec)
    generate_answers(space, evaluation, on_progress)
    error = None
    if judge and isinstance(spec, ModelJudge):
        error = _send_to_judge(space, spec, evaluation, send, on_request, on_progress)
    table = Table(evaluation, spec)
    if of_run and test_set:
        sets.give_base(space, test_set, recipe.model.id)
    elif of_run and not file:  # questions that the run kept out of training, as on the page
        keep_result(of_run, table)
    return EvaluatedAnswers(table, tuple(notes), error)


def _send_to_judge(
    space: Workspace,
    spec: ModelJudge,
    evaluation: SetEvaluation,
    send: bool,
    on_request: Callable[[Endpoint, Missing], None],
    on_progress: Callable[[int, int], None],
) -> ChatError | None:
    """Call on_request with what the judge would receive and, with send, send it; not questions with another judge of
    their own. Verdicts that arrived are kept; returns the error that ended it, else None."""
    endpoint, left = model_judge.endpoint_of(spec), unsent(evaluation, spec)
    on_request(endpoint, left)
    try:
        for done, total in model_judge.ask(space, endpoint, left) if send else ():
            on_progress(done, total)
    except ChatError as error:
        return error
    return None


def _judge(name: str, model: str, expected: Sequence[str]) -> JudgeSpec:
    """Return the judge of name: KIND=OPTION, or the URL of a server, with its model. expected: the labels of a judge by
    labels. Raises GarageError."""
    is_server = name.startswith(("http://", "https://"))
    kind, _, option = ("model", "", name) if is_server else name.partition("=")
    return judge_of_kind(kind, expected, option, model)


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
        return sets.read_file(file)
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


def _row(table: Table, number: int) -> JsonObject:
    """Return one question as JSON with each contestant's answer and verdict (None without an answer)."""
    prompt = table.evaluation.lineup.prompts[number]
    cells = list[JsonObject | None]()
    for place in range(len(table.contestants)):
        answer, verdict = table.answers.get((number, place)), table.verdicts.get((number, place))
        judged: JsonObject = {} if verdict is None else verdict.model_dump(mode="json")
        cells.append(None if answer is None else {"text": answer.text, "finish_reason": answer.finish_reason} | judged)
    return {
        "question": prompt.question,
        "expected": prompt.expected,
        "source": prompt.source,
        "tags": prompt.tags,
        "counts": number in table.counted,
        "answers": cells,
    }
