"""Thoughts and calls between special tokens are told in the words that the page folds, in whatever pieces they come."""

from __future__ import annotations

import re

import pytest

from core.chat.answer_marks import MarkReplacer, marks_of
from core.data.template import ChatTemplate
from tests.kit import templates
from webui.pages.chat_history import with_answer

GPT_OSS = "<|channel|>analysis<|message|>Two and two.<|end|><|start|>assistant<|channel|>final<|message|>It is 4."
GEMMA = "<|channel>thought\nTwo and two.\n<channel|>It is 4."
CALL = 'call:get_weather{city:<|"|>Paris<|"|>}'


def template(name: str) -> ChatTemplate:
    source = (templates.FOLDER / f"{name}.jinja").read_text("utf-8")
    return ChatTemplate(source, templates.TOKENS, frozenset(re.findall(r"<\|?[a-zA-Z_]+\|?>|<\|\"\|>", source)))


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("name", "written", "told"),
    [
        ("gptoss", GPT_OSS, "<think>\nTwo and two.</think>\n\nIt is 4."),
        ("gptoss", "<|channel|>final<|message|>It is 4.", "It is 4."),
        ("gemma4_v5", GEMMA, "<think>\n\nTwo and two.\n</think>\n\nIt is 4."),
        ("gemma4_v5", f"<|tool_call>{CALL}<tool_call|>", f"<tool_call>{CALL}</tool_call>"),
        ("lfm2_2_5", "<|tool_call_start|>[f(a=1)]<|tool_call_end|>", "<tool_call>[f(a=1)]</tool_call>"),
        ("gemma4_v5", "a < b and <|chan", "a < b and <|chan"),
        ("gptoss", "<|channel|>analysis<|message|>It never ends", "<think>\nIt never ends"),
        (
            "gptoss",
            ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>',
            ' <tool_call>f {"a": 1}</tool_call>',
        ),
        (
            "gptoss",
            '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}',
            '<tool_call>f {"a": 1}',
        ),
        (
            "gptoss",
            (
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
                "<|constrain|>json<|message|>{}"
            ),
            "<think>\nHm.</think>\n\n<tool_call>f {}",
        ),
        (
            "gptoss",
            (
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant to=functions.f<|channel|>commentary "
                "json<|message|>{}<|call|>"
            ),
            "<think>\nHm.</think>\n\n<tool_call>f {}</tool_call>",
        ),
    ],
)
def test_what_a_family_writes_is_told_in_common_words(name: str, written: str, told: str, size: int) -> None:
    """gpt-oss: "analysisTwo and two.assistantfinalIt is 4.", as one answer."""
    stream = MarkReplacer(marks_of(template(name)))
    pieces = [stream.add(written[at : at + size]) for at in range(0, len(written), size)]
    assert "".join(pieces) + stream.rest() == told


def test_a_thought_of_gpt_oss_and_a_call_of_gemma_4_are_folded() -> None:
    thought = with_answer([], MarkReplacer(marks_of(template("gptoss"))).add(GPT_OSS + " "), "Thinking", "Call")
    assert (
        "lg-thought" in thought[0]["content"]
        and "Two and two." in thought[0]["content"]
        and "It is 4." in thought[1]["content"]
    )
    call = with_answer(
        [], MarkReplacer(marks_of(template("gemma4_v5"))).add(f"<|tool_call>{CALL}<tool_call|>"), "Thinking", "Call"
    )
    assert "lg-call" in call[0]["content"] and "get_weather" in call[0]["content"]


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "llama3_1", "phi3", "deepseekv3", "glm4moe", "smolvlm"])
def test_families_that_write_plain_words_are_left_alone(name: str) -> None:
    assert marks_of(template(name)) == {}


class Letters:
    """A tokenizer of one token a character, but for marks, which are one each and special."""

    def __init__(self, *special: str) -> None:
        self.special = special

    def encode(self, text: str) -> list[int]:
        parts = re.split(f"({'|'.join(map(re.escape, self.special))})", text)
        return [
            id for part in parts for id in ([-1 - self.special.index(part)] if part in self.special else map(ord, part))
        ]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(id) if id >= 0 else "" if skip_special_tokens else self.special[-1 - id] for id in ids)


def test_the_stream_of_an_answer_tells_them_token_by_token() -> None:
    from core.chat.text_stream import TextStream

    tokenizer = Letters("<|channel|>", "<|message|>", "<|end|>", "<|start|>")
    stream = TextStream(tokenizer, marks_of(template("gptoss")))  # type: ignore[arg-type]
    assert (
        "".join(map(stream.add, tokenizer.encode(GPT_OSS))) + stream.rest()
        == "<think>\nTwo and two.</think>\n\nIt is 4."
    )
    plain = TextStream(tokenizer)  # type: ignore[arg-type]
    assert (
        "".join(map(plain.add, tokenizer.encode(GPT_OSS))) + plain.rest()
        == "analysisTwo and two.assistantfinalIt is 4."
    )
