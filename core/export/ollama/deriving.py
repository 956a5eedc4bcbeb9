"""Derives an Ollama template from the training template: renders it with sentinel words as texts, and splits the result
at them.

What stands between two texts depends only on who speaks before and after; thinking and tool calls stand within an
answer. What was derived is believed only when it renders a battery of conversations to the same characters as the
training template, but for how the JSON of a tool's description is spaced, which Go decides. What a template has beyond
that (thinking, tools) is left away where it cannot be followed, and said. No torch.
"""

from __future__ import annotations

import json
import os.path
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from core.data.conversation import Turn
from core.data.dialect import CLOSE, INLINE, OPEN
from core.data.template import ChatTemplate
from core.errors import TemplateError
from core.export.ollama.go_template import BEGIN, Asked, Each, If, Many, Messages, Node, Text, Value
from core.messages import Message, msg

MOST_S = 60.0  # of the processor; a family's own template takes half a second
_SYSTEM, _THOUGHT = "sys7QZ", "tho7QZ"
_CALL = {"name": "tool7QZ", "arguments": {"a7QZ": "v7QZ", "b7QZ": 7}}


def _tool(name: str) -> dict[str, Any]:
    properties = {
        "city": {"type": "string", "description": "its name"},
        "days": {"type": "integer", "description": "how many"},
    }
    described = {"type": "object", "properties": properties, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "description": "What it is for", "parameters": described}}


_BEGINS = re.compile(r'\{\s*"(?:type|function|name|description|parameters)"')  # of a tool as JSON, or of its function
_TOOLS = [_tool("tool7QZ"), _tool("other7QZ")]


@dataclass(frozen=True)
class Derived:
    """template: Go source, or None with the reason why; thinking, tools: whether it has them; notes: what it cannot
    do."""

    template: str | None
    notes: tuple[Message, ...] = ()
    thinking: bool = False
    tools: bool = False
    tree: Node = Many()


class _Unlike(Exception):
    """The template writes something that this form cannot follow."""


def derive(template: ChatTemplate, bos: str = "") -> Derived:
    """bos: what the program that reads the file puts before a prompt by itself, so that it must not stand there
    twice."""
    if "strftime_now" in template.source:
        return _without("export.template_has_date")
    try:
        template.render([_says("user", 0)], add_generation_prompt=True)
        template.render([_says("user", 0), _says("assistant", 1), _says("user", 2)], add_generation_prompt=True)
    except TemplateError:
        return _without("export.template_refuses")
    dialect = template.dialect
    can_think = dialect.thinks or (dialect.switch is None and dialect.reasoning not in (None, INLINE))
    has_tools = dialect.calls and dialect.tools
    until = time.thread_time() + MOST_S
    tried = [(thinking, tools) for tools in (True, False) for thinking in (True, False)]
    for thinking, tools in tried:
        if (thinking and not can_think) or (tools and not has_tools):
            continue
        try:
            tree = _Form(template, thinking, tools, bos, until).tree()
        except (_Unlike, TemplateError, ValueError, RecursionError):
            continue
        if '"""' in (source := tree.source()):
            return _without("export.template_quotes")
        left = [msg("export.template_no_thinking")] if can_think and not thinking else []
        left += [msg("export.template_no_tools")] if has_tools and not tools else []
        return Derived(source, tuple(left), thinking, tools, tree)
    return _without("export.template_slow" if time.thread_time() > until else "export.template_varies")


def _without(key: str) -> Derived:
    return Derived(None, (msg("export.no_template", reason=msg(key)),))


