"""Files of annotation tools and test benches, as they write them: evals, Label Studio, Prodigy, bots' intents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.data.formats import Example
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from core.messages import Message
from tests.kit.read_examples import examples_of


def turns_of(example: Example) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in example.messages]


def read(folder: Path, value: Any) -> list[list[tuple[str, str]]]:
    file = folder / "set.json"
    file.write_text(json.dumps(value), "utf-8")
    return [turns_of(example) for _, example in examples_of(file)]


def text_loss(folder: Path) -> dict[str, int]:
    report = inspect_file(folder / "set.json")
    assert not report.error_count, report.problems
    return {Message.model_validate(left.what).render("en"): left.count for left in report.left_out}


SYSTEM, USER = {"role": "system", "content": "Solve it."}, {"role": "user", "content": "2 + 2"}


def test_what_was_chosen_in_label_studio_is_the_label_and_marked_spans_are_not(tmp_path: Path) -> None:
    def task(value: dict[str, Any], **data: Any) -> dict[str, Any]:
        return {
            "id": 1,
            "data": {"text": "It is bad.", **data},
            "annotations": [{"result": [{"value": value, "type": "choices"}]}],
        }

    assert read(tmp_path, [task({"choices": ["Negative"]}, stars=1)]) == [
        [("user", "It is bad."), ("assistant", "Negative")]
    ]
    assert text_loss(tmp_path) == {"The column “data.stars”": 1, "The column “id”": 1}
    assert read(tmp_path, [task({"text": ["Not good."]})])[0][-1] == ("assistant", "Not good.")
    rows = [task({"choices": ["Negative"]}), task({"start": 0, "end": 2, "text": "It", "labels": ["X"]})]
    file = tmp_path / "spans.json"
    file.write_text(json.dumps(rows), "utf-8")
    assert (inspect_file(file).good_rows, inspect_file(file).error_count) == (1, 1)


def test_a_task_with_several_texts_is_refused_with_their_names_unless_one_tells(tmp_path: Path) -> None:
    """Seen: the longest field was taken for the text, which was an id."""
    result = [{"result": [{"value": {"choices": ["Same"]}, "type": "choices"}]}]
    task = {"data": {"title": "Blue moon", "row": "work-8fd1-0000-aa17-13d2"}, "annotations": result}
    with pytest.raises(DataError, match=r"data\.title, data\.row"):
        read(tmp_path, [task])
    task["data"] = {"title": "Blue moon", "review": "too long a name for it", "body": "Sad."}
    assert read(tmp_path, [task]) == [[("user", "Sad."), ("assistant", "Same")]]


def test_a_list_of_cats_is_the_label_beside_spans(tmp_path: Path) -> None:
    """doccano and spaCy write the classes of a text so."""
    row = {"text": "Book a room in Rome", "entities": [[15, 19, "town"]], "cats": ["hotel"]}
    assert read(tmp_path, [row]) == [[("user", "Book a room in Rome"), ("assistant", "hotel")]]


def test_the_answer_in_a_column_of_its_own_ends_a_conversation(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2 + 2?"}]
    rows: list[dict[str, Any]] = [{"messages": turns, "ground_truth": truth} for truth in ("4", 4)]
    rows.append({"prompt": turns, "reward_model": {"style": "rule", "ground_truth": "4"}})
    assert read(tmp_path, rows) == [[("user", "2 + 2?"), ("assistant", "4")]] * 3


def test_lists_of_tests_beside_a_text_are_no_rows(tmp_path: Path) -> None:
    row = {"prompt": "Write a function f.", "solution": "def f(): ...", "tests": [[1, 2], [3, 4]]}
    assert read(tmp_path, row) == [[("user", "Write a function f."), ("assistant", "def f(): ...")]]


def test_a_label_that_was_rejected_in_prodigy_is_not_learned(tmp_path: Path) -> None:
    """It was learned like an accepted one: `answer` was named as left out, and no more."""
    row = {"text": "I will never make it again.", "label": "QUESTION", "_input_hash": 1, "_task_hash": 2}
    rows = [row | {"answer": "accept"}, row | {"answer": "reject"}, row | {"answer": "ignore"}]
    assert read(tmp_path, rows) == [[("user", "I will never make it again."), ("assistant", "QUESTION")]]
    assert text_loss(tmp_path) == {"Rows whose answer is marked as bad": 2}
    assert len(read(tmp_path, [{"text": "a", "label": "b", "answer": "reject"}, *rows])) == 2, (
        "without its hashes it is a column like others"
    )


def test_what_can_be_said_for_one_intent_is_no_conversation(tmp_path: Path) -> None:
    """Five ways to ask the same were read as turns that answer each other."""
    corpus = {"name": "shop", "data": [{"intent": "about", "utterances": ["Who are you?", "And you are?"], "id": 1}]}
    assert read(tmp_path, corpus) == [
        [("user", "Who are you?"), ("assistant", "about")],
        [("user", "And you are?"), ("assistant", "about")],
    ]
    bot = {"intents": [{"tag": "greeting", "patterns": ["Hi", "Hello"], "responses": ["Good day.", "Hi there."]}]}
    assert read(tmp_path, bot) == [
        [("user", "Hi"), ("assistant", "Good day.")],
        [("user", "Hello"), ("assistant", "Good day.")],
    ]
    assert text_loss(tmp_path) == {"The column “answers”": 2, "The column “tag”": 2}
    line = tmp_path / "one.jsonl"
    line.write_text(json.dumps({"utterances": ["Hi", "Hello"]}), "utf-8")
    assert [turns_of(example) for _, example in examples_of(line)] == [[("user", "Hi"), ("assistant", "Hello")]]


def test_a_list_of_texts_is_a_set_of_texts(tmp_path: Path) -> None:
    file = tmp_path / "cookies.json"
    file.write_text(json.dumps(["Be kind.", "Go home."]), "utf-8")
    assert [example.text for _, example in examples_of(file)] == ["Be kind.", "Go home."]
    file.write_text(json.dumps([{"text": "Be kind."}, "Go home."]), "utf-8")
    assert inspect_file(file).error_count == 1, "a text among objects is a mistake"


def test_results_that_are_no_list_are_no_labels(tmp_path: Path) -> None:
    file = tmp_path / "odd.json"
    odd = [{"data": {"text": "One."}, "annotations": [{"result": wrong}]} for wrong in (5, "x", None, {"a": 1})]
    good = {"data": {"text": "Two."}, "annotations": [{"result": [{"value": {"choices": ["good"]}}]}]}
    file.write_text(json.dumps([*odd, good]), "utf-8")
    assert [turns_of(example)[-1] for _, example in examples_of(file)] == [("assistant", "good")]
