"""Conversations: messages with thinking and tool calls, read from any notation that files use. No torch.

One message is {role, content, reasoning?, tool_calls?, tool_call_id?, name?, weight?}; `tools` (the available ones) are
beside the messages. Supported are the names of OpenAI (tool_calls, function_call, tool_call_id, weight), of reasoning
models (reasoning_content, reasoning, thinking, and <think> in the content) and of ShareGPT (function_call,
observation).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

from core.data.reading.file_rows import Flaw, type_name
from core.data.shapes.left_out import Notes
from core.data.shapes.speakers import ROLES, Role
from core.data.shapes.tools import ToolCall, as_json, read_calls, without_parts

Turn = Mapping[str, Any]  # a message as JSON values: `ChatMessage.as_dict`
MessageJson = dict[str, Any]  # a message in the notation of a chat template
Tools = list[dict[str, Any]]  # definitions of the available tools

ROLE_KEYS = ("role", "from", "speaker", "sender", "author")
CONTENT_KEYS = ("content", "value", "text", "message", "parts")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_TRAIN_FLAGS = ("train", "loss")  # axolotl, ms-swift: false for an answer that is context and not trained
_PART_TEXT_KEYS = ("text", "value", "content", "thinking", "reasoning")  # keys for the text of a part
_TEXT_PARTS = ("text", "input_text", "output_text")
# The roles that may follow each; None stands for the beginning.
_FOLLOWS: dict[Role | None, tuple[Role, ...]] = {
    None: ("user",), "system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant",
        "tool"),
}  # fmt: skip
# Between both tags, or up to the closing one, where the prompt has opened it.
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)|(.*?)\n</think>\n(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message. tool_call_id, name: for a tool's result, the call that it answers. weight: 0 for an answer that is
    context and not trained."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return its fields as JSON values; the inverse of `ChatMessage.from_dict`."""
        more: dict[str, Any] = {"reasoning": self.reasoning, "tool_calls": [call.as_dict() for call in self.tool_calls]}
        more |= {"tool_call_id": self.tool_call_id, "name": self.name}
        kept = {name: value for name, value in more.items() if value}
        return {"role": self.role, "content": self.content} | kept | ({} if self.weight else {"weight": 0})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ChatMessage:
        """Return the message in a mapping with the keys that `as_dict` writes; keys that are missing, other than role
        and content, keep their defaults."""
        return cls(**{**value, "tool_calls": tuple(map(ToolCall.from_dict, value.get("tool_calls", ())))})


def characters(turn: Turn) -> int:
    """Number of characters of a turn, including thinking and tool calls."""
    calls = turn.get("tool_calls")
    return len(turn["content"]) + len(turn.get("reasoning", "")) + (len(as_json(calls)) if calls else 0)


def split_thinking(content: str) -> tuple[str, str]:
    """Split an answer into (thinking, the rest); ("", content) if there is no thinking. Thinking stands in <think> ...
    </think> at the beginning, or, where the prompt opened it, before a line </think>."""
    match = _THOUGHT.match(content)
    if match is None or "<think>" in (match[3] or ""):
        return "", content
    return (match[1] or match[3] or "").strip("\n"), (match[2] or match[4] or "").lstrip("\n")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_messages(turns: Sequence[object], system: tuple[ChatMessage, ...], notes: Notes) -> tuple[ChatMessage, ...]:
    """Return the messages of a row's turns, after the message of a system column (left out if the turns begin with a
    system message of their own). Calls that follow an answer are joined to it, turns after the last answer are dropped,
    tool results are linked to their calls. What is dropped is noted in notes. Raises Flaw, also if no answer has
    weight."""
    messages: list[ChatMessage] = []
    numbers: list[int] = []  # index of the turn in the file where each message begins
    # A turn in Anthropic's notation may hold several messages.
    for number, turn in chain.from_iterable(
        zip(repeat(number), without_parts(turn, notes)) for number, turn in enumerate(turns, 1)
    ):
        message = _message(turn, number, notes)
        before = messages[-1] if messages else None
        is_call = bool(message.tool_calls) and not message.content.strip() and not message.reasoning
        if before and before.role == "assistant" and is_call and message.weight == before.weight:
            # in ShareGPT a call is a turn of its own
            messages[-1] = replace(before, tool_calls=before.tool_calls + message.tool_calls)
        else:
            messages.append(message)
            numbers.append(number)
    if system and messages[0].role == "system":
        # Many files repeat the column in the turns, which is no conflict.
        if messages[0] != system[0]:
            notes.warn("data.two_systems")
            notes.add_omission("column", "system")
    elif system:
        messages, numbers = [*system, *messages], [0, *numbers]
    _check_order(messages, numbers)
    # Nothing is learned after the last answer.
    last = max(i for i, m in enumerate(messages) if m.role == "assistant")
    if messages[last + 1 :]:
        notes.warn("data.trailing_user" if messages[-1].role == "user" else "data.trailing_tool")
        notes.add_omission("turn")
        del messages[last + 1 :]
    if not any(m.weight for m in messages if m.role == "assistant"):
        raise Flaw("data.no_weight")
    return _linked(messages)


