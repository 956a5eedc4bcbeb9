"""What a model family writes around its thoughts and tool calls, translated to one common form. No torch.

gpt-oss and Gemma 4 put thoughts between special tokens, which a decoder leaves out, and the rest of the frame
("analysis", "thought") then stood in the answer. The frames are found by asking the template itself, once a model is
loaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.data.dialect import CLOSE, OPEN
from core.data.template import ChatTemplate
from core.errors import TemplateError

CALL, CALLED = "<tool_call>", "</tool_call>"
_THOUGHT, _SAID, _TOOL, _CITY = "pondering", "replying", "get_weather", "Uppsala"  # words that no frame has
_TOOLS = [{"type": "function", "function": {"name": _TOOL, "description": "Weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "its name"}}, "required": ["city"],
}}}]  # fmt: skip
_RECIPIENT, _CHANNEL = "to=functions.", "<|channel|>commentary "
Marks = Mapping[str, str]  # what the family writes -> what is told


def marks_of(template: ChatTemplate) -> Marks:
    """Empty where thoughts and calls are written in plain words, as most families do, or not at all."""
    found: dict[str, str] = {}
    thinking = _body(template, {"content": _SAID, "reasoning": _THOUGHT}, thinks=True)
    before, _, rest = thinking.partition(_THOUGHT)
    between, _, _ = rest.partition(_SAID)
    if (
        _THOUGHT in thinking
        and _SAID in rest
        and "<think>" not in before
        and _specials(template, before)
        and between.strip()
    ):
        found |= {before.strip(): OPEN, between.strip(): CLOSE.lstrip()}
        plain, _, _ = _body(template, {"content": _SAID}, thinks=False).partition(_SAID)
        if _specials(template, plain) and plain.strip() not in found:
            found[plain.strip()] = ""  # "the answer comes now", where there was no thought
    call = _body(
        template, {"content": "", "tool_calls": [{"name": _TOOL, "arguments": {"city": _CITY}}]}, tools=_TOOLS
    ).lstrip()
    begins = [token for token in _specials(template, call.partition(_TOOL)[0]) if call.startswith(token)]
    ends = [
        token for token in _specials(template, call.partition(_CITY)[2]) if begins and _bare(token) == _bare(begins[0])
    ]
    if begins and ends and CALL not in call:
        found |= {begins[0]: CALL, ends[0]: CALLED}
    if call.partition(_TOOL)[0].endswith(_RECIPIENT):
        found |= _of_harmony(template, call)
    return found


def _of_harmony(template: ChatTemplate, call: str) -> dict[str, str]:
    """Calls of gpt-oss, whose tool stands in the header of the answer: before its channel, as the template writes it,
    or after it, as OpenAI's harmony format also allows. What ends the call most often ends the answer too, and is not
    seen."""
    header, _, rest = call.partition(_TOOL)
    found = {header: CALL, f"{_CHANNEL}{header}": CALL, rest.partition("{")[0]: " ", "<|constrain|>json<|message|>": ""}
    found |= dict.fromkeys(_specials(template, rest.partition(_CITY)[2]), CALLED)
    answer = {"content": "", "reasoning": _THOUGHT, "tool_calls": [{"name": _TOOL, "arguments": {"city": _CITY}}]}
    between = _body(template, answer, tools=_TOOLS).partition(_THOUGHT)[2].partition(_TOOL)[0]
    if turn := between.removesuffix(header).rstrip():
        closed = CLOSE.lstrip() + CALL
        found |= {between: closed, f"{turn}{_CHANNEL}{header}": closed}
    return found


def _body(
    template: ChatTemplate, answer: dict[str, Any], thinks: bool | None = None, tools: list[Any] | None = None
) -> str:
    """An answer as the model would have to write it; "" where the template cannot."""
    try:
        rendered = template.spans([{"role": "user", "content": "a"}, {"role": "assistant", **answer}], tools, thinks)
    except TemplateError:
        return ""
    start, end = rendered.spans[-1]
    return rendered.text[start:end]


def _specials(template: ChatTemplate, text: str) -> list[str]:
    """The special tokens in text, in their order."""
    there = [(text.find(token), token) for token in template.all_special if token and token in text]
    return [token for _, token in sorted(there)]


def _bare(token: str) -> str:
    """ "<|tool_call>" and "<tool_call|>", or "<|tool_call_start|>" and "<|tool_call_end|>", are of one frame."""
    return re.sub(r"[^a-z]|start|end", "", token.lower())


class Retelling:
    """A text that comes in pieces, with marks replaced; what may be the beginning of one is held back until that is
    known."""

    def __init__(self, marks: Marks):
        self._marks, self._held = marks, ""

    def add(self, piece: str) -> str:
        self._held += piece
        told = ""
        while there := [(self._held.find(mark), -len(mark), mark) for mark in self._marks if mark in self._held]:
            at, _, mark = min(there)
            told += self._held[:at] + self._marks[mark]
            self._held = self._held[at + len(mark) :]
        longest = max((len(mark) for mark in self._marks), default=1) - 1
        begun = next(
            (
                n
                for n in range(min(longest, len(self._held)), 0, -1)
                if any(mark.startswith(self._held[-n:]) for mark in self._marks)
            ),
            0,
        )
        told, self._held = told + self._held[: len(self._held) - begun], self._held[len(self._held) - begun :]
        return told

    def rest(self) -> str:
        """What was held back and became no mark."""
        rest, self._held = self._held, ""
        return rest
