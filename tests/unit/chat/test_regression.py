"""A finished run against the test sets of its base: what an earlier run passed and this one does not is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.api.datasets import dataset_store
from core.chat.evaluation import sets, votes
from core.chat.evaluation.learned_rows import LearnedRows
from core.chat.evaluation.regression import MAX_TESTS, BaseTests
from core.chat.prompts import Prompt
from core.errors import DataError
from core.runs.all import Runs
from core.runs.cards import tested
from core.runs.sample_answers import FrameAnswer
from core.workspace.folder import Workspace
from tests.kit.runs import trained


def prompt_of(question: str, expected: str | None = "yes") -> Prompt:
    return Prompt(turns=({"role": "user", "content": question},), expected=expected)


def answered(tests: BaseTests, *texts: str) -> None:
    tests.keep(40, [FrameAnswer(text=text, why="stop" if text else "time") for text in texts])


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path)


def test_a_test_that_passed_before_and_fails_now_is_named_with_the_run(space: Workspace) -> None:
    earlier = trained(space, "Earlier")
    base = earlier.recipe().model.id
    sets.save(space, sets.create("mine", [prompt_of("One?"), prompt_of("Two?"), prompt_of("Three?")], base=base))
    answered(BaseTests(space, earlier), "yes", "yes", "no")
    later = trained(space, "Later")
    answered(BaseTests(space, later), "no", "yes", "no")
    passed, lost = map(str, tested.sentences(later))
    assert "1 of the 3 tests" in passed and "1 test that Earlier passed fails now: One?" in lost
    third = trained(space, "Third")
    answered(BaseTests(space, third), "no", "no", "")
    assert "Later passed fails now: Two?" in str(tested.sentences(third)[1]), "One? failed in Later already"
    assert "0 of the 2 tests of its base that were judged (of 3)" in str(tested.sentences(third)[0])
    (third.path / tested.FILE).write_text("{", "utf-8")
    assert tested.sentences(third) == []


def test_a_changed_expected_answer_is_another_test(space: Workspace) -> None:
    earlier = trained(space, "Earlier")
    base = earlier.recipe().model.id
    sets.save(space, sets.create("mine", [prompt_of("One?")], base=base))
    answered(BaseTests(space, earlier), "yes")
    sets.save(space, sets.create("mine", [prompt_of("One?", "maybe")], base=base))
    later = trained(space, "Later")
    answered(BaseTests(space, later), "yes")
    assert [sentence.key for sentence in tested.sentences(later)] == ["better.tests"]


def test_only_tests_of_the_base_that_the_run_was_not_trained_on_and_the_newest_of_many(space: Workspace) -> None:
    run = trained(space, "Pirate")
    learned = LearnedRows.of_run(run, dataset_store(space), Runs(space))
    base, (question, _) = run.recipe().model.id, learned.pairs[0]
    sets.save(space, sets.create("other", [prompt_of("Of another base?")], base="some/other"))
    sets.save(space, sets.create("nobody's", [prompt_of("Of none?")]))
    for number in range(MAX_TESTS + 1):
        sets.add_failure(space, base, [{"role": "user", "content": f"{number}?"}], expected="yes")
    sets.add_failure(space, base, [{"role": "user", "content": question}], expected="yes")
    assert [prompt.question for _, prompt in BaseTests(space, run).tests] == [f"{n}?" for n in range(1, MAX_TESTS + 1)]


def test_a_dataset_that_is_gone_ends_no_run(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that is continued, the dataset may be deleted."""
    run = trained(space, "Pirate")
    sets.add_failure(space, run.recipe().model.id, [{"role": "user", "content": "Who?"}], expected="Me.")

    def gone(*_: object) -> None:
        raise DataError("data.unknown", id="x")

    monkeypatch.setattr(LearnedRows, "of_run", gone)
    assert len(BaseTests(space, run).tests) == 1


def test_an_answer_that_a_person_called_bad_is_wrong_when_it_comes_again(space: Workspace) -> None:
    run, turns = trained(space, "Pirate"), [{"role": "user", "content": "Who?"}]
    sets.add_failure(space, run.recipe().model.id, turns, "Nobody.")
    for answer, outcome in (("Nobody.", "wrong"), ("Me.", None)):
        answered(BaseTests(space, run), answer)
        kept = tested.read(run)
        assert kept is not None and [one.outcome for one in kept.answers] == [outcome]
    votes.vote(space, turns, "Me.", "right")
    answered(BaseTests(space, run), "Me.")
    assert "1 of the 1 tests" in str(tested.sentences(run)[0])
