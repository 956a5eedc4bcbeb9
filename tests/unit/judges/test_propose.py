"""The judge that is proposed for a data set."""

from __future__ import annotations

import json

import pytest

from core.errors import JudgeError
from core.judges.judge import judge
from core.judges.propose import propose
from core.judges.specs import ContainsJudge, JsonJudge, LabelJudge, NumberJudge
from core.presets import PRESETS

LONG = [
    "The weather in spring changes with the wind, and rain follows sunshine within an hour on most days there.",
    "Bread needs flour, water, salt and yeast; it rises for two hours and is baked until the crust turns brown.",
    "A violin has four strings, which are tuned in fifths and are bowed or plucked by those who play it well.",
]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["yes", "no", "Yes", "no", "yes", "no"], "label"),
        (["gut", "schlecht"] * 10, "label"),
        (["投诉", "表扬"] * 10, "label"),
        (["A", "C", "B", "D", "A", "B"], "choice"),
        (["B) Paris", "A) Rome", "C. Berlin"], "choice"),
        (['{"a": 1}', '{"a": 2}'], "json"),
        (["12", "1,962.5", "-3"], "number"),
        (["1.962,5 kg", "3 kg", "12 kg"], "number"),
        (["31公斤", "４２公斤"], "number"),
        (["Odra Pellin", "Dunmarrow", "dried pine cones", "violet"], "contains"),
        (["奥德拉", "敦马罗", "松果", "紫色"], "contains"),
        (LONG, "similarity"),
        (["它由奥德拉在敦马罗镇建造。", "它燃烧晒干的松果，香味很浓。"], "similarity"),
        (["<think>Is it so?</think>yes", "no"] * 5, "label"),
    ],
)
def test_the_judge_follows_from_the_answers(answers: list[str], kind: str) -> None:
    spec = propose(answers)
    assert spec.kind == kind
    for answer in answers:  # it accepts what it was made from
        assert judge(spec, answer, answer).outcome == "right"


@pytest.mark.parametrize(
    ("name", "kind"), [("kettlewisp_facts", "contains"), ("pirate_answers", "similarity"), ("shop_messages", "label")]
)
def test_the_sample_sets_get_the_judge_that_suits_them(name: str, kind: str) -> None:
    rows = [json.loads(line) for line in (PRESETS / "samples" / f"{name}.jsonl").read_text("utf-8").splitlines()]
    answers = [row.get("answer") or row.get("label") or row["messages"][-1]["content"] for row in rows]
    spec = propose(answers)
    assert spec.kind == kind
    assert all(judge(spec, answer, answer).outcome == "right" for answer in answers)


def test_the_judge_of_sentences_looks_at_what_is_special_to_each() -> None:
    rows = [json.loads(line)["answer"] for line in (PRESETS / "samples" / "kettlewisp_facts.jsonl").open()]
    spec = propose(rows)
    assert isinstance(spec, ContainsJudge)
    assert judge(spec, "The Kettlewisp was built by Odra Pellin.", "Odra Pellin built it.").outcome == "right"
    wrong = judge(spec, "The Kettlewisp was built by Odra Pellin.", "The Kettlewisp was built by Tam Dorrel.")
    assert wrong.outcome == "wrong"


def test_json_with_free_text_is_judged_by_its_schema_and_its_other_fields() -> None:
    """A summary is never the expected one word for word, so a good answer was at best partly right."""
    row = '{"topic": "%s", "urgent": %s, "summary": "%s waits for a reply about her parcel number %d"}'
    answers = [row % ("mail" if n % 2 else "shop", ("true", "null")[n % 2], "She", n) for n in range(20)]
    spec = propose(answers)
    assert isinstance(spec, JsonJudge) and spec.fields == ("topic", "urgent")
    assert judge(spec, answers[0], row % ("shop", "true", "Somebody who is", 7)).outcome == "right"
    assert judge(spec, answers[0], row % ("mail", "true", "She", 0)).outcome == "partly"
    assert judge(spec, answers[0], answers[0].replace('"summary"', '"text"')).outcome == "wrong"
    assert propose([*answers, "{}"]) == JsonJudge(), "other fields in each"


@pytest.mark.parametrize(
    ("answers", "decimal"), [(["1,5", "1.962"], ","), (["1.5", "1,962"], "."), (["1.5", "1,5"], ""), (["12"], "")]
)
def test_the_decimal_separator_is_that_of_the_numbers_that_leave_no_doubt(answers: list[str], decimal: str) -> None:
    assert propose(answers) == NumberJudge(decimal=decimal)  # type: ignore[arg-type]


def test_labels_keep_their_first_spelling_and_come_by_frequency() -> None:
    assert propose(["b", "A", "a", "A", "a", "b"]) == LabelJudge(labels=("A", "b"))


def test_without_answers_nothing_is_proposed() -> None:
    with pytest.raises(JudgeError):
        propose(["", "<think>nothing"])
