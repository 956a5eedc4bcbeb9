"""Judges by tables of cases in English, German and Chinese. "no" stands for a judge that cannot judge."""

from __future__ import annotations

import time

import pytest
from pydantic import ValidationError

from core.errors import JudgeError
from core.judges.judge import judge
from core.judges.specs import (
    JUDGE_SPEC,
    ChoiceJudge,
    ContainsJudge,
    ExactJudge,
    JsonJudge,
    JudgeSpec,
    LabelJudge,
    LanguageJudge,
    LengthJudge,
    NumberJudge,
    OneOfJudge,
    RegexJudge,
    SimilarityJudge,
)
from core.messages import LANGUAGES

SCHEMA = """{"type": "object", "required": ["name", "age"], "additionalProperties": false, "properties": {
    "name": {"type": "string", "minLength": 1}, "age": {"type": "integer"}, "sex": {"enum": ["f", "m", null]},
    "of": {"$ref": "#/$defs/person"}}, "$defs": {"person": {"type": "object", "required": ["age"]}}}"""
LABELS = LabelJudge(labels=("payment", "payment late", "defect", "lob", "投诉"))


def outcome(spec: JudgeSpec, expected: str, answer: str) -> str:
    """The judge's opinion; "no" if it cannot have one. Its sentence has all its values in every language."""
    try:
        verdict = judge(spec, expected, answer)
    except JudgeError as error:
        reason, result = error.message, "no"
    else:
        reason, result = verdict.reason, verdict.outcome
        assert 0 <= verdict.score <= 1 and (verdict.score == 1 or result != "right" or spec.kind == "similarity")
    for language in LANGUAGES:
        sentence = reason.render(language)
        assert not sentence.startswith("judges.") and "{" not in sentence.replace('{"', "")
    return result


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("Dunmarrow", "dunmarrow.", "right"),
        ("Dunmarrow", "  “Dunmarrow”  ", "right"),
        ("Dunmarrow", "**Dunmarrow**!", "right"),
        ("Dunmarrow", "In Dunmarrow", "wrong"),
        ("Dunmarrow", "", "wrong"),
        ("yes", "<think>no, or yes?</think>\n\nYes.", "right"),
        ("yes", "Hm, no?</think>Yes", "right"),  # a template that opens the thought itself
        ("yes", "<think>yes", "wrong"),  # cut off while thinking
        ("two  words", "Two\nwords", "right"),
        ("don't", "don’t", "right"),
        ("-5", "5", "wrong"),
        ("-5", "−5", "right"),
        ("C++", "C", "wrong"),
        ("x²", "x2", "wrong"),
        ("Straße", "STRASSE", "right"),
        ("Köln", "Koln", "wrong"),
        ("„Köln“", "köln", "right"),
        ("北京", "北京。", "right"),
        ("北京", "“北京”！", "right"),
        ("北京", "上海", "wrong"),
        ("ABC 12", "ＡＢＣ　１２", "right"),
        ("...", "...", "right"),
        ("...", "?", "wrong"),
        ("", "?", "no"),
    ],
)
def test_exact_ignores_case_width_spaces_and_marks_at_the_ends_only(expected: str, answer: str, wanted: str) -> None:
    assert outcome(ExactJudge(), expected, answer) == wanted


