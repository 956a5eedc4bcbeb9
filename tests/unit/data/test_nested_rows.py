"""Rows whose texts are nested: rankings, traces, trees, tests and annotations, read as they are or refused by name."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from core.data.formats import Example
from core.data.sets.inspection import inspect_file
from core.errors import DataError
from core.messages import Message
from tests.kit.read_examples import examples_of

Row = dict[str, Any]


def written(file: Path, rows: list[Row]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return file


def read(folder: Path, *rows: Row) -> list[Example]:
    return [example for _, example in examples_of(written(folder / "set.jsonl", [*rows]))]


def turns(example: Example) -> str:
    return " | ".join(f"{message.role[0]} {message.content}" for message in example.messages)


def left(folder: Path) -> set[str]:
    return {Message.model_validate(each.what).render("en") for each in inspect_file(folder / "set.jsonl").left_out}


ANSWERS = [("Maybe.", 2, 5.5), ("So.", 1, 9.0), ("No.", 7, 1.0)]
RANKED: dict[str, Row] = {
    "Nectar": {"prompt": "\n\nHuman: Why?\n\nAssistant: ",
        "answers": [{"answer": text, "model": "m", "rank": float(rank)} for text, rank, _ in ANSWERS]},
    "UltraFeedback": {"instruction": "Why?", "models": ["a"],
        "completions": [{"response": text, "overall_score": score, "annotations": {}} for text, _, score in ANSWERS]},
    "an object of lists": {"title": "Why?", "answers": {"text": [text for text, _, _ in ANSWERS],
        "score": [score for _, _, score in ANSWERS]}},
    "scores as texts": {"question": "Why?",
        "responses": [{"text": text, "rating": str(score)} for text, _, score in ANSWERS]},
    "SHP, A": {"history": "Why?", "human_ref_A": "So.", "human_ref_B": "No.", "labels": 1, "score_A": 9, "score_B": 1},
    "SHP, B": {"history": "Why?", "human_ref_A": "No.", "human_ref_B": "So.", "labels": 0, "score_A": 1, "score_B": 9},
    "a winner by its letter": {"prompt": "Why?", "response_a": "No.", "response_b": "So.", "winner": "model_b"},
    "a winner by its number": {"instruction": "Why?", "output_1": "So.", "output_2": "No.", "preference": 1.0},
    "an arena": {"prompt": "Why?", "response_a": "So.", "response_b": "No.", "winner_model_a": 1, "winner_model_b": 0},
    "conversations": {"chosen_messages": [{"role": "user", "content": [{"type": "text", "value": "Why?"}]},
        {"role": "assistant", "content": [{"type": "text", "value": "So."}], "loss_weight": 1.0}],
        "rejected_messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}]},
}  # fmt: skip


@pytest.mark.parametrize("name", RANKED)
def test_the_best_answer_is_a_pair_with_the_worst(name: str, tmp_path: Path) -> None:
    """The first answer was learned, whatever its rank, or the file was refused."""
    (example,) = read(tmp_path, RANKED[name])
    assert turns(example) == "u Why? | a So."
    assert [message.content for message in example.rejected] == ["Why?", "No."]


def test_answers_that_are_as_good_as_each_other_are_no_pair(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "response_a": "So.", "response_b": "No."}
    for tie in ({"winner": "tie"}, {"score_a": 2, "score_b": 2}):
        with pytest.raises(DataError, match="neither answer was preferred"):
            read(tmp_path, row | tie)
    alike = {"prompt": "Why?", "answers": [{"answer": "So.", "rank": 1}, {"answer": "No.", "rank": 1}]}
    (example,) = read(tmp_path, alike)
    assert turns(example) == "u Why? | a So." and not example.rejected
    broken = {"prompt": "Why?", "completions": [{"response": 5, "score": 1}, None], "completion": "So."}
    assert read(tmp_path, broken)[0].completion == "So."


U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
TRACES: dict[str, Row] = {
    "LangSmith": {"id": "0b54ce10-3a2b", "inputs": {"question": "Why?"}, "outputs": {"answer": "So."}, "metadata": {}},
    "other keys": {"inputs": {"input_question": "Why?"}, "outputs": {"output_text": "So."}},
    "messages": {"inputs": {"messages": [U]}, "outputs": {"messages": [A]}},
    "LangChain's types": {"inputs": {"input": [{"type": "human", "data": {"content": "Why?"}}]} | {"messages": [
        {"type": "human", "content": "Why?"}]}, "outputs": {"output": {"type": "ai", "content": "So."}}},
    "Langfuse": {"input": {"query": "Why?"}, "expectedOutput": {"text": "So."}, "metadata": None, "sourceTraceId": "x"},
    "Langfuse, a trace": {"input": [U], "output": A, "model": "m"},
    "Langfuse, a text": {"input": [U], "expectedOutput": "So."},
    "Phoenix": {"input": {"question": "Why?"}, "output": {"answer": "So."}},
    "OpenAI's log": {"request": {"model": "m", "messages": [U]}, "response": {"choices": [{"index": 0, "message": A}]}},
    "OpenAI's batch, joined": {"custom_id": "1", "body": {"messages": [U]},
        "response": {"status_code": 200, "body": {"choices": [{"message": A}]}}},
    "stored completions": {"messages": [U], "choices": [{"message": A, "finish_reason": "stop"}], "id": "x"},
    "promptfoo": {"vars": {"body": "Why?"}, "assert": [{"type": "llm-rubric", "value": "is short"},
        {"type": "equals", "value": "So."}]},
    "self-instruct": {"id": "seed_task_0", "instruction": "Why?", "instances": [{"input": "", "output": "So."}]},
    "MT-Bench": {"question_id": 81, "turns": ["Why?"], "reference": ["So."]},
    "a tree": {"message_tree_id": "1", "prompt": {"text": "Why?", "role": "prompter", "replies": [
        {"text": "No.", "role": "assistant", "rank": 1, "replies": []},
        {"text": "So.", "role": "assistant", "rank": 0, "replies": []},
        {"text": "Eh.", "role": "assistant", "rank": None, "replies": []}]}},
    "CoQA": {"story": "Why?", "questions": ["Well?"], "answers": {"input_text": ["So."], "answer_start": [0]}},
}  # fmt: skip


@pytest.mark.parametrize("name", TRACES)
def test_nested_rows_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    """Most were refused with the advice to rename the columns, some learned their ids."""
    (example,) = read(tmp_path, TRACES[name])
    assert turns(example) == ("u Why?\n\nWell? | a So." if name == "CoQA" else "u Why? | a So.")


def test_a_configuration_of_promptfoo_is_its_tests(tmp_path: Path) -> None:
    """Before its tests, the list of providers or prompts was read."""
    file = tmp_path / "promptfooconfig.yaml"
    file.write_text(
        "prompts:\n- id: one\n  raw: 'Say {{body}}'\nproviders:\n- id: openai:chat\ntests:\n- vars:\n    body: Why?\n"
        "  assert:\n  - type: equals\n    value: So.\n- vars:\n    body: Who?\n  assert:\n  - type: cost\n",
        "utf-8",
    )
    assert [turns(example) for _, example in examples_of(file)] == ["u Why? | a So."]
    table = tmp_path / "tests.csv"
    table.write_text("question,__expected\nWhy?,equals: So.\nWho?,Jo\nHow?,contains: x\n", "utf-8")
    assert [turns(example) for _, example in examples_of(table)] == ["u Why? | a So.", "u Who? | a Jo"]


def test_the_short_exports_of_label_studio_are_a_text_and_its_choice(tmp_path: Path) -> None:
    """The text alone was learned."""
    row = {"id": 1, "text": "It is bad.", "annotator": 1, "annotation_id": 3, "created_at": "2026", "lead_time": 4.5}
    assert turns(read(tmp_path, row | {"mood": "Sad"})[0]) == "u It is bad. | a Sad"
    assert turns(read(tmp_path, row | {"mood": {"choices": ["Sad", "Calm"]}})[0]) == "u It is bad. | a Sad, Calm"
    assert turns(read(tmp_path, row | {"mood": '{"choices": ["Sad"]}'})[0]) == "u It is bad. | a Sad"


def test_what_is_not_used_of_a_trace_is_named(tmp_path: Path) -> None:
    row = {"inputs": {"question": "Why?", "user_id": "u", "context": "It rains."}, "outputs": {"answer": "So.", "n": 3}}
    assert turns(read(tmp_path, row)[0]) == "u It rains.\n\nWhy? | a So."
    assert left(tmp_path) == {"The column “inputs.user_id”", "The column “outputs.n”"}


def test_a_table_with_json_in_its_cells_is_a_trace_and_an_answer_that_is_json_stays_one(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([["inputs", "outputs"], ['{"question": "Why?"}', '{"answer": "So."}']])
    assert [turns(example) for _, example in examples_of(file)] == ["u Why? | a So."]
    (example,) = read(tmp_path, {"input": "Name it.", "output": '{"answer": "So."}'})
    assert turns(example) == 'u Name it. | a {"answer": "So."}'
    (example,) = read(tmp_path, {"instruction": "Why?", "input": "", "output": "{}"})
    assert turns(example) == "u Why? | a {}"


def test_a_tree_is_followed_along_its_best_answers(tmp_path: Path) -> None:
    def node(text: str, role: str, rank: int | None, *replies: Row) -> Row:
        return {"message_id": text, "text": text, "role": role, "rank": rank, "replies": [*replies]}

    root = node("a", "prompter", None, node("b", "assistant", 1), node("c", "assistant", 0, node("d", "prompter", 0,
        node("e", "assistant", 0), node("f", "assistant", 1)), node("g", "prompter", 1)))  # fmt: skip
    assert turns(read(tmp_path, {"message_tree_id": "1", "prompt": root})[0]) == "u a | a c | u d | a e"
    assert "Other branches of conversations" in left(tmp_path)
    rows = [root | {"parent_id": None}, root["replies"][1] | {"parent_id": "a"}]
    assert [turns(example) for example in read(tmp_path, *rows)] == ["u a | a c | u d | a e"]
    assert "inside a tree" in str(inspect_file(tmp_path / "set.jsonl").problems[0].text)


def test_questions_about_one_text_are_rows_with_it_or_one_conversation(tmp_path: Path) -> None:
    race = {"article": "It rains.", "questions": ["Why?", "Who?"], "options": [["So.", "No."], ["Jo", "Zoe"]],
        "answers": ["A", "B"]}  # fmt: skip
    assert [turns(example) for example in read(tmp_path, race)] == [
        "u It rains.\n\nWhy?\nA. So.\nB. No. | a A. So.",
        "u It rains.\n\nWho?\nA. Jo\nB. Zoe | a B. Zoe",
    ]
    assert len(read(tmp_path, race, race | {"answers": ["A"]})) == 2, "an answer is missing, and nothing says whose"
    marks = {"followup": "y", "yesno": "x"}
    quac = {"paragraphs": [{"context": "It rains.", "qas": [
        marks | {"question": "Why?", "orig_answer": {"text": "So."}},
        marks | {"question": "Really?", "answers": [{"text": "Yes."}]}]}]}  # fmt: skip
    assert turns(read(tmp_path, quac)[0]) == "u It rains.\n\nWhy? | a So. | u Really? | a Yes."


REFUSED: dict[str, tuple[Row, str]] = {
    "an output of a batch": ({"custom_id": "1", "response": {"body": {"choices": [{"message": A}]}}, "error": None},
        "“body”"),
    "an input of a batch": ({"custom_id": "1", "method": "POST", "body": {"messages": [U]}}, "“response”"),
    "only a score": ({"inputs": {"input": "Why?", "input_prediction": "So."}, "outputs": {"score": 1}},
        "inputs.input_prediction"),
    "several texts": ({"inputs": {"one": "Why is it?", "two": "How is it?"}, "outputs": {"a": "So."}}, "inputs.two"),
    "no output": ({"inputs": {"question": "Why?"}, "outputs": None}, "“outputs” is empty"),
    "a test without a text": ({"vars": {"a": "Why?"}, "assert": [{"type": "javascript", "value": "x"}]}, "promptfoo"),
    "questions of a bench": ({"question_id": 1, "turns": ["Why?", "And now?"]}, "reference"),
    "a character card": ({"spec": "chara_card_v2", "data": {"name": "Zoe", "first_mes": "Hi", "mes_example": ""}},
        "character card of Zoe"),
    "an old character card": ({"name": "Zoe", "description": "A long text about her.", "first_mes": "Hi there, you",
        "mes_example": "<START>"}, "mes_example"),
    "marks on pictures": ({"data": {"image": "/data/upload/1/a.jpg"}, "annotations": [{"result": [
        {"value": {"rectanglelabels": ["cat"]}}]}]}, "data.image"),
    "marks on pictures beside a text": ({"data": {"image": "https://x.org/a.jpg", "text": "It is so."}, "annotations": [
        {"result": [{"value": {"x": 1, "y": 2, "rectanglelabels": ["cat"]}}]}]}, "data.image"),
    "an unknown shape": ({"id": "1", "payload": {"utterance": {"said": "Why is it so?"}, "reply": "Because of it."}},
        "payload.utterance.said"),
    "words with tags": ({"id": "7", "tokens": ["Zoe", "sings"], "ner_tags": [1, 0]}, "“ner_tags” a tag for each"),
    "a caption": ({"image": {"bytes": "x", "path": "a.jpg"}, "caption": "Two people in a small boat."}, "image"),
    "only numbers": ({"id": 1, "height": 2.5, "when": "2026-01-01"}, "no text to learn in the columns id, height"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_nested_rows_are_refused_by_their_fields(name: str, tmp_path: Path) -> None:
    row, names = REFUSED[name]
    with pytest.raises(DataError) as caught:
        read(tmp_path, row, row)
    assert names in str(caught.value) and "Rename" not in str(caught.value)


def test_a_picture_with_a_character_card_is_one(tmp_path: Path) -> None:
    file = tmp_path / "zoe.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 99 + b"tEXtchara\0e30=")
    with pytest.raises(DataError, match="character card inside"):
        inspect_file(file)


def test_broken_nests_are_errors_of_their_rows(tmp_path: Path) -> None:
    good = {"inputs": {"question": "Why?"}, "outputs": {"answer": "So."}}
    odd: list[Row] = [
        {"inputs": wrong, "outputs": other}
        for wrong in ({}, [], {"a": []}, {"messages": [5]}, {"messages": []}, [[]], {"choices": [None]})
        for other in ({}, [], {"generations": []}, {"generations": [[]]}, {"choices": [5]}, {"message": {}}, [[[]]])
    ]
    assert {turns(example) for example in read(tmp_path, *[good] * 200, *odd)} == {"u Why? | a So."}


def test_messages_with_the_types_and_calls_of_langchain_are_read(tmp_path: Path) -> None:
    call = {"name": "search", "args": {"query": "rain"}, "id": "1", "type": "tool_call"}
    messages = [
        {"type": "human", "content": "Does it rain?"},
        {"type": "ai", "content": "", "tool_calls": [call]},
        {"type": "tool", "content": "No.", "tool_call_id": "1"},
        {"type": "ai", "content": "It does not.", "tool_calls": []},
    ]
    (example,) = read(tmp_path, {"messages": messages})
    assert [message.role for message in example.messages] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(example.messages[1].tool_calls[0].arguments) == {"query": "rain"}


def test_the_body_of_a_question_stands_before_it_unless_it_repeats_that(tmp_path: Path) -> None:
    body, prompt = "Two apples are red.", "How many are red?"
    rows: list[Row] = [{"Body": body, "Question": question, "Answer": "2"} for question in (prompt, f"{body} {prompt}")]
    assert [turns(example) for example in read(tmp_path, *rows)] == [
        f"u {body}\n\n{prompt} | a 2",
        f"u {body} {prompt} | a 2",
    ]


def test_turns_that_a_cell_of_a_table_writes_are_turns(tmp_path) -> None:
    cells = [
        [{"role": role, "content": text}]
        for role, text in (("user", "Why?"), ("assistant", "So."), ("assistant", "No."))
    ]
    line = ",".join(f'"{cell}"' for cell in cells)
    (tmp_path / "a.csv").write_text(f"prompt,chosen,rejected\n{line}\n{line}\n", "utf-8")
    (_, example), *_ = examples_of(tmp_path / "a.csv")
    assert [message.content for message in example.messages] == ["Why?", "So."]


def test_questions_about_a_text_under_other_names(tmp_path) -> None:
    questions = [{"query_id": "1", "query_text": "Who sails?", "answers": ["Anna"]}]
    (tmp_path / "a.json").write_text(
        json.dumps([{"context_text": "Anna sails.", "title": "Sea", "qas": questions}]), "utf-8"
    )
    ((_, example),) = examples_of(tmp_path / "a.json")
    assert [message.content for message in example.messages] == ["Anna sails.\n\nWho sails?", "Anna"]


def test_lists_of_texts_under_conversations_are_a_row_each(tmp_path) -> None:
    talks = [["Hello!", "Good day.", "Any news?", "None."], ["Is it open?", "It is."]]
    (tmp_path / "a.json").write_text(json.dumps({"conversations": talks}), "utf-8")
    assert [len(example.messages) for _, example in examples_of(tmp_path / "a.json")] == [4, 2]


def test_an_object_of_many_texts_is_no_row(tmp_path) -> None:
    texts = {f"part_{i}": f"You see a room with {i} doors. Go on." for i in range(9)}
    (tmp_path / "a.json").write_text(json.dumps(texts), "utf-8")
    with pytest.raises(DataError, match="part_1"):
        inspect_file(tmp_path / "a.json")
