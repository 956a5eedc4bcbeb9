"""What a reader leaves out of a row is counted and named: no value vanishes in silence, and no bad answer is learned
like a good one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.formats import read_example
from core.data.reading.file_rows import Row
from core.data.sets.inspection import inspect_file
from core.data.shapes.known import recognize_format
from core.data.shapes.left_out import LONGEST_NAME, MAX_NAMED, Tally
from core.data.store import DatasetStore
from core.errors import DataError
from core.messages import LANGUAGES, core_catalogue
from tests.kit.read_examples import examples_of

TURNS = [{"role": "user", "content": "Sun?"}, {"role": "assistant", "content": "Yes."}]
SHORT = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
# Columns and fields that people have, some of which a format reads and some of which it does not.
NAMES = ("id", "source", "system", "tools", "label", "kto_tag", "weight", "images", "q", "a", "context", "input",
    "history", "rejected", "name", "refusal",
         "reasoning", "thinking", "tool_call_id", "function_call", "content", "value", "from", "completion", "response",
         "Question", "functions")  # fmt: skip
leaf = st.just("?") | st.none() | st.just("") | st.integers(0, 3) | st.booleans()
anything = st.recursive(
    leaf,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)
extra = st.dictionaries(st.sampled_from(NAMES), anything, max_size=3)
part = st.builds(lambda more: {"type": "text", "text": "?"} | more, extra)
call = st.builds(
    lambda more, inner: {"id": "?", "type": "function", "function": {"name": "?",
        "arguments": {"a": "?"}} | inner} | more,
    extra, extra,
)  # fmt: skip
asked = st.builds(
    lambda more, said: {"role": "user", "content": said} | more,
    extra,
    st.just("?") | st.lists(part, min_size=1, max_size=2),
)
answered = st.builds(lambda more, calls: {"role": "assistant",
    "content": "?"} | ({"tool_calls": calls} if calls else {}) | more, extra, st.lists(call, max_size=1))  # fmt: skip
turns = st.builds(lambda q, a, last: [q, a, *last], asked, answered, st.just([]) | st.lists(asked, max_size=1))
PAIRS = (("instruction", "output"), ("question", "answer"), ("prompt", "completion"), ("text", "label"), ("text",))
pair = st.sampled_from(PAIRS).map(lambda names: dict.fromkeys(names, "?"))
worse = st.builds(lambda q, a: {"chosen": [q, a], "rejected": "?"}, asked, answered)
preference = st.one_of(
    worse, worse.map(lambda row: {"prompt": "?"} | row), asked.map(lambda q: {"messages": [q], "chosen": "?",
        "rejected": "?"}),
    worse.map(lambda row: {"prompt": [dict(row["chosen"][0])]} | row),
)  # fmt: skip
others = st.sampled_from(({"question": "?", "answers": {"text": ["?", "?"], "answer_start": ["?"]}}, {"question": "?",
    "context": "?", "answers": [{"text": "?", "id": "?"}]},
                          {"dialog": ["?", "?", "?", "?"]}, {"turns": [["?", "?"], ["?", "?"]]}, {"instruction": "?",
                              "output": "?", "history": [["?", "?"]]},
                          {"prompt": [{"role": "user", "content": "?"}], "completion": [{"role": "assistant",
                              "content": "?", "id": "?"}]}))  # fmt: skip
rows = st.builds(
    lambda more, row: more | row, extra, pair | turns.map(lambda found: {"messages": found}) | preference | others
)


def numbered(value: Any, at: list[int]) -> Any:
    """value with a text of its own in the place of each "?"."""
    if isinstance(value, dict):
        return {key: numbered(part, at) for key, part in value.items()}
    if isinstance(value, list):
        return [numbered(part, at) for part in value]
    if value == "?":
        at[0] += 1
        return f"said{at[0]}."
    return value


def leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(value, dict):
        return [leaf for key, part in value.items() for leaf in leaves(part, (*path, key))]
    if isinstance(value, list):
        return [leaf for part in value for leaf in leaves(part, path)]
    return [(value, path)] if isinstance(value, str) and value.startswith("said") else []


def text_loss(values: dict[str, Any], format: Any = None) -> tuple[Any, list[Any], dict[tuple[str, str], int]]:
    tally = Tally()
    row = Row(1, copy.deepcopy(values))
    example, problems = read_example(row, format or recognize_format([row]), tally)
    return (
        example,
        problems,
        {(one.what.key.partition(".")[2], one.what.params["name"]): one.count for one in tally.summary()},
    )


@SHORT
@given(rows)
def test_no_value_of_a_row_vanishes_unnamed(values: dict[str, Any]) -> None:
    values = numbered(values, [0])
    example, problems, left = text_loss(values)
    if example is None:
        assert problems or ("row", "") in left
        return
    taken, names = json.dumps(example.as_dict()), {name.lower() for _, name in left}
    for text, path in leaves(values):
        in_last_turn = ("turn", "") in left and text in json.dumps(values.get("messages", [0])[-1])
        assert text in taken or in_last_turn or names & {name.lower() for name in path}, (text, path, left, taken)


@pytest.mark.parametrize(
    "values, named",
    [
        ({"question": "a", "answer": "b", "category": "c", "empty": "", "none": None, "list": []}, {("column",
            "category")}),
        ({"question": "a", "answer": "b", "q": "other", "id": 0}, {("column", "q"), ("column", "id")}),
        ({"question": "a", "answer": "b", "Question ": "c"}, {("column", "Question ")}),
        ({"text": "a", "system": "b"}, {("column", "system")}),
        ({"instruction": "a", "output": "b", "tools": "[]"}, {("column", "tools")}),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "chosen": {"from": "gpt",
            "value": "c"}}, {("column", "chosen")}),
        ({"messages": [*TURNS, TURNS[0]]}, {("turn", "")}),
        ({"messages": [TURNS[0] | {"name": "Eva", "audio": {"id": "x"}}, TURNS[1]]}, {("field", "name"), ("field",
            "audio")}),
        ({"messages": [TURNS[0], TURNS[1] | {"reasoning": "a", "thinking": "b"}]}, {("field", "thinking")}),
        ({"messages": [TURNS[0], TURNS[1] | {"reasoning": "a", "thinking": "a", "refusal": None}]}, set()),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]},
            TURNS[1]]}, {("part", "cache_control")}),
        ({"messages": [TURNS[0], TURNS[1] | {"tool_calls": [{"index": 1, "name": "f", "strict": True}]}]}, {("call",
            "index"), ("call", "strict")}),
        ({"messages": TURNS, "tools": [{"type": "function", "function": {"name": "f"}, "cost": 3}]}, {("tool",
            "cost")}),
        ({"messages": [{"role": "system", "content": "Be brief."}, *TURNS], "system": "Be long."}, {("column",
            "system")}),
        ({"messages": TURNS, "images": ["a.png"]}, {("column", "images")}),
        ({"messages": TURNS, "label": True}, set()),
        ({"messages": TURNS, "label": 0}, {("column", "label")}),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named_by_its_place(values: dict[str, Any], named: set[tuple[str, str]]) -> None:
    example, _, left = text_loss(values)
    assert example and left.keys() == named


@pytest.mark.parametrize("mark", [{"label": False}, {"label": "False"}, {"kto_tag": False}])
@pytest.mark.parametrize(
    "values", [{"messages": TURNS}, {"prompt": "a", "completion": "b"}, {"question": "a", "answer": "b"}]
)
def test_an_answer_that_is_marked_as_bad_is_not_learned(values: dict[str, Any], mark: dict[str, Any]) -> None:
    """Seen: sets for KTO lost their label, and bad answers were learned like good ones."""
    assert text_loss(values | mark) == (None, [], {("row", ""): 1})


def test_bad_answers_are_counted_and_a_file_of_nothing_else_is_a_sentence(tmp_path) -> None:
    file = tmp_path / "kto.jsonl"
    file.write_text(
        "".join(json.dumps({"prompt": f"p{n}", "completion": "c", "label": n % 3 == 0}) + "\n" for n in range(9))
    )
    report = inspect_file(file)
    assert (report.rows, report.good_rows, report.problem_count) == (9, 3, 0)
    assert [(str(one.what), one.count) for one in report.left_out] == [("Rows whose answer is marked as bad", 6)]
    assert [row for row, _ in examples_of(file)] == [1, 4, 7]
    file.write_text(json.dumps({"prompt": "p", "completion": "c", "label": False}))
    with pytest.raises(DataError, match="all 1 answers are marked as bad"):
        list(examples_of(file))


@pytest.mark.parametrize(
    "values",
    [
        {"messages": [{"role": "user", "content": "<image>What is this?"}, TURNS[1]], "images": ["a.png"]},
        {"instruction": "Describe <|image_1|>", "output": "A cat.", "image": {"bytes": "x"}},
    ],
)
def test_a_row_that_points_at_a_picture_is_refused(values: dict[str, Any]) -> None:
    """Seen: the placeholder was learned as text."""
    example, problems, _ = text_loss(values)
    assert example is None and "uses text only" in str(problems[0].text)


def test_a_mark_in_plain_text_without_any_picture_stays() -> None:
    assert text_loss({"text": "In HTML, <img> shows a picture."})[0].text


def test_a_file_with_endless_columns_is_counted_and_not_listed(tmp_path) -> None:
    file = tmp_path / "a.jsonl"
    many = [{"question": "a", "answer": "b", f"column {n} " + "x" * 500: n} for n in range(MAX_NAMED + 50)]
    file.write_text("\n".join(map(json.dumps, many)))
    left = inspect_file(file).left_out
    assert len(left) == MAX_NAMED + 1 and left[0].what.key == "left_out.more" and left[0].count == 50
    assert all(len(one.what.params["name"]) <= LONGEST_NAME for one in left)


def test_the_store_keeps_it_and_it_is_said_in_both_languages(tmp_path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("question,answer,price\na,b,3\nc,d,4\ne,f,\n")
    store = DatasetStore(tmp_path / "datasets", tmp_path)
    info = store.import_file(file)
    assert [(one.what.params["name"], one.count) for one in info.left_out] == [("price", 2)]
    assert store.get(info.id).left_out == info.left_out == store.report(info.id).left_out
    for language in LANGUAGES:
        assert "price" in info.left_out[0].what.render(language) and len(info.left_out[0].why.render(language)) > 10


def test_every_place_and_reason_has_its_sentence() -> None:
    keys = core_catalogue().keys("en")
    chat = ("chat_media", "chat_deleted", "chat_link", "chat_app", "chat_unasked", "chat_unanswered")
    for place in (
        "column",
        "field",
        "part",
        "call",
        "tool",
        "answer",
        "turn",
        "row",
        "branch",
        "message",
        *chat,
        "more",
    ):
        assert {f"left_out.{place}", f"left_out.why_{place}"} <= keys
