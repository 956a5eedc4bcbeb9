"""What is said in a conversation: messages with their thinking and their tool calls, however a file writes them. No torch.

One message is {role, content, reasoning?, tool_calls?, tool_call_id?, name?, weight?}; `tools`, what may be called, stand beside the
messages. Read are the names of OpenAI (tool_calls, function_call, tool_call_id, weight), of reasoning models (reasoning_content,
reasoning, thinking, and <think> within the content) and of ShareGPT (function_call, observation).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from core.data.reading.rows import type_name
from core.messages import Message, msg

Role = Literal["system", "user", "assistant", "tool"]
Turn = Mapping[str, Any]  # a message as JSON values: `ChatMessage.as_dict`
MOST_TOOLS = 256 << 10  # characters of a row's tools as JSON; whatever is described longer fits no context here

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "model": "assistant", "bot": "assistant", "function_call": "assistant", "tool": "tool", "function": "tool",
    "observation": "tool", "ipython": "tool",
}  # fmt: skip
_REASONING = ("reasoning_content", "reasoning", "thinking")
# What other programs keep beside a message and no text can hold.
_NOT_TEXT = ("audio", "images", "image", "videos", "video", "files", "attachments", "refusal", "thinking_blocks")
_FOLLOWS: dict[Role | None, tuple[Role, ...]] = {
    None: ("user",), "system": ("user",), "user": ("assistant",), "assistant": ("user", "tool"), "tool": ("assistant", "tool"),
}  # fmt: skip
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)|(.*?)\n</think>\n(.*)", re.DOTALL)


class Flaw(Exception):
    """Why a row cannot be learned from."""

    def __init__(self, key: str, **params: Any):
        self.message = msg(key, **params)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """arguments: a JSON object as text."""

    name: str
    arguments: str
    id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": json.loads(self.arguments)} | ({"id": self.id} if self.id else {})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ToolCall:
        return cls(value["name"], as_json(value["arguments"]), value.get("id"))


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """tool_call_id, name: of a tool's result, which call it answers. weight: 0 for an answer that is read and not learned."""

    role: Role
    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: int = 1

    def as_dict(self) -> dict[str, Any]:
        """What it has, as JSON values; `ChatMessage.from_dict` is the way back."""
        more: dict[str, Any] = {"reasoning": self.reasoning, "tool_calls": [call.as_dict() for call in self.tool_calls]}
        more |= {"tool_call_id": self.tool_call_id, "name": self.name}
        kept = {name: value for name, value in more.items() if value}
        return {"role": self.role, "content": self.content} | kept | ({} if self.weight else {"weight": 0})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ChatMessage:
        calls = tuple(map(ToolCall.from_dict, value.get("tool_calls", ())))
        return cls(**{**value, "tool_calls": calls})


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def characters(turn: Turn) -> int:
    """How much a turn says, its thinking and its calls included."""
    calls = turn.get("tool_calls")
    return len(turn["content"]) + len(turn.get("reasoning", "")) + (len(as_json(calls)) if calls else 0)


def split_thinking(content: str) -> tuple[str, str]:
    """(thinking, the rest) of an answer that begins with <think> ... </think>, or with a thought that its prompt opened; else ("", content)."""
    found = _THOUGHT.match(content)
    if found is None or "<think>" in (found[3] or ""):
        return "", content
    return (found[1] or found[3] or "").strip("\n"), (found[2] or found[4] or "").lstrip("\n")


# --- reading ---------------------------------------------------------------------------------------------------------


def read_messages(turns: Sequence[Any], system: tuple[ChatMessage, ...], warnings: list[Message]) -> tuple[ChatMessage, ...]:
    """The messages of a row's turns, a system column before them. Raises Flaw."""
    messages: list[ChatMessage] = []
    numbers: list[int] = []  # of the turn in the file that each message begins with
    for number, turn in enumerate(turns, 1):
        message = _message(turn, number, warnings)
        before = messages[-1] if messages else None
        if (
            before
            and before.role == "assistant"
            and message.role == "assistant"
            and message.tool_calls
            and not message.content.strip()
        ):
            messages[-1] = replace(before, tool_calls=before.tool_calls + message.tool_calls)  # ShareGPT: a turn for the call
        else:
            messages.append(message)
            numbers.append(number)
    if system and messages[0].role == "system":
        if messages[0] != system[0]:
            warnings.append(msg("data.two_systems"))
    elif system:
        messages, numbers = [*system, *messages], [0, *numbers]
    _check_order(messages, numbers)
    last = max(i for i, m in enumerate(messages) if m.role == "assistant")
    if messages[last + 1 :]:
        warnings.append(msg("data.trailing_user" if messages[-1].role == "user" else "data.trailing_tool"))
        del messages[last + 1 :]
    if not any(m.weight for m in messages if m.role == "assistant"):
        raise Flaw("data.no_weight")
    return _linked(messages)


def _check_order(messages: Sequence[ChatMessage], numbers: Sequence[int]) -> None:
    has_answer = any(m.role == "assistant" for m in messages)
    before: Role | None = None
    for message, number in zip(messages, numbers, strict=True):
        if message.role not in _FOLLOWS[before] and not (before is None and message.role == "system"):
            if not has_answer:
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
    """Each tool's result with the name of the call that it answers: that of its id, else the next in order."""
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


