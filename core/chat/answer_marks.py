"""Translates a model family's markup of thoughts and tool calls to one common form. No torch.

gpt-oss and Gemma 4 put thoughts between special tokens, which a decoder drops, and the rest of the markup ("analysis",
"thought") would remain in the answer. The marks are found by rendering test answers with the model's own template after
loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from core.data.dialect import CLOSE, OPEN
from core.data.template import ChatTemplate
from core.errors import TemplateError
from core.files import JsonObject

CALL, CALLED = "<tool_call>", "</tool_call>"
_THOUGHT, _REPLY, _TOOL, _CITY = "pondering", "replying", "get_weather", "Uppsala"  # words that no markup contains
_TOOLS = [{"type": "function", "function": {"name": _TOOL, "description": "Weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "its name"}}, "required": ["city"],
}}}]  # fmt: skip
_RECIPIENT, _CHANNEL = "to=functions.", "<|channel|>commentary "
Marks = Mapping[str, str]  # the family's markup -> its replacement


def marks_of(template: ChatTemplate) -> Marks:
    """Return what each special token for thoughts and tool calls in a template's answers becomes in our common form; {}
    if it writes them in plain text, as most families do, or not at all."""
    marks: dict[str, str] = {}
    thinking = _assistant_text(template, {"content": _REPLY, "reasoning": _THOUGHT}, thinks=True)
    before, _, rest = thinking.partition(_THOUGHT)
    between, _, _ = rest.partition(_REPLY)
    if (
        _THOUGHT in thinking
        and _REPLY in rest
        and "<think>" not in before
        and _specials(template, before)
        and between.strip()
    ):
        marks |= {before.strip(): OPEN, between.strip(): CLOSE.lstrip()}
        plain, _, _ = _assistant_text(template, {"content": _REPLY}, thinks=False).partition(_REPLY)
        if _specials(template, plain) and plain.strip() not in marks:
            marks[plain.strip()] = ""  # the mark of an answer without a thought
    call = _assistant_text(
        template, {"content": "", "tool_calls": [{"name": _TOOL, "arguments": {"city": _CITY}}]}, tools=_TOOLS
    ).lstrip()
    begins = [token for token in _specials(template, call.partition(_TOOL)[0]) if call.startswith(token)]
    ends = [
        token
        for token in _specials(template, call.partition(_CITY)[2])
        if begins and _frame_name(token) == _frame_name(begins[0])
    ]
    if begins and ends and CALL not in call:
        marks |= {begins[0]: CALL, ends[0]: CALLED}
    if call.partition(_TOOL)[0].endswith(_RECIPIENT):
        marks |= _harmony_marks(template, call)
    return marks


def _harmony_marks(template: ChatTemplate, call: str) -> dict[str, str]:
    """Return what each mark around gpt-oss's tool calls becomes in the common form, {mark: replacement}. call: a tool
    call as the template renders it, from which the marks are read.

    The name of the tool stands in the message's header: before the channel, as the template writes it, or after it, as
    OpenAI's harmony format also allows; both orders are in the result. The end of a call mostly ends the answer too,
    and does not appear in the text.
    """
    header, _, rest = call.partition(_TOOL)
    marks = {header: CALL, f"{_CHANNEL}{header}": CALL, rest.partition("{")[0]: " ", "<|constrain|>json<|message|>": ""}
    marks |= dict.fromkeys(_specials(template, rest.partition(_CITY)[2]), CALLED)
    answer = {"content": "", "reasoning": _THOUGHT, "tool_calls": [{"name": _TOOL, "arguments": {"city": _CITY}}]}
    between = _assistant_text(template, answer, tools=_TOOLS).partition(_THOUGHT)[2].partition(_TOOL)[0]
    if turn := between.removesuffix(header).rstrip():
        closed = CLOSE.lstrip() + CALL
        marks |= {between: closed, f"{turn}{_CHANNEL}{header}": closed}
    return marks


def _assistant_text(
    template: ChatTemplate, answer: JsonObject, thinks: bool | None = None, tools: list[JsonObject] | None = None
) -> str:
    """Return the text that the template writes for this assistant message alone, after a user's message "a"; "" if it
    cannot render it. answer: the message's content, reasoning or tool calls. thinks, tools: the template's options."""
    try:
        rendered = template.spans([{"role": "user", "content": "a"}, {"role": "assistant", **answer}], tools, thinks)
    except TemplateError:
        return ""
    start, end = rendered.spans[-1]
    return rendered.text[start:end]


def _specials(template: ChatTemplate, text: str) -> list[str]:
    """The special tokens in text, each once, in the order of their first places."""
    positions = [(text.find(token), token) for token in template.all_special if token and token in text]
    return [token for _, token in sorted(positions)]


def _frame_name(token: str) -> str:
    """The letters that an opening and a closing token share: "<|tool_call>" and "<tool_call|>", or
    "<|tool_call_start|>" and "<|tool_call_end|>"."""
    return re.sub(r"[^a-z]|start|end", "", token.lower())


class MarkReplacer:
    """Replaces marks in a text that arrives in pieces; a possible beginning of a mark is held back until it is
    decided."""

    def __init__(self, marks: Marks):
        """Begin without text. marks: what replaces each mark."""
        self._marks, self._held = marks, ""

    def add(self, piece: str) -> str:
        """Take the next piece; return the text that is decided now, with marks replaced."""
        self._held += piece
        text = ""
        while matches := [(self._held.find(mark), -len(mark), mark) for mark in self._marks if mark in self._held]:
            at, _, mark = min(matches)
            text += self._held[:at] + self._marks[mark]
            self._held = self._held[at + len(mark) :]
        longest = max((len(mark) for mark in self._marks), default=1) - 1
        kept_length = next(
            (
                n
                for n in range(min(longest, len(self._held)), 0, -1)
                if any(mark.startswith(self._held[-n:]) for mark in self._marks)
            ),
            0,
        )
        text, self._held = (
            text + self._held[: len(self._held) - kept_length],
            self._held[len(self._held) - kept_length :],
        )
        return text

    def rest(self) -> str:
        """Return the held back text, which became no mark, and forget it."""
        rest, self._held = self._held, ""
        return rest
