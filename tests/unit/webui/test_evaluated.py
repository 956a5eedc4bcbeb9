"""An evaluation in the background of the app, and its section on a run's page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.advice import plan
from core.api.datasets import dataset_store
from core.chat.comparison import ComparisonAnswer, Contestant
from core.chat.evaluation.evaluation import SetEvaluation
from core.chat.evaluation.of_run import JUDGE, contestants_of_run
from core.chat.prompts import Prompt
from core.errors import ChatError
from core.judges.specs import JUDGE_SPEC, ExactJudge, JudgeSpec, SimilarityJudge
from core.messages import LANGUAGES, msg
from core.queue.queue import Hold
from core.recipe import Recipe
from core.runs import scenes
from core.runs.all import Runs
from core.runs.cards import evaluated as result_in_short
from core.runs.cards import tested
from core.runs.folder import RunFolder
from core.workspace.folder import Workspace
from tests.kit.chat import Chat
from tests.kit.film import SCENES
from tests.kit.runs import trained
from tests.kit.waits import wait_until
from webui.kit.wording import Wording
from webui.run import better
from webui.run.compare import row_data
from webui.run.evaluated import drawn, evaluation_view, name_of
from webui.state.evaluating import Choice, Evaluating, EvaluationProgress
from webui.state.services import Services


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


@pytest.fixture
def run(space: Workspace) -> RunFolder:
    return trained(space, "Pirates")


class StoppableChat(Chat):
    """Answers until it is stopped; `gate`: what its first answer waits for."""

    def __init__(self, gate: threading.Event, **options: int):
        super().__init__(**options)
        self.gate, self.stopped = gate, 0

    def stop(self) -> None:
        self.stopped += 1
        self.gate.set()

    def _answers(self, questions: object, strength: float) -> Iterator[object]:
        assert self.gate.wait(30)
        yield from super()._answers(questions, strength)


@pytest.fixture
def work(space: Workspace, run: RunFolder) -> Callable[..., tuple[Evaluating, StoppableChat]]:
    def start(**options: int) -> tuple[Evaluating, StoppableChat]:
        chat = StoppableChat(threading.Event(), **options)
        evaluating = Evaluating(space, dataset_store(space), chat)  # type: ignore[arg-type]
        evaluating.start(Choice(f"run:{run.id}"))
        wait_until(lambda: evaluating.progress().total > 0, 30)
        return evaluating, chat

    return start


def finished(evaluating: Evaluating) -> EvaluationProgress:
    wait_until(lambda: not evaluating.progress().at_work, 30)
    return evaluating.progress()


def test_one_evaluation_at_a_time_counts_its_answers(
    work: Callable[..., tuple[Evaluating, StoppableChat]], space: Workspace, run: RunFolder
) -> None:
    evaluating, chat = work()
    assert evaluating.progress().at_work and evaluating.progress().choice == Choice(f"run:{run.id}")
    with pytest.raises(ChatError, match="other_at_work"):
        evaluating.start(Choice(f"run:{run.id}"))
    chat.gate.set()
    ended = finished(evaluating)
    assert (ended.error, ended.done) == (None, ended.total) and ended.total == 20 * 5
    [evaluation] = SetEvaluation.all_of(space)
    assert not evaluation.missing() and (evaluation.path / JUDGE).is_file()
    kept = result_in_short.read(run)
    assert kept is not None and kept.right == (0, 20) and len(kept.contestants) == 5
    [row] = Services.open(space).snapshots.now(fresh=True).rows
    assert "0 of 20 right" in row_data(row, Wording("en"))["about"]


def test_one_that_was_stopped_keeps_its_answers_and_goes_on(
    work: Callable[..., tuple[Evaluating, StoppableChat]], space: Workspace
) -> None:
    evaluating, chat = work()
    evaluating.stop()
    assert finished(evaluating).error is None and chat.stopped == 1
    evaluating.stop()  # of a page that has not seen the end: an answer in Chat goes on
    assert chat.stopped == 1
    [evaluation] = SetEvaluation.all_of(space)
    kept = len(evaluation.answers())
    assert 0 < kept < 100
    again, chat = work()
    chat.gate.set()
    finished(again)
    assert [len(one.answers()) for one in SetEvaluation.all_of(space)] == [100]
    assert len(chat.asked) < 100 - kept + 20, "nothing that was kept is asked again"


def test_a_worker_that_dies_is_a_sentence_and_a_bug_is_one_too(
    work: Callable[..., tuple[Evaluating, StoppableChat]],
    space: Workspace,
    run: RunFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluating, chat = work(questions=3)
    chat.gate.set()
    assert finished(evaluating).error == msg("chat.unloaded")

    monkeypatch.setattr(evaluating, "prepare", lambda choice: 1 / 0)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    evaluating.start(Choice(f"run:{run.id}"))
    assert finished(evaluating).error == msg("evaluation_view.broken")


def evaluated(
    space: Workspace,
    run: RunFolder,
    judge: JudgeSpec,
    texts: list[tuple[str, ...]],
    upto: int | None = None,
    weights: str = "",
) -> Path:
    """An evaluation with these answers of base, examples and fine-tuned to questions whose answer is "yes"."""
    prompts = [
        Prompt(turns=({"role": "user", "content": f"Is {at} < 9?<b>"},), expected="yes") for at in range(len(texts))
    ]
    chosen = [one.model_copy(update={"weights": weights}) for one in contestants_of_run(run, "")]
    evaluation = SetEvaluation.create(space, prompts, chosen, 32, (run.name, "0"))
    (evaluation.path / JUDGE).write_bytes(JUDGE_SPEC.dump_json(judge))
    answers = [(number, place, text) for number, each in enumerate(texts) for place, text in enumerate(each)]
    for number, place, text in answers[:upto]:
        evaluation.add(
            ComparisonAnswer(prompt=number, contestant=place, text=text, tokens=1, seconds=0.1, finish_reason="stop")
        )
    return evaluation.path


def section(space: Workspace, run: RunFolder, progress: EvaluationProgress | None = None, language: str = "en") -> str:
    [row] = Services.open(space).snapshots.now(fresh=True).rows
    return drawn(space, row, progress or EvaluationProgress(), Wording(language))


TEXTS = [("no", "yes", "Yes."), ("yes", "yes", "no"), ("no", "no", "<i>no</i>"), *[("no", "no", "yes")] * 9]


def test_the_section_begins_with_a_button_and_ends_with_a_link_to_the_answers(space: Workspace, run: RunFolder) -> None:
    assert 'data-act="start"' in section(space, run)
    assert f'data-run="{run.id}"' in section(space, run), (
        "a late press is for this run, whatever the page shows by then"
    )
    at_work = EvaluationProgress(Choice(f"run:{run.id}"), True, 3, 12)
    assert "3 of 12 answers" in section(space, run, at_work) and 'data-act="stop"' in section(space, run, at_work)
    other = EvaluationProgress(Choice("run:another"), True, 3, 12)
    assert 'data-act="start"' in section(space, run, other)
    failed = EvaluationProgress(Choice(f"run:{run.id}"), error=msg("chat.unloaded"))
    assert str(msg("chat.unloaded")) in section(space, run, failed).replace("&#x27;", "'")

    evaluated(space, run, ExactJudge(), TEXTS)
    html = section(space, run)
    assert "An answer is right if it is the expected one." in html
    assert "data-act" not in html and f'data-page="evaluate" data-model="run:{run.id}"' in html
    assert [f"({right} of 12)<" in html for right in (1, 2, 10)] == [True] * 3


def test_what_an_earlier_run_had_right_and_this_one_has_not_is_named(space: Workspace, run: RunFolder) -> None:
    before = evaluated(space, run, ExactJudge(), TEXTS, weights="before")
    before.rename(before.with_name("2026-01-01_000000_before_aaaaaa"))  # not in the same second
    assert "an earlier run had right" not in section(space, run)
    worse = [("no", "yes", "no"), ("yes", "yes", "yes"), *TEXTS[2:]]
    evaluated(space, run, ExactJudge(), worse, weights="after")
    html = section(space, run)
    assert "1 question that an earlier run had right is not right now: Is 0 &lt; 9?&lt;b&gt;" in html


def test_answers_that_are_missing_are_counted_beside_the_button(space: Workspace, run: RunFolder) -> None:
    evaluated(space, run, ExactJudge(), TEXTS, upto=30)
    html = section(space, run)
    assert "6 answers are still missing" in html and 'data-act="start"' in html


def test_graded_answers_show_their_mean_and_no_interval(space: Workspace, run: RunFolder) -> None:
    evaluated(space, run, SimilarityJudge(), TEXTS)
    html = section(space, run)
    assert " of 12)" not in html and "<b style" not in html and " %</strong>" in html


def test_a_run_that_waits_in_a_held_queue_is_no_training(
    space: Workspace, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to train, and no run could be evaluated until the queue was empty."""
    services, started = Services.open(space), []
    monkeypatch.setattr(services.evaluating, "start", started.append)
    press = evaluation_view(services, Wording("en"), "", "evaluation").press
    recipe = Recipe.parse({"name": "next one", "data": {"source": "sample:pirate_answers"}})
    Runs(space).create(plan.resolve(recipe, "next one", False), "app")
    assert "next one" in press({"run": run.id, "act": "start"})["notice"] and started == []
    services.queue.put(hold=Hold(why="person", since=0))
    assert press({"run": run.id, "act": "start"}) == {"notice": ""} and started == [Choice(f"run:{run.id}")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_contestant_has_a_name_in_every_language(language: str) -> None:
    names = {
        name_of(Contestant(label=column, run="r", column=column, system=system, examples=examples), Wording(language))
        for column in ("base", "tuned")
        for system in ("", "Briefly.")
        for examples in (0, 5)
    }
    assert len(names) == 8 and not any("evaluation_view" in name for name in names)


def test_tests_that_an_earlier_run_passed_are_named_on_the_result_card_and_counted_in_runs(
    space: Workspace, run: RunFolder
) -> None:
    services, w = Services.open(space), Wording("en")
    answers = [tested.TestedAnswer(set="mine", key=str(at), question=f"<b>{at}?", outcome="wrong", before="Earlier")
               for at in range(2)]  # fmt: skip
    assert "lost" not in row_data(services.snapshots.now(fresh=True).rows[0], w)["about"]
    (run.path / scenes.FILE).write_text(SCENES.model_dump_json(), "utf-8")
    tested.write(run, tested.TestedAnswers(step=4, answers=tuple(answers)))
    snapshot = services.snapshots.now(fresh=True)
    assert "2 tests lost" in row_data(snapshot.rows[0], w)["about"]
    view = services.snapshots.view(run.id)
    html = "".join(better.lines(view, w))
    assert "lg-warn" in html and "2 tests that Earlier passed fail now: &lt;b&gt;0?" in html
