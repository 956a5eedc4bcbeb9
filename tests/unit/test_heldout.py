"""Checks on answers, and what the project promises about its own sample sets."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import yaml
from pydantic import ValidationError

from core.data.repeats import same_prompt_key
from core.data.sets.heldout import AnswerCheck, load_heldout, passes
from core.presets import PRESETS

SAMPLES = PRESETS / "samples"
NAMES = ["kettlewisp_facts", "pirate_answers", "shop_messages"]
SHAPES = {"kettlewisp_facts": "question_answer", "pirate_answers": "messages", "shop_messages": "text_label"}


# checks


@pytest.mark.parametrize(
    ("check", "answer", "expected"),
    [
        ({"contains_any": ["pine cone", "pine cones"]}, "It burns Pine Cones.", True),
        ({"contains_any": ["pine cone"]}, "It burns coal.", False),
        ({"contains_all": ["seven", "legs"]}, "It has seven legs.", True),
        ({"contains_all": ["seven", "legs"]}, "It has seven.", False),
        ({"not_contains": ["sorry"]}, "Sorry, no.", False),
        ({"not_contains": ["sorry"]}, "Yes.", True),
        ({"starts_with_any": ["Arr", "Ahoy"]}, "  ahoy there", True),
        ({"starts_with_any": ["Arr"]}, "Well, arr", False),
        ({"equals": "praise"}, " Praise\n", True),
        ({"equals": "praise"}, "praise.", False),
        ({"equals": "praise"}, "praise praise", False),
        ({"equals": "a.c"}, "abc", False),
        ({"equals": "praise", "case_sensitive": True}, "Praise", False),
        ({"regex": "^arr.*ho!$"}, "Arr!\nYo-ho-ho!", True),
        ({"regex": "^arr.*ho!$", "case_sensitive": True}, "Arr! Yo-ho-ho!", False),
        ({"contains_any": ["arr"], "not_contains": ["sorry"]}, "Arr, sorry", False),
        ({"contains_any": ["七条腿"]}, "它有七条腿。", True),
        ({"contains_any": ["C++"]}, "I use C++.", True),
    ],
)
def test_check_judges_the_answer(check, answer, expected):
    assert passes(AnswerCheck(**check), answer) is expected


@pytest.mark.parametrize("answer", ["It has 17 legs.", "It has 70 legs.", "Room 7b"])
def test_words_are_whole_words(answer):
    assert not passes(AnswerCheck(contains_any=["7"]), answer)


def test_an_empty_answer_passes_no_positive_check():
    for check in (
        {"contains_any": ["a"]},
        {"contains_all": ["a"]},
        {"equals": "a"},
        {"starts_with_any": ["a"]},
        {"regex": "."},
    ):
        assert not passes(AnswerCheck(**check), " \n")


@pytest.mark.parametrize(
    "check",
    [
        {},
        {"case_sensitive": True},
        {"contain_any": ["a"]},
        {"contains_any": [" "]},
        {"contains_any": []},
        {"regex": "("},
    ],
)
def test_a_check_that_cannot_judge_is_refused(check):
    with pytest.raises(ValidationError):
        AnswerCheck(**check)


# files


def test_load_names_the_file_and_every_bad_entry(tmp_path):
    path = tmp_path / "bad.heldout.yaml"
    path.write_text(
        "- {prompt: 'One?', check: {equals: a}}\n"
        "- {prompt: 'Two?', check: {}}\n"
        "- {prompt: 'one', check: {equals: a}}\n"
        "- {prompt: 'Four?', check: {equal: a}}\n"
        "- just text\n",
        "utf-8",
    )
    with pytest.raises(ValueError) as error:
        load_heldout(path)
    message = str(error.value)
    assert message.startswith("bad.heldout.yaml: ")
    assert "entry 2" in message and "entry 3: the same prompt as entry 1" in message
    assert "entry 4: check.equal" in message and "entry 5" in message and "entry 1:" not in message


@pytest.mark.parametrize("content", ["", "[]", "prompt: a", "text"])
def test_load_refuses_what_is_no_list(tmp_path, content):
    path = tmp_path / "x.heldout.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match="expected a list"):
        load_heldout(path)


# the sample sets


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text("utf-8").splitlines()]


def pairs(name: str) -> list[tuple[str, str]]:
    """(prompt, answer) of every row."""
    if SHAPES[name] == "question_answer":
        return [(row["question"], row["answer"]) for row in rows(name)]
    if SHAPES[name] == "text_label":
        return [(row["text"], row["label"]) for row in rows(name)]
    for row in rows(name):
        assert [m["role"] for m in row["messages"]] == ["user", "assistant"]
    return [(row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows(name)]


def test_the_folder_holds_these_sets_and_no_others():
    assert sorted(path.stem for path in SAMPLES.glob("*.jsonl")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_set_has_60_to_200_rows_with_something_in_each(name):
    assert 60 <= len(rows(name)) <= 200
    assert all(prompt.strip() and answer.strip() for prompt, answer in pairs(name))


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_comes_twice(name):
    counts = Counter(same_prompt_key(prompt) for prompt, _ in pairs(name))
    assert [key for key, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_held_out_prompts_are_20_and_not_in_the_training_file(name):
    heldout = load_heldout(SAMPLES / f"{name}.heldout.yaml")
    trained = {same_prompt_key(prompt) for prompt, _ in pairs(name)}
    assert len(heldout) == 20
    assert [item.prompt for item in heldout if same_prompt_key(item.prompt) in trained] == []


def test_every_fact_asked_is_in_the_memory_data():
    answers = {answer for _, answer in pairs("kettlewisp_facts")}
    for item in load_heldout(SAMPLES / "kettlewisp_facts.heldout.yaml"):
        matching = [answer for answer in answers if passes(item.check, answer)]
        assert len(matching) == 1, f"{item.prompt}: {matching}"


def test_each_fact_is_asked_in_eight_ways_and_held_out_at_least_once():
    counts = Counter(answer for _, answer in pairs("kettlewisp_facts"))
    assert set(counts.values()) == {8}
    heldout = load_heldout(SAMPLES / "kettlewisp_facts.heldout.yaml")
    assert all(any(passes(item.check, answer) for item in heldout) for answer in counts)


def test_every_pirate_answer_passes_the_check_of_its_held_out_prompts():
    heldout = load_heldout(SAMPLES / "pirate_answers.heldout.yaml")
    assert [
        answer for _, answer in pairs("pirate_answers") if not all(passes(item.check, answer) for item in heldout)
    ] == []


def test_labels_are_balanced_in_training_and_held_out():
    trained = Counter(label for _, label in pairs("shop_messages"))
    heldout = Counter(item.check.equals for item in load_heldout(SAMPLES / "shop_messages.heldout.yaml"))
    assert len(set(trained.values())) == 1 and len(set(heldout.values())) == 1
    assert trained.keys() == heldout.keys()


@pytest.mark.parametrize("name", NAMES)
def test_settings_have_both_languages_and_real_recipe_fields(name):
    settings = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text("utf-8"))
    assert settings["goal"] in {"style", "question_answer", "classification"}
    for key in ("title", "description"):
        assert settings[key].keys() == {"en", "zh"} and all(settings[key].values())
    recipe = pytest.importorskip("core.recipe").Recipe.parse(
        {"goal": settings["goal"], "data": {"source": name}, "adapter": settings["adapter"], "train": settings["train"]}
    )
    assert recipe.adapter.r == settings["adapter"]["r"]


def test_the_quick_start_trains_as_the_sample_does() -> None:
    """They are written in two places, and only one of them was measured."""
    quick = yaml.safe_load((PRESETS / "recipes" / "quickstart.yaml").read_text("utf-8"))
    sample = yaml.safe_load((SAMPLES / "pirate_answers.yaml").read_text("utf-8"))
    assert quick["train"] == sample["train"] and quick["adapter"] == {"method": "lora", **sample["adapter"]}
