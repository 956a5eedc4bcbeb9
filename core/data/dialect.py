"""The features and the notation that a chat template supports, detected by rendering test conversations. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from core.data.conversation import MessageJson, Tools, Turn
from core.errors import TemplateError
from core.files import JsonObject

# (messages, tools, thinking, add_generation_prompt) -> text; raises TemplateError.
Render = Callable[[list[MessageJson], Tools | None, bool | None, bool], str]
SWITCHES = ("enable_thinking", "thinking")  # template variables that turn thinking on and off
INLINE = "<think>"
OPEN, CLOSE = "<think>\n", "\n</think>\n\n"

# Words of the test conversations, which no template has in it.
_SYSTEM, _USER, _ANSWER, _THOUGHT, _NAME, _KEY, _VALUE, _RESULT = (
    f"{word}7Q" for word in ("sy", "us", "an", "th", "na", "ke", "va", "re")
)
_TURN_USER, _TURN_ANSWER = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
_KEYS = ("reasoning_content", "thinking", "reasoning")
_CALL = {"name": _NAME, "arguments": {_KEY: _VALUE}}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": _VALUE, "parameters": {
    "type": "object", "properties": {_KEY: {"type": "string", "description": _KEY}}, "required": [_KEY]}}}  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """Features of a chat template.

    system: supports a system message. parts: contents are lists of parts. reasoning: the key of an answer's thinking,
    INLINE if it is in the content, None if it is dropped. calls: supports tool calls and results; arguments as text,
    with an id even if the data has none, and with null content instead of "". tools: lists the available tools. switch:
    the variable that turns thinking on and off, with its default; thinks: it can be prompted to think.
    """

    system: bool = True
    parts: bool = False
    reasoning: str | None = None
    calls: bool = False
    arguments_as_text: bool = False
    needs_ids: bool = False
    null_content: bool = False
    tools: bool = False
    switch: str | None = None
    thinks: bool = False

    def messages(self, turns: Sequence[Turn]) -> list[MessageJson]:
        """Return the turns in the template's notation, calls numbered. Without a system role, a system message is put
        before the text of the turn after it, or left out if it is alone."""
        if not self.system and turns and turns[0]["role"] == "system":
            folded = (
                {**turns[1], "content": f"{turns[0]['content']}\n\n{turns[1]['content']}"} if len(turns) > 1 else {}
            )
            turns = [folded, *turns[2:]] if folded else []
        numbers = iter(range(1, 10**6))
        return [self._message(turn, numbers) for turn in turns]

    def _message(self, turn: Turn, numbers: Iterator[int]) -> MessageJson:
        """Return a turn in the template's notation: thinking in its key or in tags, calls, null or parts of text as
        content, as the dialect needs them."""
        message: MessageJson = {"role": turn["role"], "content": turn["content"]}
        message |= {name: turn[name] for name in ("tool_call_id", "name") if turn.get(name)}
        if turn.get("reasoning") and self.reasoning == INLINE:
            message["content"] = f"{OPEN}{turn['reasoning']}{CLOSE}{turn['content']}".rstrip("\n")
        elif turn.get("reasoning") and self.reasoning:
            message[self.reasoning] = turn["reasoning"]
        if turn.get("tool_calls"):
            message["tool_calls"] = [self._call(call, next(numbers)) for call in turn["tool_calls"]]
            if self.null_content and not message["content"]:
                message["content"] = None
        if self.parts and isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        return message

    def _call(self, call: Turn, number: int) -> MessageJson:
        """Return a tool call in the template's notation, with a generated id if it needs one and the data has none."""
        arguments = json.dumps(call["arguments"], ensure_ascii=False) if self.arguments_as_text else call["arguments"]
        message_call: JsonObject = {"type": "function", "function": {"name": call["name"], "arguments": arguments}}
        if call.get("id") or self.needs_ids:
            # Nine letters and digits, as Mistral's templates require.
            message_call["id"] = call.get("id") or f"call{number:05d}"
        return message_call


