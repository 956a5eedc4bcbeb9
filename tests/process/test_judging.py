"""The judges of a training by rewards, in their process: the training goes on, or says why not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import PauseRequested, RunError
from core.judges import weighted
from core.runs.judging import MAX_FAILURES, Judging

PAIRS = [('{"answer": 7}', '{"answer": 7}'), ("7", "The answer is 8."), ("7", ""), ("7", "a" * 60 + "!")]


def judging_of(*judges: dict[str, Any], **how: Any) -> Judging:
    return Judging(weighted.read(judges), **how)


@pytest.fixture
def end(request: pytest.FixtureRequest) -> Iterator[list[Judging]]:
    started: list[Judging] = []
    yield started
    for each in started:
        each.close()


def test_scores_are_weighted_and_what_cannot_be_judged_counts_for_nothing(end: list[Judging]) -> None:
    judging = judging_of(
        {"kind": "number", "weight": 2.0}, {"kind": "json"}, {"kind": "regex", "pattern": "answer"}, {"kind": "regex",
        "pattern": "8"},
    )  # fmt: skip
    end.append(judging)
    assert [each.name for each in judging.judges] == ["number", "json", "regex", "regex_2"]
    judged = judging.judge(PAIRS)
    assert judged.scores == [[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert judged.rewards(judging.judges) == [4.0, 2.0, 0.0, 0.0] and not judged.problems
    assert judging.judge([("no number", "7")]).scores[:2] == [[None], [None]]
    judged = judging.judge([("no number", "7 answers")])
    assert judged.problems["number"].key == "judges.no_number" and judged.rewards(judging.judges) == [1.0]
    only = judging_of({"kind": "number"})
    end.append(only)
    assert math.isnan(only.judge([("no number", "7")]).rewards(only.judges)[0])


def test_a_hostile_pattern_is_given_up_and_the_others_judge(end: list[Judging]) -> None:
    judging = judging_of({"kind": "regex", "pattern": "(a|aa)+$"}, {"kind": "length"})
    end.append(judging)
    judged = judging.judge(PAIRS)
    assert judged.scores[0][3] is None and judged.problems["regex"].key == "judges.pattern_slow"
    assert judged.scores[1][3] == 1.0


@pytest.mark.parametrize(
    ("module", "key", "at_last"),
    [
        ("tests.kit.bad_judges", "rewards.judge_slow", "rewards.judge_hung"),
        ("tests.kit.bad_judges_leave", "rewards.judge_ended", "rewards.judge_gave_up"),
    ],
)
def test_a_judge_that_hangs_or_dies_gives_nothing_and_ends_the_run_when_it_does_so_again_and_again(
    module: str, key: str, at_last: str, end: list[Judging]
) -> None:
    judging = judging_of({"kind": "exact"}, module=module, deadline_s=30.0 if "leave" in module else 1.0)
    end.append(judging)
    for _ in range(MAX_FAILURES - 1):
        judged = judging.judge(PAIRS)
        assert judged.scores == [[None] * len(PAIRS)] and judged.problems["exact"].key == key
    with pytest.raises(RunError) as error:
        judging.judge(PAIRS)
    assert error.value.message.key == at_last and "exact" in str(error.value.message)


def test_a_judge_without_an_answer_is_named(end: list[Judging]) -> None:
    judging = judging_of({"kind": "exact"}, module="tests.kit.bad_judges_answer_nothing")
    end.append(judging)
    judged = judging.judge(PAIRS)
    assert judged.scores == [[None] * len(PAIRS)] and judged.problems["exact"].key == "rewards.judge_none"


def test_a_pause_is_not_kept_waiting_by_a_judge(end: list[Judging]) -> None:
    judging = judging_of({"kind": "exact"}, module="tests.kit.bad_judges")
    end.append(judging)

    def check() -> None:
        raise PauseRequested

    with pytest.raises(PauseRequested):
        judging.judge(PAIRS, check)
