"""The short way for rows of texts in a format's own columns says what the long one says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.data import formats
from core.data.formats import Example, ReadRow, read_example
from core.data.reading import file_rows as reading_rows
from core.data.reading import json_rows
from core.data.reading.file_rows import Row
from core.data.sets import inspection
from core.data.sets.inspection import DataReport, inspect_file
from core.data.shapes.known import FORMATS
from core.data.shapes.left_out import Tally
from core.data.shapes.plain import as_json, plain
from core.errors import DataError
from core.recipe import Format

# Seen on a busy PC: "input generation is slow", which says nothing of the code.
WHATEVER_IT_TAKES = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
NAMES = ["question", "Question ", "answer", "q", "context", "instruction", "input", "output", "response", "text",
    "label", "system",
         "history", "chosen", "rejected", "prompt", "completion", "image", "kto_tag", "note"]  # fmt: skip
SAID = (
    st.sampled_from(["What?", "", "  ", "<think>so</think>That.", "<image> That", "true", "false", "a b"])
    | st.none()
    | st.integers(0, 3)
)
ROWS = st.dictionaries(st.sampled_from(NAMES), SAID | st.lists(st.text(max_size=2), max_size=2), min_size=1, max_size=4)
TOLD = st.sampled_from(["What?", "", "  ", "<think>so</think>That.", "a b"]) | st.none() | st.integers(0, 3)
ROLES, CONTENTS = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", "User", ""]), TOLD
TURN = (
    st.fixed_dictionaries({"role": ROLES, "content": CONTENTS})
    | st.fixed_dictionaries({"from": ROLES, "value": CONTENTS})
    | st.fixed_dictionaries(
        {"role": ROLES | st.none(), "content": CONTENTS}, optional={"weight": st.integers(0, 1), "note": TOLD}
    )
)
IN_TURN = st.lists(st.tuples(TOLD, TOLD), min_size=1, max_size=2).map(
    lambda pairs: [
        {"role": ("user", "assistant")[i % 2], "content": read_row} for i, read_row in enumerate(sum(pairs, ()))
    ]
)
TURNS = (
    st.lists(TURN, max_size=4)
    | IN_TURN
    | IN_TURN.map(lambda turns: [{"role": "system", "content": "Be kind."}, *turns])
    | TOLD
)
LIKELY = st.one_of(
    st.tuples(
        st.fixed_dictionaries({"question": TOLD, "answer": TOLD}, optional={"Context": TOLD}),
        st.just("question_answer"),
    ),
    st.tuples(
        st.fixed_dictionaries({"instruction": TOLD, "output": TOLD}, optional={"input": TOLD}), st.just("alpaca")
    ),
    st.tuples(st.fixed_dictionaries({"text": TOLD, "label": TOLD}), st.just("text_label")),
    st.tuples(st.fixed_dictionaries({"messages": TURNS}), st.just("messages")),
    st.tuples(st.fixed_dictionaries({"conversations": TURNS}), st.just("sharegpt")),
)
# What a line may hold besides ordinary rows.
ODD = [
    "", "{", "[1]", "3", '{"question": "a", "answer": "b"} x', '{"question": "a", "answer": "b", "answer": "c"}',
    '{"question": "a", "answer": NaN}', '{"question": "a", "answer": 1e999}', '{"question": "\\u0000", "answer": "b"}',
    '{"question": "\\ud800", "answer": "b"}', '{"\\udc00": "a", "answer": "b"}', ('{"question": "\\ud83d\\ude00", '
                                                                                  '"answer": "b"}'),
    '\ufeff{"question": "a", "answer": "b"}', ' {"question": "a", "answer": "b"} ',
    '{"question": "' + "9" * 5000 + '", "answer": "b"}',
    '{"question": ' + "9" * 5000 + ', "answer": "b"}', '{"question": ' + "[" * 70 + "]" * 70 + ', "answer": "b"}',
    '{"question": "a\\tb", "answer": "\\"c\\\\\\n\\u00e9"}', '{"问题": "甲", "答案": "乙"}',
]  # fmt: skip


def read_row(row: dict[str, Any], format: Format) -> tuple[Any, ...]:
    left = Tally()
    return *read_example(Row(7, row, 9), format, left), left.summary()


@settings(WHATEVER_IT_TAKES, max_examples=400)
@given(told=LIKELY | st.tuples(ROWS, st.sampled_from(FORMATS)))
def test_the_short_way_says_what_the_long_one_says(told: tuple[dict[str, Any], Format]) -> None:
    row, format = told
    short = read_row(row, format)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "plain", lambda values, format: None)
        assert read_row(row, format) == short


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"question": "Q", "answer": "A"}, "question_answer"),
        ({"answer": "A", "Context": "C", "question": "Q"}, "question_answer"),
        ({"instruction": "I", "output": "A", "input": ""}, "alpaca"),
        ({"text": "T", "label": "L"}, "text_label"),
        (
            {
                "messages": [
                    {"role": "system", "content": "S"},
                    *({"role": r, "content": r} for r in ("user", "assistant")),
                ]
            },
            "messages",
        ),
        ({"conversations": [{"from": r, "value": r} for r in ("human", "gpt", "human", "gpt")]}, "sharegpt"),
    ],
)
def test_ordinary_rows_go_the_short_way(row: dict[str, Any], format: Format) -> None:
    turns = plain(row, format)
    example = read_row(row, format)[0]
    assert turns and [message.content for message in example.messages] == [content for _, content in turns]
    assert as_json(turns) == example.as_json()


def report_and_rows(file: Path) -> tuple[DataReport | str, list[ReadRow]]:
    """What is said of a file and of each of its rows."""
    reads: list[ReadRow] = []
    try:
        return inspect_file(file, keep=reads.append), reads
    except DataError as error:
        return str(error), reads


LINES = st.lists(
    LIKELY.map(lambda told: json.dumps(told[0], ensure_ascii=False)) | st.sampled_from(ODD), min_size=1, max_size=12
)


@settings(WHATEVER_IT_TAKES, max_examples=100)
@example(lines=ODD)
@given(lines=LINES)
def test_a_file_is_read_by_the_short_ways_as_by_the_long_ones(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_text("\n".join(['{"question": "a", "answer": "b"}', *lines]), "utf-8")
    short = report_and_rows(file)
    with pytest.MonkeyPatch.context() as patch:
        for room in (formats, inspection):
            patch.setattr(room, "plain", lambda values, format: None)
        patch.setattr(reading_rows, "is_plain", lambda value: False)
        patch.setattr(json_rows, "decode_line", json.loads)
        assert report_and_rows(file) == short
    for read in short[1]:
        assert read.example is None or Example.from_dict(json.loads(read.example)).as_json() == read.example
