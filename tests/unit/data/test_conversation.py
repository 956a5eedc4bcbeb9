"""Messages: thinking, tool calls and weights in every way that files write them become one kind of message, and nothing
goes unsaid."""

from __future__ import annotations

import json

import pytest

from core.data.conversation import ChatMessage, split_thinking
from core.data.formats import Example, read_example
from core.data.reading.file_rows import Row
from core.data.repeats import Repeats
from core.data.shapes.tools import MAX_TOOLS, ToolCall
from tests.kit.templates import TOOLS

ASKED = ChatMessage("user", "Weather?")
CALL = ToolCall("get_weather", '{"city": "Paris"}', "c1")
FLAT = {"name": "get_weather", "arguments": {"city": "Paris"}}
OPENAI = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}


def read(*turns, **columns):
    return read_example(Row(1, {"messages": [{"role": "user", "content": "Weather?"}, *turns], **columns}), "messages")


def answer(turn):
    example, problems = read(turn)
    assert example and not problems, problems
    return example.messages[1]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "Sunny.", "reasoning_content": "Look."},
        {"role": "assistant", "content": "Sunny.", "reasoning": "Look."},
        {"role": "assistant", "content": "Sunny.", "thinking": "Look.\n"},
        {"role": "assistant", "content": "<think>\nLook.\n</think>\n\nSunny."},
        {"role": "assistant", "content": "<think>Look.</think>Sunny.", "reasoning_content": None},
        {"role": "assistant", "content": "Look.\n</think>\nSunny."},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "Look."}, {"type": "text", "text": "Sunny."}],
        },
        {"from": "gpt", "value": "<think>\nLook.\n</think>\n\nSunny."},
    ],
)
def test_thinking_is_read_however_it_is_written(turn):
    assert answer(turn) == ChatMessage("assistant", "Sunny.", "Look.")


@pytest.mark.parametrize("text", ["Use </think> to end it.", "I <think> so", "a</think>", "plain"])
def test_what_only_looks_like_thinking_stays_as_it_is(text):
    assert split_thinking(text) == ("", text)


@pytest.mark.parametrize(
    "format, values",
    [
        ("alpaca", {"instruction": "Weather?", "output": "<think>Look.</think>Sunny."}),
        ("question_answer", {"question": "Weather?", "answer": "<think>\nLook.\n</think>\n\nSunny."}),
    ],
)
def test_thinking_is_read_in_formats_of_two_columns_too(format, values):
    assert read_example(Row(1, values), format)[0] == Example(
        messages=(ASKED, ChatMessage("assistant", "Sunny.", "Look."))
    )


@pytest.mark.parametrize(
    "turns",
    [
        [
            {"role": "assistant", "content": None, "tool_calls": [OPENAI]},
            {"role": "tool", "content": "20", "tool_call_id": "c1"},
        ],
        [
            {"role": "assistant", "tool_calls": [OPENAI | {"index": 0}]},
            {"role": "tool", "content": [{"type": "text", "text": "20"}]},
        ],
        [
            {"role": "assistant", "content": "", "tool_calls": json.dumps([OPENAI])},
            {"role": "function", "content": "20"},
        ],
    ],
)
def test_a_tool_call_and_its_result_are_read_however_they_are_written(turns):
    example, problems = read(*turns, {"role": "assistant", "content": "It is 20."})
    called, result = (
        ChatMessage("assistant", "", tool_calls=(CALL,)),
        ChatMessage("tool", "20", tool_call_id="c1", name="get_weather"),
    )
    assert not problems and example.messages == (ASKED, called, result, ChatMessage("assistant", "It is 20."))


def test_sharegpt_calls_and_observations_and_the_older_function_call_are_tool_calls_too():
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "gpt", "value": "I look."},
        {"from": "function_call", "value": json.dumps(FLAT)},
        {"from": "observation", "value": "20"},
        {"from": "gpt", "value": "It is 20."},
    ]
    example, problems = read_example(
        Row(1, {"conversations": turns, "tools": json.dumps([TOOLS[0]["function"]])}), "sharegpt"
    )
    call = ToolCall("get_weather", CALL.arguments)
    assert not problems and example.messages[1] == ChatMessage("assistant", "I look.", tool_calls=(call,))
    assert example.messages[2] == ChatMessage("tool", "20", name="get_weather") and json.loads(example.tools) == TOOLS
    older = answer(
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
        }
    )
    assert older.tool_calls == (call,)


