"""Evaluations of the page: what a person chose, and one evaluation at a time, in a thread of the app.

Every answer is kept as it arrives (core/chat/evaluation), so whoever stops it, closes the page or ends the app loses
none; the next press goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from core import files
from core.chat.client import ChatClient
from core.chat.comparison import Contestant
from core.chat.contest import answer_missing
from core.chat.evaluation import model_judge, sets, system_prompt
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.of_run import (
    OF_BASE,
    OF_RUN,
    ROWS,
    ROWS_BEFORE,
    contestants_of,
    keep_judge,
    keep_result,
    parents_of,
    table_of,
)
from core.chat.evaluation.sets import TestSet
from core.chat.evaluation.table import judge_for, judge_of_kind, option_of, unsent
from core.data.store import DatasetStore
from core.errors import ChatError, DataError, GarageError
from core.judges.specs import JudgeSpec, ModelJudge
from core.messages import Message, msg
from core.models.library import ModelRef
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.workspace import names
from core.workspace.folder import Workspace

RUN, BASE, SET, DATA = "run:", "base:", "set:", "data:"
STRENGTHS = ("0.25", "0.5", "0.75", "1.25", "1.5")  # that can be compared


@dataclass(frozen=True)
class Choice:
    """The model, questions, contestants and judge that a person chose.

    model: run:<id> or base:<model>. questions: set:<name>, data:<dataset>, whose rows would be trained on, or "" for
    what a run has kept out of training. who: contestants, all without any. also: one more, run:<id> or
    run:<id>@<checkpoint or strength>. prompt: a system prompt, judge: a kind of judge; "" for the proposed one.
    option, judge_model: of judge_of_kind (core/chat/evaluation/table); None as proposed.
    """

    model: str
    questions: str = ""
    who: tuple[str, ...] = ()
    prompt: str = ""
    judge: str = ""
    also: str = ""
    option: str | None = None
    judge_model: str = ""

    @property
    def run_id(self) -> str:
        """The id of the chosen run, "" for a base model."""
        return self.model.removeprefix(RUN) if self.model.startswith(RUN) else ""

    @property
    def offered(self) -> tuple[str, ...]:
        """The contestants that can be chosen: those of a run, or of a base model. A base model has "base+examples"
        only if its questions are those of a dataset, not with a test set, which has no training rows to take
        examples from."""
        examples = [] if self.run_id or self.questions.startswith(DATA) else ["base+examples"]
        return tuple(word for word in (OF_RUN if self.run_id else OF_BASE) if word not in examples)

    def has_same_model_and_questions(self, other: Choice) -> bool:
        """Return whether the other choice has the same model and the same questions; contestants, prompt and judge may
        differ."""
        return (self.model, self.questions) == (other.model, other.questions)

    def is_of(self, evaluation: SetEvaluation) -> bool:
        """Return whether an evaluation is of this choice's model: of its run, or for a base, with that as a
        contestant."""
        if self.run_id:
            return evaluation.run == self.run_id
        return any(one.other == self.model for one in evaluation.lineup.contestants)


@dataclass(frozen=True)
class Ground:
    """The basis of an evaluation: the questions, the training rows if they are known, and what is proposed."""

    test_set: TestSet
    learned: LearnedRows | None
    judge: JudgeSpec
    system: str


@dataclass(frozen=True)
class EvaluationProgress:
    """The newest evaluation of this app. total: 0 while it is prepared; error: why it ended without its result."""

    choice: Choice | None = None
    at_work: bool = False
    done: int = 0
    total: int = 0
    error: Message | None = None


class Evaluating:
    """Evaluations of a run or a base model: its answers, and those of other contestants, to questions with a known
    answer are judged. One evaluation at a time, in a thread of the app; each answer is kept on disk as it arrives."""

    def __init__(self, workspace: Workspace, datasets: DatasetStore, chat: ChatClient):
        self._workspace, self._datasets, self._chat = workspace, datasets, chat
        self._guard, self._stopped = threading.Lock(), threading.Event()
        self._progress = EvaluationProgress()
        self._ground: tuple[object, Ground] | None = None

    def progress(self) -> EvaluationProgress:
        """Return the progress of the newest evaluation of this app, also once it has ended, then with the error if
        there was one."""
        return self._progress

    def start(self, choice: Choice, to_judge: SetEvaluation | None = None) -> None:
        """Begin, in a thread, to write those answers that the evaluation of a choice still lacks. to_judge: an
        evaluation of that choice; its answers are sent to its judge, a model, instead. Raises ChatError while another
        evaluation is at work."""
        with self._guard:
            if self._progress.at_work:
                raise ChatError("evaluation_view.other_at_work")
            self._stopped.clear()
            self._progress = EvaluationProgress(choice, at_work=True)
        threading.Thread(target=self._work, args=(choice, to_judge), name="evaluation", daemon=True).start()

    def stop(self) -> None:
        """End the evaluation after the answers that are being written. If none is at work, do nothing: an answer in
        Chat goes on."""
        if self._progress.at_work:
            self._stopped.set()
            self._chat.stop()

    def basis(self, choice: Choice) -> Ground:
        """Return the basis of an evaluation: its questions, the training rows if they are known, the proposed judge and
        system prompt. The newest one is kept in memory until a file of it changes. Raises GarageError if there is
        nothing to evaluate."""
        source = self._source(choice)
        key = (choice.model, choice.questions, *(files.stamp(path) for path in self._files(choice, source)))
        kept = self._ground
        if kept is None or kept[0] != key:
            self._ground = kept = key, self._read(choice, source)
        return kept[1]

    def _source(self, choice: Choice) -> str:
        """Return the dataset that the chosen run was trained on, or the one that a base model is tried on; "" for a
        base model with a test set. Raises GarageError."""
        if choice.run_id:
            return Runs(self._workspace).get(choice.run_id).recipe().data.source
        return choice.questions.removeprefix(DATA) if choice.questions.startswith(DATA) else ""

    def _files(self, choice: Choice, source: str) -> Iterator[Path]:
        """Yield the files that the basis of an evaluation is read from: of the chosen test set, and of the dataset
        `source` if it is known. A change of one makes the kept basis stale."""
        if choice.questions.startswith(SET):
            yield self._workspace.root / sets.FOLDER / f"{choice.questions.removeprefix(SET)}.jsonl"
        if self._datasets.knows(source):
            path = self._datasets.path(source)
            yield from (path, path.with_name("dataset.json"))

    def _read(self, choice: Choice, source: str) -> Ground:
        """Read the basis of an evaluation: the questions of the chosen test set, else the first ones kept out of
        training in `source`, the dataset ("": none); with the training rows if they are known, and the proposed judge
        and system prompt. Raises GarageError, without questions ChatError."""
        learned, test_set = self._learned(choice, source), None
        if choice.questions.startswith(SET):
            test_set = sets.open_set(self._workspace, choice.questions.removeprefix(SET))
        elif learned is not None:
            title = self._run(choice).name if choice.run_id else source
            test_set = sets.of_sample(source) or sets.create(title, learned.held_out)
            rows = ROWS if choice.run_id else ROWS_BEFORE
            test_set = test_set.model_copy(update={"prompts": test_set.prompts[:rows]})
        if test_set is None:
            raise ChatError("evaluate_page.no_questions")
        judge = judge_for(test_set, learned)
        pairs = learned.pairs if learned else ()
        return Ground(test_set, learned, judge, system_prompt.proposed(pairs, judge))

    def _learned(self, choice: Choice, source: str) -> LearnedRows | None:
        """Return the rows that the chosen run learned, or those of `source` that a base model would be trained on, with
        the rows kept out of training.

        None without a run and a source. If the rows are unknown: None where the questions are a test set, else
        DataError is raised.
        """
        try:
            if choice.run_id:
                return LearnedRows.of_run(self._run(choice), self._datasets, Runs(self._workspace))
            if source:
                model = choice.model.removeprefix(BASE)
                recipe = Recipe.parse({"model": {"id": model}, "data": {"source": source}}, where="form")
                return LearnedRows.of_recipe(recipe, self._datasets)
        except DataError:
            if not choice.questions.startswith(SET):
                raise
        return None

    def _run(self, choice: Choice) -> RunFolder:
        """Return the folder of the run that is chosen. Raises RunError if there is none of this id."""
        return Runs(self._workspace).get(choice.run_id)

    def prepare(self, choice: Choice) -> SetEvaluation:
        """Open or create the evaluation of a choice, write its judge into it, and return it. A combined run is compared
        with the runs it was combined of, too.

        A test set that belongs to no base model yet gets that of the evaluated run. Raises GarageError, also without
        any contestant.
        """
        ground = self.basis(choice)
        system = choice.prompt.strip() or ground.system
        lineup = [*_contestants(choice, system), *self._further(choice)]
        if not lineup:
            raise ChatError("evaluate_page.nobody")
        if choice.run_id:
            lineup += parents_of(self._run(choice), Runs(self._workspace))
        thinking = None if choice.run_id else False
        evaluation = SetEvaluation.prepare(self._workspace, ground.test_set, lineup, ground.learned, thinking)
        keep_judge(self._workspace, evaluation, self.judge(choice, ground))
        if choice.run_id and choice.questions.startswith(SET):
            sets.give_base(self._workspace, choice.questions.removeprefix(SET), self._run(choice).recipe().model.id)
        return evaluation

    def _further(self, choice: Choice) -> Iterator[Contestant]:
        """Yield the further run of a choice, at its end, a checkpoint or a strength. Raises RunError if it is gone."""
        id, _, how = choice.also.removeprefix(RUN).partition("@")
        if not id:
            return
        name = Runs(self._workspace).get(id).name
        one = Contestant(label=f"{name}@{how}" if how else name, run=id)
        if how in STRENGTHS:
            one = one.model_copy(update={"strength": float(how)})
        yield one.model_copy(update={"checkpoint": how}) if how and one.is_as_trained else one

    def judge(self, choice: Choice, ground: Ground) -> JudgeSpec:
        """Return the chosen judge, else the proposed one. Raises GarageError for an unknown kind, or an option that it
        cannot have."""
        is_same_model = not isinstance(ground.judge, ModelJudge) or choice.judge_model in ("", ground.judge.model)
        is_same_option = choice.option in (None, option_of(ground.judge))
        if choice.judge in ("", ground.judge.kind) and is_same_option and is_same_model:
            return ground.judge
        expected = [one.expected for one in ground.test_set.prompts if one.expected]
        return judge_of_kind(choice.judge, expected, choice.option or "", choice.judge_model, ground.judge)

    def _work(self, choice: Choice, to_judge: SetEvaluation | None) -> None:
        """Answer in the thread, and end the progress with the error, if any; a stop is none."""
        error: Message | None = msg("evaluation_view.broken")
        try:
            self._answer(choice, to_judge)
            error = None
        except GarageError as refusal:
            error = None if self._stopped.is_set() else refusal.message
        finally:
            self._progress = replace(self._progress, at_work=False, error=error)

    def _answer(self, choice: Choice, to_judge: SetEvaluation | None) -> None:
        """Write the answers that the evaluation lacks, or send those of to_judge to its judge, and note the progress
        after each; at the end write a short form of the result into the run's folder (`keep_result`). Returns without
        that once the evaluation is stopped."""
        evaluation = to_judge or self.prepare(choice)
        answering = answer_missing(self._chat, self._workspace, evaluation)
        for done, total in self._verdicts(evaluation) if to_judge else answering:
            self._progress = replace(self._progress, done=done, total=total)
            if self._stopped.is_set():
                return
        self.keep_result(choice, evaluation)

    def _verdicts(self, evaluation: SetEvaluation) -> Iterator[tuple[int, int]]:
        """Send those answers of an evaluation to the model that judges it which have no verdict of it yet; yield
        (verdicts done, requests in all) after each. Nothing is sent if the judge is no model. Raises ChatError."""
        table = table_of(evaluation)
        if table and isinstance(spec := table.judge, ModelJudge):
            endpoint, stopped = model_judge.endpoint_of(spec), self._stopped.is_set
            yield from model_judge.ask(self._workspace, endpoint, unsent(evaluation, spec), stopped)

    def keep_result(self, choice: Choice, evaluation: SetEvaluation) -> None:
        """Write a short form of the result into the run's folder, if the choice is of a run on the questions that it
        kept out of training, and all of them are answered; else do nothing."""
        if choice.run_id and not choice.questions and not evaluation.missing() and (table := table_of(evaluation)):
            keep_result(self._run(choice), table)


@lru_cache(maxsize=32)
def newest_of(
    workspace: Workspace, choice: Choice, titles: frozenset[str], stamp: object, is_other: bool = False
) -> SetEvaluation | None:
    """Return the newest evaluation of a choice's model on questions with one of these titles, or with none of them if
    is_other; None without one. The questions of the choice do not matter. stamp: changes with the folder of
    evaluations, so that a cached result is dropped."""
    for one in SetEvaluation.all_of(workspace):
        if choice.is_of(one) and ((one.lineup.test_set or ("",))[0] in titles) != is_other:
            return one
    return None


def tried(workspace: Workspace, choice: Choice) -> Message | None:
    """Return in one sentence what a base model does on a dataset before training; None until it was tried
    completely."""
    stamp = files.stamp(workspace.root / SetEvaluation.FOLDER)
    titles = frozenset([names.display_name(choice.questions.removeprefix(DATA))])
    evaluation = newest_of(workspace, choice, titles, stamp)
    if evaluation is None or evaluation.missing():
        return None
    return table.conclusion() if (table := table_of(evaluation)) else None


def _contestants(choice: Choice, system: str) -> Iterator[Contestant]:
    """Yield the chosen contestants, or all that are offered if none is chosen: the run and its base model (or a base
    model alone), each plain and with the system prompt if that is not "", and the base model with examples.

    Raises ModelError for an invalid base model of a choice without a run.
    """
    ModelRef.parse(choice.model.removeprefix(BASE)) if not choice.run_id else None
    words = [word for word in choice.offered if not choice.who or word in choice.who]
    return contestants_of(words, system, choice.run_id, "" if choice.run_id else choice.model)