@pytest.mark.parametrize(
    ("spec", "expected", "answer", "wanted"),
    [
        (OneOfJudge(answers=("7", "seven", "sieben", "七")), "", "Sieben.", "right"),
        (OneOfJudge(answers=("7", "seven", "sieben", "七")), "", "七。", "right"),
        (OneOfJudge(answers=("7", "seven")), "VII", "vii", "right"),
        (OneOfJudge(answers=("7", "seven")), "", "seventeen", "wrong"),
        (OneOfJudge(), "", "seven", "no"),
        (ContainsJudge(), "Odra Pellin", "It was odra  PELLIN, in 1847.", "right"),
        (ContainsJudge(), "Odra Pellin", "It was Pellin.", "wrong"),
        (ContainsJudge(), "art", "A party.", "wrong"),
        (ContainsJudge(), "Art", "Käseart", "wrong"),
        (ContainsJudge(), "7", "17 or 7.5", "wrong"),
        (ContainsJudge(), "7", "It has 7.", "right"),
        (ContainsJudge(), "奥德拉", "它由奥德拉建造。", "right"),
        (ContainsJudge(), "Odra", "它由Odra建造。", "right"),
        (ContainsJudge(), "", "anything", "no"),
        (ContainsJudge(common=("the", "was", "built", "by")), "The boat was built by Odra Pellin.",
         "Odra Pellin made the boat.", "right"),
        (ContainsJudge(common=("the", "was", "built", "by")), "The boat was built by Odra Pellin.",
         "The boat was built by Tam Dorrel.", "wrong"),
        (ContainsJudge(common=("the", "was", "built", "by")), "The boat was built by Odra Pellin.",
         "The boat was built by Odra Dorrel.", "partly"),
        (ContainsJudge(all_of=("steam", "first")), "", "First, steam!", "right"),
        (ContainsJudge(all_of=("steam", "first")), "", "Steam.", "partly"),
        (ContainsJudge(any_of=("seven", "7")), "", "7 legs", "right"),
        (ContainsJudge(any_of=("seven", "7")), "", "Eight legs", "wrong"),
        (ContainsJudge(any_of=("seven",), none_of=("eight",)), "", "Seven or eight", "wrong"),
    ],
)  # fmt: skip
def test_one_of_and_contains_find_whole_words(spec: JudgeSpec, expected: str, answer: str, wanted: str) -> None:
    assert outcome(spec, expected, answer) == wanted


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("1962.5", "1,962.5", "right"),
        ("1962.5", "1.962,5", "right"),
        ("1962.5", "Es sind 1 962,5.", "right"),
        ("1962.5", "1’962.5", "right"),
        ("1962.5", "１，９６２．５", "right"),
        ("1962.5", "1962,4", "wrong"),
        ("1.962,5 kg", "1,962.5 kg", "right"),
        ("1,962", "1.962", "partly"),  # 1962 or 1.962, each
        ("1,962", "1,962", "right"),
        ("1.962", "1.963", "wrong"),
        ("0.125", "0,125", "right"),
        ("2000000", "2,000,000", "right"),
        ("2 million", "2,000,000", "right"),
        ("42", "The answer is 42.", "right"),
        ("42", "17 + 25 = 42", "right"),
        ("42", "42, because 17 + 25 is that", "partly"),
        ("42", "I do not know", "wrong"),
        ("42", "B42", "wrong"),
        ("-5", "minus: -5", "right"),
        ("-5", "−5", "right"),
        ("5", "3-5", "right"),
        ("-5", "5", "wrong"),
        ("1500", "1.5e3", "right"),
        ("1500", "1.5 × 10^3", "right"),
        ("12 kg", "12 g", "wrong"),
        ("12 kg", "12", "right"),
        ("12", "12 kg", "right"),
        ("1.5 kg", "1500 g", "right"),
        ("1,5 Kilogramm", "1500 Gramm", "right"),
        ("1.5公斤", "1500克", "right"),
        ("90 Minuten", "1.5 hours", "right"),
        ("90分钟", "1.5小时", "right"),
        ("5 m", "5 men", "right"),  # men are no unit
        ("5 km", "5 km/h", "wrong"),
        ("31 %", "31 Prozent", "right"),
        ("31%", "百分之31", "right"),
        ("31%", "0.31", "wrong"),
        ("€12", "12 Euro", "right"),
        ("€12", "$12", "wrong"),
        ("12000", "1.2万", "right"),
        ("42", "答案是４２。", "right"),
        ("42", "一共42，不是41。", "partly"),
        ("42", "不是41，一共42。", "right"),
        ("3 sails and 2 masts", "2 masts, 3 sails", "right"),
        ("3 sails and 2 masts", "3 sails", "partly"),
        ("3, 4 und 5", "1,2,6", "wrong"),
        ("seven", "7", "no"),
    ],
)
def test_a_number_is_read_as_people_write_it(expected: str, answer: str, wanted: str) -> None:
    assert outcome(NumberJudge(), expected, answer) == wanted


@pytest.mark.parametrize(
    ("spec", "expected", "answer", "wanted"),
    [
        (NumberJudge(decimal=","), "1.962", "1962", "right"),
        (NumberJudge(decimal=","), "1.962", "1,962", "wrong"),
        (NumberJudge(decimal="."), "1.962", "1962", "wrong"),
        (NumberJudge(tolerance=0.1), "3.14", "3.2", "right"),
        (NumberJudge(tolerance=0.1), "3.14", "3.3", "wrong"),
        (NumberJudge(tolerance=0.1), "3 kg", "3050 g", "right"),  # in the unit that is expected
        (NumberJudge(relative=0.01), "1000", "1009", "right"),
        (NumberJudge(relative=0.01), "1000", "1011", "wrong"),
    ],
)
def test_a_number_may_differ_as_far_as_its_judge_allows(
    spec: JudgeSpec, expected: str, answer: str, wanted: str
) -> None:
    assert outcome(spec, expected, answer) == wanted


