"""Formats: the same conversation in every format becomes the same messages, and every bad row says why."""

import json
import sys

import pytest

from core.data import formats
from core.data.conversation import ChatMessage
from core.data.formats import Example, read_example
from core.data.reading.file_rows import Limits, Row
from core.data.sets.inspection import inspect_file
from core.data.shapes.known import FORMATS, recognize_format
from core.errors import DataError
from core.messages import msg
from tests.kit.read_examples import examples_of

U, A = "What is a crêpe?", "A thin pancake."
TURNS = [{"role": "user", "content": U}, {"role": "assistant", "content": A}]
PAIR = Example(messages=(ChatMessage("user", U), ChatMessage("assistant", A)))
SYSTEM = Example(messages=(ChatMessage("system", "Be brief."), *PAIR.messages))


def example(values, format=None):
    row = Row(1, values)
    parsed, problems = read_example(row, format or recognize_format([row]))
    assert parsed, problems
    return parsed


def jsonl(folder, *rows, name="a.jsonl"):
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    "format, values",
    [
        ("messages", {"messages": TURNS}),
        ("messages", {"Messages": TURNS, "id": 7}),
        ("messages", {"conversations": TURNS}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": U}]}, TURNS[1]]}),
        ("messages", {"messages": [{"role": "user", "content": ["What is ", "a crêpe?"]}, TURNS[1]]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": U}, {"from": "gpt", "value": A}]}),
        ("sharegpt", {"conversations": [{"from": "user", "value": U}, {"from": "assistant", "value": A}]}),
        ("sharegpt", {"messages": [{"from": "Human", "value": U}, {"from": "GPT", "value": A}]}),
        ("alpaca", {"instruction": U, "input": "", "output": A}),
        ("alpaca", {"instruction": U, "output": A}),
        ("alpaca", {"instruction": "", "input": U, "output": A}),
        ("alpaca", {" Instruction ": U, "INPUT": None, "Output": A}),
        ("alpaca", {"instruction": U, "context": "", "response": A, "category": "x"}),
        ("alpaca", {"指令": U, "输入": "", "输出": A}),
        ("question_answer", {"question": U, "answer": A}),
        ("question_answer", {"Q": U, "A": A}),
        ("question_answer", {"问题": U, "答案": A}),
        ("text_label", {"text": U, "label": A}),
    ],
)
def test_one_conversation_in_every_format_is_the_same_messages(format, values):
    assert recognize_format([Row(1, values)]) == format
    assert example(values) == PAIR
    if format not in ("messages", "sharegpt") or "system" not in values:
        assert example({**values, "System": "Be brief."}) == SYSTEM


@pytest.mark.parametrize(
    "format, values, expected",
    [
        ("prompt_completion", {"prompt": "2+2=", "completion": "4"}, Example(prompt="2+2=", completion="4")),
        ("prompt_completion", {"prompt": "2+2=", "response": " 4\n"}, Example(prompt="2+2=", completion=" 4\n")),
        ("text", {"text": "Once upon a time."}, Example(text="Once upon a time.")),
        (
            "text_label",
            {"text": "cheap pills", "label": 1},
            Example(messages=(ChatMessage("user", "cheap pills"), ChatMessage("assistant", "1"))),
        ),
    ],
)
def test_raw_formats_are_left_as_they_stand(format, values, expected):
    assert recognize_format([Row(1, values)]) == format
    assert example(values) == expected


def test_alpaca_joins_instruction_and_input_with_an_empty_line():
    translated = example({"instruction": "Translate.", "input": "crêpe", "output": "pancake"})
    assert translated.messages[0] == ChatMessage("user", "Translate.\n\ncrêpe")


def test_several_turns_and_a_system_turn_keep_their_order():
    turns = [
        {"role": "system", "content": "S"},
        *TURNS,
        {"role": "user", "content": "More?"},
        {"role": "assistant", "content": "No."},
    ]
    assert [m.role for m in example({"messages": turns}).messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]


def test_the_shape_of_most_rows_decides():
    rows = [Row(1, {"text": "a"}), *(Row(i, {"question": U, "answer": A}) for i in (2, 3))]
    assert recognize_format(rows) == "question_answer"


def test_an_unknown_shape_lists_columns_and_shapes():
    with pytest.raises(DataError) as caught:
        recognize_format([Row(1, {"foo": 1, "bar": 2})])
    assert str(caught.value) == (
        f"The columns foo, bar do not match any known format. Expected one of: {msg('data.shapes')}. "
        "Say what each column is under “Data” (--columns question=...,answer=... on the command line)."
    )
    assert "foo、bar" in caught.value.message.render("zh")


def turns(*pairs):
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


BAD = [
    ("alpaca", {"instruction": U, "input": "", "output": ""}, "the answer is empty"),
    ("alpaca", {"instruction": U, "output": None}, "the answer is empty"),
    ("alpaca", {"instruction": " ", "input": "", "output": A}, "the question is empty"),
    ("alpaca", {"instruction": U}, "the column “output” is missing, found instruction"),
    ("alpaca", {"instruction": ["a"], "output": A}, "“instruction” is a list, expected text"),
    ("alpaca", {"instruction": 5, "output": A}, "“instruction” is a number, expected text"),
    ("alpaca", {"instruction": "", "input": None, "output": " "}, "every column is empty"),
    ("alpaca", {"instruction": U, "output": A, "system": 3}, "“system” is a number, expected text"),
    ("alpaca", {}, "every column is empty"),
    ("question_answer", {"question": U, "answer": " \n"}, "the answer is empty"),
    ("prompt_completion", {"prompt": "a", "completion": ""}, "the answer is empty"),
    ("prompt_completion", {"prompt": [1], "completion": "b"}, "“prompt” is a list, expected text"),
    ("text", {"text": "", "id": 3}, "the text is empty"),
    ("text", {"text": {"a": 1}}, "“text” is an object, expected text"),
    ("text_label", {"text": "a", "label": None}, "the answer is empty"),
    ("messages", {"messages": "oops"}, "“messages” is text, expected a list of turns"),
    ("messages", {"messages": []}, "“messages” is an empty list"),
    ("messages", {"other": 1}, "the column “messages” is missing, found other"),
    ("messages", {"messages": ["hello"]}, "turn 1 is text, expected an object with role and content"),
    ("messages", {"messages": [{"speaker": "x"}]}, "turn 1 has speaker, expected role and content"),
    ("messages", turns(("user", "a")), "no assistant turn"),
    ("messages", turns(("user", "a"), ("user", "b")), "no assistant turn"),
    ("messages", turns(("system", "a")), "no assistant turn"),
    ("messages", turns(("assistant", "a"), ("user", "b")), "turn 1 is assistant, expected user"),
    ("messages", turns(("user", "a"), ("user", "b"), ("assistant", "c")), "turn 2 is user, expected assistant"),
    ("messages", turns(("user", "a"), ("assistant", "b"), ("system", "c")), "turn 3 is system, expected user"),
    ("messages", turns(("system", "s"), ("user", "a"), ("assistant", "")), "turn 3 is an empty assistant answer"),
    ("messages", turns(("user", ""), ("assistant", "b")), "turn 1 (user) is empty"),
    ("messages", turns(("user", "a"), ("assistant", None)), "turn 2 is an empty assistant answer"),
    ("messages", turns(("user", "a"), ("assistant", 5)), "the content of turn 2 is a number, expected text"),
    (
        "messages",
        turns(("user", "a"), ("narrator", "b")),
        "turn 2 has the role “narrator”, expected one of system, user, assistant",
    ),
    (
        "messages",
        turns(("user", [{"type": "image_url"}]), ("assistant", "b")),
        "turn 1 contains a part of type image_url",
    ),
    (
        "messages",
        {**turns(("user", "a"), ("user", "b"), ("assistant", "c")), "system": "s"},
        "turn 2 is user, expected assistant",
    ),
    ("sharegpt", {"conversations": [{"from": "human", "value": "a"}]}, "no assistant turn"),
]


@pytest.mark.parametrize("format, values, sentence", BAD)
def test_a_row_that_cannot_be_learned_from_says_why(format, values, sentence):
    example, problems = read_example(Row(118, values), format)
    assert example is None
    assert [(problem.row, problem.severity) for problem in problems] == [(118, "error")]
    assert sentence in str(problems[0].text)
    assert str(problems[0].sentence).startswith("Row 118: ")
    assert problems[0].sentence.render("zh").startswith("第 118 条：")


def test_a_trailing_user_turn_is_left_off_with_a_warning():
    example, problems = read_example(Row(3, turns(("user", U), ("assistant", A), ("user", "And?"))), "messages")
    assert example == PAIR
    assert [(p.row, p.severity, str(p.text)) for p in problems] == [
        (3, "warning", "the last turn is from the user and has no answer; it was dropped.")
    ]


def test_a_system_turn_wins_over_a_system_column_and_says_so():
    example, problems = read_example(
        Row(1, {**turns(("system", "mine"), ("user", U), ("assistant", A)), "system": "other"}), "messages"
    )
    assert example.messages[0].content == "mine" and problems[0].severity == "warning"


@pytest.mark.parametrize("value", [PAIR, SYSTEM, Example(text="a"), Example(prompt="a", completion="b")])
def test_an_example_survives_json(value):
    assert Example.from_dict(json.loads(json.dumps(value.as_dict()))) == value


def test_an_example_is_exactly_one_thing():
    for wrong in ({}, {"prompt": "a"}, {"text": "a", "messages": PAIR.messages}):
        with pytest.raises(ValueError):
            Example(**wrong)


# --- whole files -----------------------------------------------------------------------------------------------------


def test_a_report_lists_every_problem_by_row(tmp_path):
    path = jsonl(
        tmp_path,
        {"question": "q1", "answer": "a1"},
        '{"question": "q2", "answer": ',
        {"question": "q3", "answer": ""},
        {"question": "q1", "answer": "a1"},
        {"question": "q5", "answer": "a5", "source": "x"},
    )
    report = inspect_file(path)
    assert (report.format, report.kind, report.encoding) == ("question_answer", "jsonl", "utf-8")
    assert (report.rows, report.good_rows, report.duplicates) == (5, 3, 1)
    assert report.columns == ("question", "answer", "source")
    assert [(p.row, p.severity) for p in report.problems] == [(2, "error"), (3, "error"), (4, "warning")]
    assert [str(p.sentence) for p in report.problems][1:] == [
        "Row 3 (line 3): the answer is empty: write one, or remove the row.",
        "Row 4 (line 4): identical to row 1.",
    ]
    assert report.bytes == path.stat().st_size
    assert type(report).model_validate_json(report.model_dump_json()) == report
    assert [row for row, _ in examples_of(path)] == [1, 4, 5]


def test_problems_beyond_the_limit_are_counted_and_errors_come_before_warnings(tmp_path):
    good = {"question": "q", "answer": "a"}
    path = jsonl(tmp_path, *([good] * 50), *([{"question": "q", "answer": ""}] * 30))
    report = inspect_file(path, limits=Limits(problems=40))
    assert (report.problem_count, report.error_count, len(report.problems), report.duplicates) == (79, 30, 40, 49)
    assert [p.severity for p in report.problems] == ["warning"] * 10 + ["error"] * 30


def test_rows_are_good_or_have_an_error(tmp_path):
    rows = [values for format, values, _ in BAD if format == "messages"] + [{"messages": TURNS}] * 2
    report = inspect_file(jsonl(tmp_path, *rows), "messages")
    assert (report.rows, report.good_rows) == (len(rows), 2)
    assert report.error_count == len(rows) - 2


def test_one_good_row_after_thousands_of_broken_ones_is_found(tmp_path):
    report = inspect_file(jsonl(tmp_path, *(['{"text": '] * 3000), {"text": "good"}))
    assert (report.rows, report.good_rows, report.problem_count, len(report.problems)) == (3001, 1, 3000, 1000)


def test_a_format_may_be_chosen(tmp_path):
    path = jsonl(tmp_path, {"text": "a", "label": "b"})
    assert next(examples_of(path, "text")) == (1, Example(text="a"))
    with pytest.raises(DataError, match="“chatml” is not a known format. Expected one of messages"):
        inspect_file(path, "chatml")


@pytest.mark.parametrize(
    "rows, sentence",
    [
        (['{"question": "a"', "{"], "No row of a.jsonl can be used. The first problem: Row 1 (line 1): broken JSON"),
        ([{"question": "a", "answer": ""}], "The first problem: Row 1 (line 1): the answer is empty"),
        (["[]"], "a.jsonl has no rows"),
    ],
)
def test_a_file_that_teaches_nothing_is_an_error_with_its_first_problem(tmp_path, rows, sentence):
    with pytest.raises(DataError) as caught:
        list(examples_of(jsonl(tmp_path, *rows)))
    assert sentence in str(caught.value)


def test_a_csv_with_only_a_header_has_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer\n")
    with pytest.raises(DataError, match="a.csv has no rows"):
        inspect_file(tmp_path / "a.csv")


def test_the_same_rows_in_every_kind_of_file_are_the_same_examples(tmp_path):
    import csv

    import pyarrow
    import pyarrow.parquet

    rows = [{"instruction": f'问 {i}, "so"', "input": "x\ny" * (i % 2), "output": f"a;{i}"} for i in range(300)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1), "utf-8")
    jsonl(tmp_path, *rows)
    with open(tmp_path / "a.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    kinds = [list(examples_of(tmp_path / f"a.{kind}")) for kind in ("json", "jsonl", "csv", "parquet")]
    assert len(kinds[0]) == 300 and all(kind == kinds[0] for kind in kinds)
    nested = [{"messages": [{"role": m.role, "content": m.content} for m in e.messages]} for _, e in kinds[0]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(nested), tmp_path / "b.parquet")
    assert list(examples_of(tmp_path / "b.parquet")) == kinds[0]


def test_every_format_that_a_recipe_may_name_has_its_columns_and_its_reader() -> None:
    assert set(formats.COLUMNS) == set(formats._CONVERT) == set(FORMATS)


def test_reading_data_imports_no_torch_and_no_datasets():
    import subprocess

    code = (
        "import core.data.store, sys; print([m for m in ('torch', 'transformers', 'gradio', 'datasets', 'pyarrow') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
