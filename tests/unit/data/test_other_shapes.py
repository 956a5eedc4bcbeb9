"""Rows that say the same in other columns: preference sets, TRL's conversations, SQuAD, lists of turns, objects of
columns."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from core.data.conversation import ChatMessage
from core.data.formats import Example, read_example
from core.data.reading.file_rows import Row
from core.data.sets.inspection import inspect_file
from core.data.shapes.known import recognize_format
from core.data.shapes.left_out import Tally
from tests.kit.read_examples import examples_of

Q, A, B = "What is a crêpe?", "A thin pancake.", "No idea."
USER, GOOD, BAD = ({"role": role, "content": text} for role, text in (("user", Q), ("assistant", A), ("assistant", B)))
PAIR = Example(messages=(ChatMessage("user", Q), ChatMessage("assistant", A)))
SYSTEM = Example(messages=(ChatMessage("system", "Be brief."), *PAIR.messages))


def read_values(values: dict[str, Any]) -> tuple[Example | None, set[str]]:
    left = Tally()
    row = Row(1, values)
    example, problems = read_example(row, recognize_format([row]), left)
    assert example or problems
    return example, {one.what.params["name"] for one in left.summary()}


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": Q, "chosen": A, "rejected": B},
        {"question": Q, "chosen": A, "rejected": B},
        {"prompt": Q, "chosen": [USER, GOOD], "rejected": [USER, BAD]},  # UltraFeedback, as binarised
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},  # TRL
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"messages": [USER], "chosen": GOOD, "rejected": BAD},
        {"conversations": [{"from": "human", "value": Q}], "chosen": {"from": "gpt", "value": A},
            "rejected": {"from": "gpt", "value": B}},
        {"instruction": Q, "input": "", "chosen": A, "rejected": B},
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: {B}"},  # hh-rlhf
    ],
)  # fmt: skip
def test_of_a_preference_set_the_better_answer_is_learned_and_the_worse_one_is_named(values: dict[str, Any]) -> None:
    """Seen: of conversations with chosen and rejected the question alone was read."""
    worse = (ChatMessage("user", Q), ChatMessage("assistant", B))
    assert read_values(values) == (replace(PAIR, rejected=worse), {"rejected"})
    system = ChatMessage("system", "Be brief.")
    assert read_values(values | {"system": "Be brief."}) == (replace(SYSTEM, rejected=(system, *worse)), {"rejected"})


@pytest.mark.parametrize(
    ("better", "worse", "more"),
    [
        ("accepted", "rejected", {}),
        ("preferred", "dispreferred", {}),
        ("chosen_response", "rejected_response", {}),
        ("response_j", "response_k", {"qid": 1}),
    ],
)
def test_a_worse_answer_by_another_name_is_never_learned(better: str, worse: str, more: dict[str, Any]) -> None:
    """Seen: of accepted and rejected the rejected one was guessed to be the answer."""
    row = {"prompt": Q, worse: B, better: A} | more
    assert read_values(row) == (
        replace(PAIR, rejected=(ChatMessage("user", Q), ChatMessage("assistant", B))),
        {worse, *more},
    )


def test_the_worse_answer_is_said_in_the_report_with_what_would_use_it(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join([json.dumps({"prompt": Q, "chosen": A, "rejected": B})] * 3))
    (left,) = inspect_file(file).left_out
    assert left.count == 3 and "Preference training" in str(left.why)


def test_an_empty_better_answer_is_refused() -> None:
    assert (
        read_example(Row(1, {"prompt": Q, "chosen": "", "rejected": B}), "messages")[1][0].text.key
        == "data.empty_answer"
    )


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": [USER], "completion": [GOOD]},
        {"prompt": [USER], "completion": A},
        {"prompt": [{"from": "human", "value": Q}], "response": GOOD},
        {"dialog": [Q, A]},
        {"turns": [[Q, A]]},
        {"conversation": [Q, A]},
        {"question": Q, "answers": {"text": [A, A], "answer_start": []}},
        {"question": Q, "answers": [{"text": A}]},
        {"question": Q, "context": "", "answer": A},
    ],
)
def test_other_columns_that_say_the_same_are_the_same_messages(values: dict[str, Any]) -> None:
    assert read_values(values) == (PAIR, set())


def test_a_context_stands_before_its_question_and_further_answers_are_named() -> None:
    """Seen: the context of a question was not read at all."""
    example, left = read_values(
        {"context": "Food.", "question": Q, "answers": {"text": [A, B], "answer_start": [3, 4]}, "id": "x"}
    )
    assert example and example.messages[0].content == f"Food.\n\n{Q}" and left == {"text", "answer_start", "id"}


def test_earlier_turns_beside_an_instruction_are_turns() -> None:
    example, left = read_values({"instruction": Q, "output": A, "history": [["Hi", "Hello."]]})
    assert example and [m.content for m in example.messages] == ["Hi", "Hello.", Q, A] and not left
    assert read_values({"instruction": Q, "output": A, "history": []}) == (PAIR, set())
    assert read_values({"instruction": Q, "output": A, "history": "Hi"}) == (PAIR, {"history"})


@pytest.mark.parametrize(
    "values", [{"dialog": [Q]}, {"prompt": [USER]}, {"question": Q, "answers": {"text": []}}, {"turns": [[Q, A], [Q]]}]
)
def test_what_is_no_whole_conversation_is_refused(values: dict[str, Any]) -> None:
    example, problems = read_example(Row(1, values), "messages" if "answers" not in values else "question_answer")
    assert example is None and problems


SQUAD = {
    "version": "1.1",
    "data": [
        {"title": "Food", "paragraphs": [{"context": "Food.", "qas": [{"id": "1", "question": Q,
            "answers": [{"answer_start": 0, "text": A}]}]}]},
        {"title": "Sun", "paragraphs": [{"context": "Sky.", "qas": [{"id": n, "question": Q,
            "answers": [{"answer_start": 1, "text": A}]} for n in "23"]}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "content, contexts, left",
    [
        (SQUAD, ["Food.\n\n", "Sky.\n\n", "Sky.\n\n"], {"title", "id", "answer_start", "version"}),
        (SQUAD["data"][1], ["Sky.\n\n", "Sky.\n\n"], {"title", "id", "answer_start"}),
        ({"question": [Q, Q], "answer": [A, A], "id": [1, 2]}, ["", ""], {"id"}),
        ({"question": {"0": Q, "1": Q}, "answer": {"0": A, "1": A}}, ["", ""], set()),  # pandas' to_json
        ({"question": Q, "answer": A}, [""], set()),
    ],
)
def test_json_that_keeps_its_rows_in_another_way_is_rows(
    tmp_path, content: Any, contexts: list[str], left: set[str]
) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content, indent=1))
    report = inspect_file(file)
    assert [row for row, _ in examples_of(file)] == [*range(1, len(contexts) + 1)]
    assert [example.messages[0].content for _, example in examples_of(file)] == [
        f"{context}{Q}" for context in contexts
    ]
    assert {one.what.params["name"] for one in report.left_out} == left and report.good_rows == len(contexts)


def test_what_stands_at_a_question_that_the_answer_repeats_is_named() -> None:
    assert read_values({"prompt": [USER | {"name": "Eva"}], "chosen": [USER, GOOD], "rejected": [BAD]})[1] == {
        "rejected",
        "name",
    }


def test_that_texts_without_speakers_take_turns_is_said(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"dialog": [Q, A]}) + "\n" + json.dumps({"messages": [USER, GOOD]}))
    assert [note.key for note in inspect_file(file).notes] == ["data.note_turns"]
    file.write_text(json.dumps({"messages": [USER, GOOD]}))
    assert not inspect_file(file).notes