@pytest.mark.parametrize(
    ("spec", "answer", "wanted"),
    [
        (RegexJudge(pattern="^arr.*ho!$"), "Arr!\nYo-ho-ho!", "right"),
        (RegexJudge(pattern="^arr.*ho!$", case_sensitive=True), "Arr! Yo-ho-ho!", "wrong"),
        (RegexJudge(pattern="."), " \n", "wrong"),
        (RegexJudge(pattern=r"^\d+ 公斤$"), "31 公斤", "right"),
        (RegexJudge(pattern="("), "(", "no"),
    ],
)
def test_a_pattern_is_searched_in_the_answer(spec: JudgeSpec, answer: str, wanted: str) -> None:
    assert outcome(spec, "", answer) == wanted


def test_a_pattern_that_would_take_for_ever_is_given_up_and_judges_nothing() -> None:
    """With `re`, this pattern takes centuries on 60 letters."""
    begin = time.monotonic()
    with pytest.raises(JudgeError, match=r"\(a\|aa\)"):
        judge(RegexJudge(pattern="(a|aa)+$"), "", "a" * 60 + "!")
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(
    ("spec", "expected", "answer", "wanted"),
    [
        (JsonJudge(), '{"a": 1, "b": "X"}', '{"b": "x", "a": 1.0}', "right"),
        (JsonJudge(), '{"a": 1, "b": "X"}', '```json\n{"b": "x", "a": 1}\n```', "right"),
        (JsonJudge(), '{"a": 1, "b": "X"}', 'Here it is: {"b": "x", "a": 1}', "partly"),
        (JsonJudge(), '{"a": 1, "b": "X"}', '{"b": "y", "a": 1}', "partly"),
        (JsonJudge(), '{"a": 1}', '{"a": 1, "b": 2}', "partly"),
        (JsonJudge(), '{"a": 1}', '{"a": true}', "wrong"),
        (JsonJudge(), '{"a": 1}', '{"a": "1"}', "wrong"),
        (JsonJudge(), '{"a": 1}', "a is 1", "wrong"),
        (JsonJudge(), '{"a": 1}', '{"a": 1', "wrong"),
        (JsonJudge(), '{"a": NaN}', '{"a": 1}', "no"),
        (JsonJudge(), '{"a": []}', '{"a": []}', "right"),
        (JsonJudge(), '{"a": [1, {"b": 2}]}', '{"a": [1, {"b": 3}]}', "partly"),
        (JsonJudge(), '{"a": 1}', "[" * 200_000, "wrong"),
        (JsonJudge(), '{"城市": "北京"}', '{"城市": "北京。"}', "right"),
        (JsonJudge(), "no JSON", "{}", "no"),
        (JsonJudge(fields=("a",)), '{"a": 1, "b": 2}', '{"a": 1, "b": 3}', "right"),
        (JsonJudge(fields=("a", "b")), "", '{"a": {"x": 1}, "b": 2}', "right"),
        (JsonJudge(fields=("a", "b")), "", '{"a": 1}', "partly"),
        (JsonJudge(fields=("v1.2",)), '{"v1.2": 1, "b": 2}', '{"v1.2": 1, "b": 3}', "right"),
        (JsonJudge(fields=("v1.2",)), '{"v1.2": 1}', '{"v1.2": 2}', "wrong"),
        (JsonJudge(fields=("v1.2",)), "", '{"v1.2": {"x": 1}}', "right"),
        (JsonJudge(), "", "[1]", "right"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada", "age": 36.0, "sex": null}', "right"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada", "age": 36.5}', "wrong"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada"}', "wrong"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada", "age": 36, "more": 1}', "wrong"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada", "age": 36, "sex": "x"}', "wrong"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada", "age": 36, "of": {"name": "Ben"}}', "wrong"),
        (JsonJudge(json_schema=SCHEMA), "", '{"name": "Ada", "age": 36, "of": {"name": "Ben", "age": 60}}', "right"),
        (JsonJudge(json_schema=SCHEMA), '{"name": "Ada", "age": 36}', '{"name": "Bea", "age": 36}', "partly"),
        (JsonJudge(json_schema=SCHEMA, fields=("age",)), '{"name": "A", "age": 3}', '{"name": "B", "age": 3}', "right"),
        (JsonJudge(json_schema='{"enum": [1, "b"]}'), "", "true", "wrong"),
        (JsonJudge(json_schema='{"oneOf": [{"type": "string"}]}'), "", '"a"', "no"),
        (JsonJudge(json_schema='{"type": "text"}'), "", '"a"', "no"),
        (JsonJudge(json_schema='{"$ref": "#/$defs/gone"}'), "", '"a"', "no"),
        (JsonJudge(json_schema="[]"), "", '"a"', "no"),
        (JsonJudge(json_schema="[" * 9000), "", '"a"', "no"),
    ],
)
def test_json_is_compared_field_by_field(spec: JudgeSpec, expected: str, answer: str, wanted: str) -> None:
    assert outcome(spec, expected, answer) == wanted


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("payment", "Payment.", "right"),
        ("payment", "This is about a payment", "right"),
        ("payment", "payment or defect", "wrong"),
        ("payment", "payment late", "wrong"),
        ("payment late", "It is: payment late", "right"),
        ("payment", "delivery", "wrong"),
        ("payment", "repayment", "wrong"),
        ("lob", "Lob!", "right"),
        ("lob", "Das Wort ist: lob", "right"),
        ("投诉", "类别：投诉。", "right"),
        ("delivery", "payment", "no"),
    ],
)
def test_an_answer_with_several_labels_is_wrong(expected: str, answer: str, wanted: str) -> None:
    assert outcome(LABELS, expected, answer) == wanted