def _check_order(messages: Sequence[ChatMessage], numbers: Sequence[int]) -> None:
    """Raise Flaw unless roles follow each other as templates allow, no question or answer is empty, and there is an
    answer. numbers: of the turns in the row."""
    has_answer = any(m.role == "assistant" for m in messages)
    before: Role | None = None
    for message, number in zip(messages, numbers, strict=True):
        if message.role not in _FOLLOWS[before] and not (before is None and message.role == "system"):
            if not has_answer:  # the reason that says more
                raise Flaw("data.no_assistant")
            raise Flaw("data.roles_out_of_order", turn=number, found=message.role, expected=_FOLLOWS[before][0])
        if not message.content.strip() and not message.tool_calls and message.role in ("user", "assistant"):
            if message.role == "assistant":
                raise Flaw("data.empty_answer_turn", turn=number)
            raise Flaw("data.empty_turn", turn=number, role=message.role)
        before = message.role
    if not has_answer:
        raise Flaw("data.no_assistant")


def _linked(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return the messages with, for each tool result that lacks them, name and id of the call that it answers: the call
    of the answer before with its id, or else the next in order."""
    linked: list[ChatMessage] = []
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == "assistant":
            waiting = list(message.tool_calls)
        elif message.role == "tool" and waiting:
            call = next((call for call in waiting if call.id and call.id == message.tool_call_id), waiting[0])
            waiting.remove(call)
            message = replace(message, name=message.name or call.name, tool_call_id=message.tool_call_id or call.id)
        linked.append(message)
    return tuple(linked)


def _message(turn: object, number: int, notes: Notes) -> ChatMessage:
    """Return a turn in either notation (role/content or from/value) as a message: text, thinking, tool calls, weight (0
    where a flag says that it is not trained); unread fields are noted. Raises Flaw."""
    if not isinstance(turn, dict):
        raise Flaw("data.turn_not_an_object", turn=number, found=type_name(turn))
    role_key, content_key, calls_key = (
        _first(turn, *ROLE_KEYS, "type"),  # LangChain's name for it
        _first(turn, *CONTENT_KEYS),
        _first(turn, "tool_calls", "function_call"),
    )
    speaker, content, calls = turn.get(role_key), turn.get(content_key), turn.get(calls_key)
    spoken_name = speaker.strip().lower() if isinstance(speaker, str) else ""
    role = ROLES.get(spoken_name)
    # {"type": "message", "user": ..., "text": ...} names no role
    if speaker is None or (role_key == "type" and role is None) or (content_key not in turn and not calls):
        raise Flaw("data.turn_keys", turn=number, found=list(turn)[:10])
    if role is None:
        expected = ["system", "user", "assistant", "tool", "human", "gpt", "function_call", "observation"]
        raise Flaw("data.unknown_role", turn=number, found=str(speaker)[:40], expected=expected)
    if spoken_name == "function_call" and not calls:
        calls, content = content, ""
    text, thought = _content(content, number, notes)
    flags = [
        name for name in _TRAIN_FLAGS if turn.get(name) is False or (role == "assistant" and turn.get(name) is True)
    ]
    known_keys = (
        [role_key, content_key, calls_key, "weight", *flags] if role == "assistant" else [role_key, content_key, *flags]
    )
    if role != "assistant":
        known_keys += ["tool_call_id", "name"] if role == "tool" else []
        notes.add_unread("field", turn, known_keys)
        if thought:
            notes.add_omission("part", "thinking")
        id, name = (str(turn[key]) if role == "tool" and turn.get(key) else None for key in ("tool_call_id", "name"))
        return ChatMessage(role, text, tool_call_id=id, name=name)
    thinking_key = next((name for name in _REASONING if isinstance(turn.get(name), str) and turn[name].strip()), None)
    if thinking_key is not None:
        # The same thinking is often stored under two names.
        known_keys += [name for name in _REASONING if turn.get(name) == turn[thinking_key]]
        if thought and thought.strip() != turn[thinking_key].strip():
            notes.add_omission("part", "thinking")
        thought = turn[thinking_key]
    notes.add_unread("field", turn, known_keys)
    if not thought:
        thought, text = split_thinking(text)
    called_tools = read_calls(calls, number, notes)
    weight = _weight(turn.get("weight"), number) if all(turn[name] for name in flags) else 0
    return ChatMessage(role, text, thought.strip("\n"), called_tools, weight=weight)


def _first(turn: Turn, *names: str) -> str:
    """Return the first of the names with a value, else the first that exists at all, else the first."""
    return next((n for n in names if turn.get(n) is not None), next((n for n in names if n in turn), names[0]))


def _content(content: object, number: int, notes: Notes) -> tuple[str, str]:
    """Return the text of turn `number`, and thinking stored as a separate part. An object becomes JSON, None "". Raises
    Flaw for parts that are no text."""
    if isinstance(content, str):
        return content, ""
    if content is None:
        return "", ""
    if isinstance(content, dict):  # a tool's result, as an object
        return as_json(content), ""
    if not isinstance(content, list):
        raise Flaw("data.turn_content", turn=number, found=type_name(content))
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else None
        name = next((name for name in _PART_TEXT_KEYS if part.get(name)), None) if kind else None
        text = part[name] if name else None
        text = text.get("value") if isinstance(text, dict) else text  # OpenAI's assistants
        if isinstance(text, str) and kind in _TEXT_PARTS:
            texts.append(text)
        elif isinstance(text, str) and kind in ("thinking", "reasoning"):
            thoughts.append(text)
        elif kind != "text" or text is not None:
            raise Flaw("data.part_not_text", turn=number, found=kind if isinstance(kind, str) else type_name(part))
        notes.add_unread("part", part, ("type", name or ""))
    return "".join(texts), "\n".join(thoughts)


def _weight(weight: object, number: int) -> int:
    """Return 0 or 1; 1 for None. Raises Flaw for anything else."""
    if weight is None:
        return 1
    if not isinstance(weight, bool | int | float) or weight not in (0, 1):
        raise Flaw("data.bad_weight", turn=number, found=str(weight)[:40])
    return int(weight)