def find(render: Render, source: str) -> Dialect:
    """Detect the dialect of a template by rendering test conversations. render: renders it; source: its Jinja, searched
    for a thinking switch. Unsupported features are False or None. Raises TemplateError only for a template that is too
    slow."""

    def shows_words(
        dialect: Dialect,
        turns: Sequence[Turn],
        *words: str,
        tools: Tools | None = None,
        thinking: bool | None = None,
    ) -> bool:
        """Return True if the template renders these turns with all words in this order, and the arguments of tools not
        in Python's notation.

        False also if the template refuses the turns. Raises TemplateError if it is too slow.
        """
        try:
            text = render(dialect.messages(turns), tools, thinking, False)
        except TemplateError as error:
            if error.message.key == "template.too_slow":
                raise  # otherwise two dozen renderings would each run into the time limit
            return False
        places = [text.find(word) for word in words]
        # arguments must not appear in Python's notation instead of JSON
        return -1 not in places and places == sorted(places) and f"'{_KEY}'" not in text

    user, answer = _TURN_USER, _TURN_ANSWER
    plain = Dialect()
    parts = not shows_words(plain, [user, answer], _USER, _ANSWER) and shows_words(
        replace(plain, parts=True), [user, answer], _USER, _ANSWER
    )
    plain = replace(plain, parts=parts)
    system = shows_words(plain, [{"role": "system", "content": _SYSTEM}, user, answer], _SYSTEM, _USER, _ANSWER)
    plain = replace(
        plain, system=system, tools=shows_words(plain, [user, answer], _NAME, _USER, _ANSWER, tools=[_TOOL])
    )
    # A template has a switch if turning it on and off gives two prompts; unset tells the default.
    question = plain.messages([user])
    try:
        on, off, unset = (render(question, None, thinking, True) for thinking in (True, False, None))
    except TemplateError:
        on = off = unset = ""
    switch = next((name for name in SWITCHES if re.search(rf"\b{name}\b", source)), None) if on != off else None
    plain = replace(
        plain, switch=switch, thinks=unset == on if switch else "<think>" in unset and "</think>" not in unset
    )
    plain = _with_calls(plain, shows_words)
    return replace(plain, reasoning=_reasoning(plain, shows_words))


def _with_calls(plain: Dialect, shows: Callable[..., bool]) -> Dialect:
    """Return plain with the first notation of tool calls, results included, that the template renders; plain itself if
    there is none."""
    call = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    turns = [_TURN_USER, call, {"role": "tool", "content": _RESULT, "name": _NAME}, _TURN_ANSWER]
    # The plainest notation first: what a template does not require is left out.
    for as_text in (False, True):
        for more in ("", "null_content", "needs_ids"):
            tried = replace(
                plain, arguments_as_text=as_text, null_content=more == "null_content", needs_ids=more == "needs_ids"
            )
            if shows(tried, turns, _USER, _NAME, _VALUE, _RESULT, _ANSWER):
                return replace(tried, calls=True)
    return plain


def _reasoning(plain: Dialect, shows: Callable[..., bool]) -> str | None:
    """Return the key of an answer's thinking, INLINE for tags in the content, or None.

    A key that is rendered in an answer, or at least before a call, is preferred to tags in the content, which every
    template renders.
    """
    answer = [_TURN_USER, {**_TURN_ANSWER, "reasoning": _THOUGHT}]
    call = [_TURN_USER, {"role": "assistant", "content": "", "tool_calls": [_CALL], "reasoning": _THOUGHT}]
    tries = [(key, answer, (_THOUGHT, _ANSWER)) for key in _KEYS] + [(key, call, (_THOUGHT, _VALUE)) for key in _KEYS]
    for key, turns, words in [*tries, (INLINE, answer, (_THOUGHT, _ANSWER))]:
        if shows(replace(plain, reasoning=key), turns, _USER, *words, thinking=True):
            return key
    return None