@pytest.mark.parametrize(
    ("expected", "answer", "wanted"),
    [
        ("B", "B", "right"),
        ("B", "b.", "right"),
        ("B", "(B) Paris", "right"),
        ("B) Paris", "**B**", "right"),
        ("B", "B: Paris", "right"),
        ("B", "The answer is B.", "right"),
        ("B", "A good answer is B.", "right"),
        ("B", "Not A. The answer is B", "right"),
        ("B", "A or B", "wrong"),
        ("B", "But why?", "wrong"),
        ("B", "C", "wrong"),
        ("B", "Paris", "wrong"),
        ("B", "Die Antwort ist B, weil A falsch ist.", "right"),
        ("B", "答案是B。", "right"),
        ("B", "选 Ｂ", "right"),
        ("B", "选C，不是B", "wrong"),
        ("Paris", "B", "no"),
    ],
)
def test_the_chosen_letter_is_found(expected: str, answer: str, wanted: str) -> None:
    assert outcome(ChoiceJudge(), expected, answer) == wanted


EN = "It was built of wood, and it is the oldest of those that are still in use."
DE = "Sie wurde aus Holz gebaut und ist die älteste, die noch auf dem See zu sehen ist."


@pytest.mark.parametrize(
    ("spec", "expected", "answer", "wanted"),
    [
        (LanguageJudge(language="de"), "", DE, "right"),
        (LanguageJudge(language="de"), "", EN, "wrong"),
        (LanguageJudge(), EN, EN, "right"),
        (LanguageJudge(language="zh"), "", "这艘船是用木头建造的，非常古老。", "right"),
        (LanguageJudge(language="zh"), "", EN, "wrong"),
        (LanguageJudge(language="de"), "", "Ja.", "no"),
        (LanguageJudge(), "", EN, "no"),
        (LengthJudge(most=3), "", "One two three.", "right"),
        (LengthJudge(most=3), "", "One two three four", "wrong"),
        (LengthJudge(least=2), "", "One", "wrong"),
        (LengthJudge(most=5), "", "这是木头。", "right"),
        (LengthJudge(most=4), "", "这是木头的。", "wrong"),
        (LengthJudge(most=5, unit="characters"), "", "abcdef", "wrong"),
        (SimilarityJudge(), EN, EN.upper(), "right"),
        (SimilarityJudge(), EN, DE, "wrong"),
        (SimilarityJudge(), EN, "It was built of wood, and is the oldest one in the town.", "partly"),
        (SimilarityJudge(), "", EN, "no"),
    ],
)
def test_language_length_and_similarity(spec: JudgeSpec, expected: str, answer: str, wanted: str) -> None:
    assert outcome(spec, expected, answer) == wanted


@pytest.mark.parametrize("spec", [LABELS, NumberJudge(decimal=","), ContainsJudge(any_of=("7",)), ExactJudge()])
def test_a_judge_is_read_back_from_its_file(spec: JudgeSpec) -> None:
    assert JUDGE_SPEC.validate_json(JUDGE_SPEC.dump_json(spec)) == spec


@pytest.mark.parametrize("bad", [{"kind": "vibes"}, {"kind": "number", "tolerance": -1}, {"kind": "exact", "x": 1}])
def test_a_judge_that_is_none_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        JUDGE_SPEC.validate_python(bad)