def _message(turn: Any, number: int, warnings: list[Message]) -> ChatMessage:
    """A turn written either way: role/content or from/value."""
    if not isinstance(turn, dict):
        raise Flaw("data.turn_not_an_object", turn=number, found=type_name(turn))
    said = turn.get("role", turn.get("from"))
    calls = turn.get("tool_calls") or turn.get("function_call")
    content = turn.get("content", turn.get("value"))
    if said is None or ("content" not in turn and "value" not in turn and not calls):
        raise Flaw("data.turn_keys", turn=number, found=list(turn)[:10])
    spoken = said.strip().lower() if isinstance(said, str) else ""
    role = _ROLES.get(spoken)
    if role is None:
        expected = ["system", "user", "assistant", "tool", "human", "gpt", "function_call", "observation"]
        raise Flaw("data.unknown_role", turn=number, found=str(said)[:40], expected=expected)
    lost = [name for name in _NOT_TEXT if turn.get(name)]
    if lost:
        warnings.append(msg("data.not_learned", turn=number, names=lost))
    if spoken == "function_call" and not calls:
        calls, content = content, ""
    words, thought = _content(content, number)
    if role != "assistant":
        id, name = (str(turn[key]) if role == "tool" and turn.get(key) else None for key in ("tool_call_id", "name"))
        return ChatMessage(role, words, tool_call_id=id, name=name)
    thoughts = [str(turn[name]) for name in _REASONING if isinstance(turn.get(name), str) and turn[name].strip()]
    thought = thoughts[0] if thoughts else thought
    if not thought:
        thought, words = split_thinking(words)
    return ChatMessage(role, words, thought.strip("\n"), _calls(calls, number), weight=_weight(turn.get("weight"), number))


def _content(content: Any, number: int) -> tuple[str, str]:
    """The words of a turn, and the thinking that stands as a part beside them."""
    if isinstance(content, str):
        return content, ""
    if content is None:
        return "", ""
    if isinstance(content, dict):  # a tool's result as it came
        return as_json(content), ""
    if not isinstance(content, list):
        raise Flaw("data.turn_content", turn=number, found=type_name(content))
    words, thoughts = [], []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        said = part if isinstance(part, str) else next((part.get(n) for n in ("text", "value", "thinking") if part.get(n)), None) if kind else None  # fmt: skip
        if isinstance(said, str) and kind in (None, "text"):
            words.append(said)
        elif isinstance(said, str) and kind in ("thinking", "reasoning"):
            thoughts.append(said)
        elif kind != "text" or said is not None:
            raise Flaw("data.part_not_text", turn=number, found=kind if isinstance(kind, str) else type_name(part))
    return "".join(words), "\n".join(thoughts)


def _weight(weight: Any, number: int) -> int:
    if weight is None:
        return 1
    if not isinstance(weight, bool | int | float) or weight not in (0, 1):
        raise Flaw("data.bad_weight", turn=number, found=str(weight)[:40])
    return int(weight)


def _calls(calls: Any, number: int) -> tuple[ToolCall, ...]:
    if not calls:
        return ()
    if isinstance(calls, str):
        calls = _json(calls, "data.calls_no_json", turn=number)
    listed = calls if isinstance(calls, list) else [calls]
    return tuple(_call(call, number) for call in listed)


def _call(call: Any, number: int) -> ToolCall:
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise Flaw("data.call_without_name", turn=number, found=as_json(call)[:80])
    arguments = inner.get("arguments", inner.get("parameters"))
    if isinstance(arguments, str) and arguments.strip():
        arguments = _json(arguments, "data.arguments_no_json", turn=number, name=inner["name"])
    arguments = {} if arguments in (None, "") else _without_nulls(arguments)
    if not isinstance(arguments, dict):
        raise Flaw("data.arguments_no_object", turn=number, name=inner["name"], found=type_name(arguments))
    id = call.get("id")
    return ToolCall(inner["name"], as_json(arguments), str(id) if id else None)


def read_tools(value: Any) -> str | None:
    """A row's tools as the JSON of a list of {type: function, function}, None where it has none. Raises Flaw."""
    if isinstance(value, str) and value.strip():
        if len(value) > MOST_TOOLS:
            raise Flaw("data.tools_too_large", characters=len(value), limit=MOST_TOOLS)
        value = _json(value, "data.tools_no_json")
    if value is None or value == "" or value == []:
        return None
    if not isinstance(value, list):
        raise Flaw("data.tools_no_list", found=type_name(value))
    tools = []
    for number, tool in enumerate(value, 1):
        tool = _without_nulls(tool)
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
            raise Flaw("data.tool_without_name", number=number, found=as_json(tool)[:80])
        tools.append({"type": "function", "function": inner})
    found = as_json(tools)
    if len(found) > MOST_TOOLS:
        raise Flaw("data.tools_too_large", characters=len(found), limit=MOST_TOOLS)
    return found


def _json(text: str, key: str, **params: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Flaw(key, found=text[:80], **params) from None


def _without_nulls(value: Any) -> Any:
    """value without the keys that a Parquet file gives every row because one has them."""
    if isinstance(value, dict):
        return {str(key): _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