def _says(role: str, place: int, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": f"{role[:3]}{place}7QZ", **more}


def _calls(place: int, count: int = 1, content: bool = False, **more: Any) -> dict[str, Any]:
    said = _says("assistant", place, tool_calls=[dict(_CALL) for _ in range(count)], **more)
    return said if content else said | {"content": ""}


@dataclass(frozen=True)
class _Frames:
    """What stands before, between and after texts, asked in one way of thinking."""

    head: Node
    before_answer: dict[str, str]  # after a question, after a tool's result
    before_question: dict[str, str]  # after an answer, after a tool's result
    before_result: dict[str, str]  # after a call, after a tool's result
    end: dict[str, str]  # after a question, after a tool's result
    thought: Node
    calls: Node


class _Form:
    """One attempt, with or without thinking and tools."""

    def __init__(self, template: ChatTemplate, thinking: bool, tools: bool, bos: str, until: float):
        self.template, self.thinking, self.tools, self.bos, self.until = template, thinking, tools, bos, until
        self.modes: tuple[bool | None, ...] = (True, False) if template.dialect.switch and thinking else (None,)

    def tree(self) -> Node:
        """Raises _Unlike where this form does not render as the template does."""
        frames = [self._frames(mode) for mode in self.modes]
        trees = [self._tree_of(one) for one in frames]
        ends = [self._end(one) for one in frames]
        asks = "or .Think (not .IsThinkSet)" if self.template.dialect.thinks else ".Think"
        if len(trees) == 1:
            whole = Many((trees[0], ends[0]))
        elif trees[0] == trees[1]:
            whole = (
                Many((trees[0], If(((asks, ends[0]), ("", ends[1])))))
                if ends[0] != ends[1]
                else Many((trees[0], ends[0]))
            )
        else:
            whole = Many((If(((asks, Many((trees[0], ends[0]))), ("", Many((trees[1], ends[1]))))),))
        for mode in dict.fromkeys((*self.modes, None)):
            for turns, tools in conversations(self.thinking, self.tools):
                expected = without_tools(self._render(turns, tools, mode), tools)
                if expected != without_tools(whole.render(Asked(turns, tools, mode)), tools):
                    raise _Unlike
        return whole

    def _tree_of(self, frames: _Frames) -> Node:
        answer = Many((_by(frames.before_answer), frames.thought, Value(".Content"), frames.calls))
        question = Many((_by(frames.before_question), Value(".Content")))
        result = Many((_by(frames.before_result), Value(".Content"))) if self.tools else None
        return _Begun((frames.head, Messages(question, answer, result)))

    def _end(self, frames: _Frames) -> Node:
        return _by(frames.end)

    def _render(self, turns: Sequence[Turn], tools: Sequence[Any], mode: bool | None, prompt: bool = True) -> str:
        if time.thread_time() > self.until:
            raise _Unlike
        return self.template.render(turns, prompt, list(tools) or None, mode).removeprefix(self.bos)

    def _between(
        self, turns: Sequence[Turn], mode: bool | None, tools: Sequence[Any] = (), prompt: bool = True
    ) -> list[str]:
        """What the turns are rendered to, at their texts, names and arguments taken apart."""
        rest, parts = self._render(turns, tools, mode, prompt), []
        for turn in turns:
            for word in (turn["content"], *(call["name"] for call in turn.get("tool_calls", ()))):
                if word:
                    before, found, rest = rest.partition(word)
                    if not found:
                        raise _Unlike
                    parts.append(before)
        return [*parts, rest]

    def _frames(self, mode: bool | None) -> _Frames:
        talk = [_says("user" if i % 2 == 0 else "assistant", i) for i in range(5)]
        _, answer, question, answer_2, question_2, end = self._between(talk, mode)
        if (answer, question) != (answer_2, question_2):
            raise _Unlike
        head: Node = self._head(mode, ())
        calls: Node = Many()
        thought, instead = self._thought(mode, answer)
        before_answer, before_question, ends, before_result = (
            {"user": answer},
            {"assistant": question},
            {"user": end},
            {},
        )
        if self.tools:
            head = If(((".Tools", self._head(mode, _TOOLS)), ("", head)))
            calls, result = self._calls(mode, answer)
            talk = [
                _says("user", 0),
                _calls(1, 2),
                _says("tool", 2),
                _says("tool", 3),
                _says("assistant", 4),
                _says("user", 5),
            ]
            *_, second, again, _, _ = self._between(talk, mode, _TOOLS)
            before_result = {"call": result, "tool": second}
            before_answer["tool"] = again
            ends["tool"] = self._between(talk[:3], mode, _TOOLS)[-1]
        if not all(words.endswith(instead) for words in before_answer.values()):
            raise _Unlike
        before_answer = {kind: words.removesuffix(instead) for kind, words in before_answer.items()}
        return _Frames(head, before_answer, before_question, before_result, ends, thought, calls)

    def _head(self, mode: bool | None, tools: Sequence[Any]) -> Node:
        """All before the first question: with a system message or without."""
        plain = self._between([_says("user", 0)], mode, tools)[0]
        try:
            system = self._between([{"role": "system", "content": _SYSTEM}, _says("user", 1)], mode, tools)
        except TemplateError:
            raise _Unlike from None
        before, after = system[0], system[1]
        told = Many((_listed(before, tools), Value(".System"), _listed(after, tools)))
        return If(((".System", told), ("", _listed(plain, tools))))

    def _thought(self, mode: bool | None, answer: str) -> tuple[Node, str]:
        """What stands before the words of an answer that was thought about, and what stands there instead in one that
        was not.

        Ollama takes for the tags of thinking what stands first and last beside .Thinking, so both are part of it.
        """
        if not self.thinking:
            return Many(), ""
        turns = [_says("user", 0), _says("assistant", 1, reasoning=_THOUGHT), _says("user", 2)]
        past, now, call = self._between(turns, mode)[1], self._between(turns[:2], mode, prompt=False)[1], ""
        if _THOUGHT not in now and self.tools:
            talk = [turns[0], _calls(1, reasoning=_THOUGHT), _says("tool", 2)]
            now = self._between(talk, mode, _TOOLS)[1]
            call = self._between([talk[0], _calls(1), talk[2]], mode, _TOOLS)[1].removeprefix(answer)
        before, found, after = now.removesuffix(call).partition(_THOUGHT)
        if not found:  # it stands in what the model writes after the prompt, and is dropped later
            before, after = answer + OPEN, CLOSE
        split = before.rfind("<think>") if "<think>" in before else len(os.path.commonprefix([before, answer]))
        if not answer.startswith(before[:split]):
            raise _Unlike
        instead, always = answer[split:], _THOUGHT in past
        branches: tuple[tuple[str, Node], ...] = (
            (
                ".Thinking" if always else "and .Thinking (gt $i $asked)",
                Many((Text(before[split:]), Value(".Thinking"), Text(after))),
            ),
        )
        return If((*branches, ("", Text(instead))) if instead else branches), instead

    def _calls(self, mode: bool | None, answer: str) -> tuple[Node, str]:
        """The calls of an answer, and what stands between them and a result."""
        turns = [_says("user", 0), _calls(1), _says("tool", 2), _says("assistant", 3), _says("user", 4)]
        _, opening, rest, *_ = self._between(turns, mode, _TOOLS)
        middle, arguments, result = _arguments(rest)
        _, _, first, second, *_ = self._between([turns[0], _calls(1, 2), *turns[2:]], mode, _TOOLS)
        middle_2, _, between = _arguments(first)
        words = self._between([turns[0], _calls(1, content=True), *turns[2:]], mode, _TOOLS)[2]
        if not opening.startswith(answer) or middle != middle_2 or _arguments(second)[2] != result:
            raise _Unlike
        call = Many((Value(".Function.Name"), Text(middle), arguments))
        begin = If(((".Content", Text(words)), ("", Text(opening[len(answer) :]))))
        return If(((".ToolCalls", Many((begin, Each(".ToolCalls", call, between)))),)), result


class _Begun(Many):
    def source(self) -> str:
        return BEGIN + super().source()


def _by(before: dict[str, str]) -> Node:
    """Words by who spoke before."""
    branches = tuple((f'eq $before "{kind}"', Text(words)) for kind, words in before.items())
    return If(branches) if branches else Many()


def _listed(text: str, tools: Sequence[Any]) -> Node:
    """text with its list of tools as what Ollama makes of them. Raises _Unlike where they are written otherwise."""
    if not tools:
        return Text(text)
    found = list(_tools_in(text, tools))
    if not found:
        return Text(text)
    if [tool for _, _, tool, _ in found] != list(tools):
        raise _Unlike
    (start, end, _, form), (start_2, end_2, _, _) = found
    each = Each(".Tools", Value(form), text[end:start_2])
    return Many((Text(text[:start]), each, Text(text[end_2:])))


def _tools_in(text: str, tools: Sequence[Any]) -> Iterator[tuple[int, int, Any, str]]:
    """(start, end, tool, how Go writes it) of each tool that stands in text as JSON."""
    decoder, past = json.JSONDecoder(), 0
    for begun in _BEGINS.finditer(text):
        try:
            value, end = decoder.raw_decode(text, begun.start())
        except (ValueError, RecursionError):
            continue
        tool = next((tool for tool in tools if value in (tool, tool["function"])), None)
        if tool is not None and begun.start() >= past:  # not the function within the tool
            past = end
            yield begun.start(), end, tool, "json ." if value == tool else "json .Function"


def _arguments(text: str) -> tuple[str, Node, str]:
    """What stands before, instead of and after the arguments of the call in text."""
    at = text.find("{")
    if at < 0:
        raise _Unlike
    value, end = json.JSONDecoder().raw_decode(text, at)
    if value != _CALL["arguments"]:
        raise _Unlike
    if text[at:end] == json.dumps(value):
        one = Many((Text('"'), Value("$key"), Text('": '), Value("json $value")))
        return text[:at], Many((Text("{"), Each(".Function.Arguments", one, ", "), Text("}"))), text[end:]
    return text[:at], Value("json .Function.Arguments"), text[end:]


def without_tools(text: str, tools: Sequence[Any]) -> str:
    """text with a mark for each tool's description: their JSON is spaced otherwise by Go."""
    parts, at = [], 0
    for start, end, _, _ in _tools_in(text, tools):
        parts.append(text[at:start] + "\0")
        at = end
    return "".join(parts) + text[at:]


def conversations(thinking: bool, tools: bool) -> list[tuple[list[dict[str, Any]], list[Any]]]:
    """(turns, tools) of what a derived template must render as the training template does."""
    system, ask, again = {"role": "system", "content": "Be brief."}, "What is tea?", 'Is it "hot"?\nReally?'

    def user(words: str) -> dict[str, Any]:
        return {"role": "user", "content": words}

    def answer(words: str, **more: Any) -> dict[str, Any]:
        return {"role": "assistant", "content": words, **more}

    plain = [user(ask), answer("A drink, made of {leaves}."), user(again), answer("Mostly."), user("Why?")]
    found: list[tuple[list[dict[str, Any]], list[Any]]] = [(talk, []) for talk in (plain[:1], plain[:3], plain)]
    if thinking:
        thought = {"reasoning": "It grows\n\non bushes."}
        found.append(([user(ask), answer("A drink.", **thought), user(again)], []))
        found.append(([*plain[:3], answer("Yes.", **thought), user("Why?")], []))
    if tools:
        call = {"name": "tool7QZ", "arguments": {"city": "Paris “x”", "days": 3}}
        other = {"name": "other7QZ", "arguments": {"city": "Rom"}}
        result = {"role": "tool", "content": "20 degrees", "name": "tool7QZ"}
        talks = [
            plain[:1],
            [user(ask), answer("", tool_calls=[call]), result],
            [user(ask), answer("I look.", tool_calls=[call]), result, answer("It is 20."), user(again)],
            [user(ask), answer("", tool_calls=[call, other]), result, result, answer("Warm.")] + [user("Why?")],
            [user(ask), answer("", tool_calls=[call]), result, answer("", tool_calls=[other]), result],
        ]
        if thinking:
            talks.append([user(ask), answer("", tool_calls=[call], **thought), result])
            talks.append(
                [
                    user(ask),
                    answer("I look.", tool_calls=[call], **thought),
                    result,
                    answer("20.", **thought),
                    user("So?"),
                ]
            )
        found += [(talk, listed) for talk in talks for listed in (_TOOLS, _TOOLS[:1])]
    return found + [([system, *talk], listed) for talk, listed in found]
