"""The short way for rows of texts in a format's own columns says what the long one says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import formats
from core.data.formats import check
from core.data.reading.rows import Row
from core.data.shapes.known import FORMATS
from core.data.shapes.left_out import Tally
from core.data.shapes.plain import plain
from core.recipe import Format

NAMES = ["question", "Question ", "answer", "q", "context", "instruction", "input", "output", "response", "text", "label", "system",
         "history", "chosen", "rejected", "prompt", "completion", "image", "kto_tag", "note"]  # fmt: skip
SAID = (
    st.sampled_from(["What?", "", "  ", "<think>so</think>That.", "<image> That", "true", "false", "a b"])
    | st.none()
    | st.integers(0, 3)
)
ROWS = st.dictionaries(st.sampled_from(NAMES), SAID | st.lists(st.text(max_size=2), max_size=2), min_size=1, max_size=4)
TOLD = st.sampled_from(["What?", "", "  ", "<think>so</think>That.", "a b"]) | st.none() | st.integers(0, 3)
LIKELY = st.one_of(
    st.tuples(st.fixed_dictionaries({"question": TOLD, "answer": TOLD}, optional={"Context": TOLD}), st.just("question_answer")),
    st.tuples(st.fixed_dictionaries({"instruction": TOLD, "output": TOLD}, optional={"input": TOLD}), st.just("alpaca")),
    st.tuples(st.fixed_dictionaries({"text": TOLD, "label": TOLD}), st.just("text_label")),
)


def said(row: dict[str, Any], format: Format) -> tuple[Any, ...]:
    left = Tally()
    return *check(Row(7, row, 9), format, left), left.said()


@settings(max_examples=400)
@given(told=LIKELY | st.tuples(ROWS, st.sampled_from(FORMATS)))
def test_the_short_way_says_what_the_long_one_says(told: tuple[dict[str, Any], Format]) -> None:
    row, format = told
    short = said(row, format)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "plain", lambda values, format: None)
        assert said(row, format) == short


@pytest.mark.parametrize(
    ("row", "format"),
    [
        ({"question": "Q", "answer": "A"}, "question_answer"),
        ({"answer": "A", "Context": "C", "question": "Q"}, "question_answer"),
        ({"instruction": "I", "output": "A", "input": ""}, "alpaca"),
        ({"text": "T", "label": "L"}, "text_label"),
    ],
)
def test_ordinary_rows_go_the_short_way(row: dict[str, Any], format: Format) -> None:
    question, answer = plain(row, format)
    assert [message.content for message in said(row, format)[0].messages] == [question, answer]
