"""Held-out questions with their judges, and what the project promises about its own sample sets."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import yaml

from core.data.repeats import same_prompt_key
from core.data.sets.heldout import HeldOut, load_heldout
from core.judges import weighted
from core.judges.judge import is_right
from core.judges.specs import ExactJudge
from core.presets import PRESETS
from core.reward_settings import Rewards

SAMPLES = PRESETS / "samples"
NAMES = ["kettlewisp_facts", "pirate_answers", "shop_messages", "sums_as_json"]
SHAPES = {
    "kettlewisp_facts": "question_answer", "pirate_answers": "messages", "shop_messages": "text_label",
    "sums_as_json": "question_answer",
}  # fmt: skip


@pytest.mark.parametrize("entry", ["{prompt: Two}", "{prompt: Two, expected: a, judge: {kind: regex}}", "text"])
def test_load_names_every_entry_that_cannot_be_judged(tmp_path, entry):
    path = tmp_path / "bad.heldout.yaml"
    path.write_text(f"- {{prompt: 'One?', expected: a}}\n- {entry}\n- {{prompt: Three, expect: a}}\n", "utf-8")
    with pytest.raises(ValueError, match=r"(?s)\n1\b.*\n2\.expect\b") as error:
        load_heldout(path)
    assert "\n0" not in str(error.value)


@pytest.mark.parametrize("content", ["", "prompt: a", "text"])
def test_load_refuses_what_is_no_list(tmp_path, content):
    path = tmp_path / "x.heldout.yaml"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match="valid tuple"):
        load_heldout(path)


# the sample sets


def passes(item: HeldOut, answer: str) -> bool:
    return is_right(item.judge or ExactJudge(), item.expected, answer)


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
    assert len({same_prompt_key(item.prompt) for item in heldout}) == len(heldout) == 20
    assert [item.prompt for item in heldout if same_prompt_key(item.prompt) in trained] == []


def test_every_fact_asked_is_in_the_memory_data():
    answers = {answer for _, answer in pairs("kettlewisp_facts")}
    for item in load_heldout(SAMPLES / "kettlewisp_facts.heldout.yaml"):
        matching = [answer for answer in answers if passes(item, answer)]
        assert len(matching) == 1, f"{item.prompt}: {matching}"


def test_each_fact_is_asked_in_eight_ways_and_held_out_at_least_once():
    counts = Counter(answer for _, answer in pairs("kettlewisp_facts"))
    assert set(counts.values()) == {8}
    heldout = load_heldout(SAMPLES / "kettlewisp_facts.heldout.yaml")
    assert all(any(passes(item, answer) for item in heldout) for answer in counts)


def test_every_pirate_answer_passes_the_check_of_its_held_out_prompts():
    heldout = load_heldout(SAMPLES / "pirate_answers.heldout.yaml")
    assert [answer for _, answer in pairs("pirate_answers") if not all(passes(item, answer) for item in heldout)] == []


def test_labels_are_balanced_in_training_and_held_out():
    trained = Counter(label for _, label in pairs("shop_messages"))
    heldout = Counter(item.expected for item in load_heldout(SAMPLES / "shop_messages.heldout.yaml"))
    assert len(set(trained.values())) == 1 and len(set(heldout.values())) == 1
    assert trained.keys() == heldout.keys()


@pytest.mark.parametrize("name", NAMES)
def test_settings_have_both_languages_and_real_recipe_fields(name):
    settings = yaml.safe_load((SAMPLES / f"{name}.yaml").read_text("utf-8"))
    assert settings["goal"] in {"style", "question_answer", "classification", "instructions"}
    for key in ("title", "description"):
        assert settings[key].keys() == {"en", "zh"} and all(settings[key].values())
    recipe = pytest.importorskip("core.recipe").Recipe.parse(
        {"data": {"source": name}} | {section: settings[section] for section in ("goal", "adapter", "train")}
    )
    if rewards := settings.get("rewards"):
        assert weighted.read(Rewards.model_validate(rewards).judges)
    assert recipe.adapter.r == settings["adapter"]["r"]


def test_the_quick_start_trains_as_the_sample_does() -> None:
    """They are written in two places, and only one of them was measured."""
    quick = yaml.safe_load((PRESETS / "recipes" / "quickstart.yaml").read_text("utf-8"))
    sample = yaml.safe_load((SAMPLES / "pirate_answers.yaml").read_text("utf-8"))
    assert quick["train"] == sample["train"] and quick["adapter"] == {"method": "lora", **sample["adapter"]}