def test_columns_that_parquet_fills_with_nulls_are_not_there():
    sparse = {"name": "get_weather", "arguments": {"city": "Paris", "unit": None}}
    example, _ = read(
        {"role": "assistant", "content": None, "tool_calls": [sparse], "name": None},
        tools=[{**TOOLS[0], "strict": None}],
    )
    assert example.messages[1].tool_calls[0].arguments == CALL.arguments and json.loads(example.tools) == TOOLS


@pytest.mark.parametrize(
    "turn, columns, sentence",
    [
        ({"tool_calls": "get_weather(Paris)"}, {}, "the tool call in turn 2 is not JSON (get_weather(Paris))"),
        ({"tool_calls": [{"arguments": {}}]}, {}, "a tool call of turn 2 has no name"),
        ({"tool_calls": [{"name": "f", "arguments": "city: Paris"}]}, {}, "“f” in turn 2 are not JSON (city: Paris)"),
        ({"tool_calls": [{"name": "f", "arguments": '["Paris"]'}]}, {}, "“f” in turn 2 are a list, expected an object"),
        ({"tool_calls": [{"name": "f", "arguments": 3}]}, {}, "“f” in turn 2 are a number"),
        ({"tool_calls": "[" * 100_000}, {}, "the tool call in turn 2 is not JSON"),
        ({"content": "a", "weight": 0.5}, {}, "the weight of turn 2 is 0.5; expected 0"),
        ({"content": "a", "weight": 0}, {}, "every answer has weight 0"),
        ({"content": "a"}, {"tools": "weather"}, "the tools are not JSON (weather)"),
        ({"content": "a"}, {"tools": {"get_weather": {}}}, "the tools are an object, expected a list"),
        ({"content": "a"}, {"tools": [{"description": "d"}]}, "tool 1 has no name"),
        ({"content": "a"}, {"tools": [{"name": "f", "description": "x" * MAX_TOOLS}]}, f"the limit is {MAX_TOOLS:,}"),
        ({"content": "a"}, {"tools": "x" * (MAX_TOOLS + 1)}, f"the limit is {MAX_TOOLS:,}"),
        ({"content": "", "reasoning_content": "Look."}, {}, "turn 2 is an empty assistant answer"),
        ({"content": [{"type": "image_url", "image_url": "x"}]}, {}, "turn 2 contains a part of type image_url"),
    ],
)
def test_what_cannot_be_learned_says_why(turn, columns, sentence):
    example, problems = read({"role": "assistant"} | turn, **columns)
    assert example is None and sentence in str(problems[0].text)
    assert problems[0].text.render("zh") != str(problems[0].text)


def test_a_result_without_an_answer_is_left_off_and_said():
    example, problems = read({"role": "assistant", "tool_calls": [OPENAI]}, {"role": "tool", "content": "20"})
    assert example.messages[-1].role == "assistant" and "tool result" in str(problems[0].text)


FULL = Example(
    messages=(
        ASKED, ChatMessage("assistant", "", "Look.", (CALL,)), ChatMessage("tool", "20", tool_call_id="c1",
            name="get_weather"),
        ChatMessage("assistant", "20.", weight=0), ChatMessage("user", "And?"), ChatMessage("assistant", "Fine."),
    ),
    tools=json.dumps(TOOLS),
)  # fmt: skip


def test_an_example_with_all_of_it_survives_json_and_what_was_written_before_is_read():
    assert Example.from_dict(json.loads(json.dumps(FULL.as_dict()))) == FULL
    before = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert Example.from_dict(before).as_dict() == before


def test_rows_that_differ_only_in_thinking_or_calls_are_no_repeats():
    def row(**more):
        return Example(messages=(ASKED, ChatMessage("assistant", "Sunny.", **more)))

    rows = [row(), row(reasoning="Look."), row(reasoning="Feel."), row(tool_calls=(CALL,)), row(reasoning="look")]
    assert list(Repeats.find(rows).first) == [0, 1, 2, 3, 1]
