"""Tools: their definitions and the calls in an answer, read from every notation that files use. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.data.reading.file_rows import Flaw, type_name
from core.data.shapes.left_out import Notes
from core.files import JsonObject

MAX_TOOLS = 256 << 10  # characters of a row's tools as JSON; longer descriptions fit no context


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. arguments: a JSON object as text."""

    name: str
    arguments: str
    id: str | None = None

    def as_dict(self) -> JsonObject:
        """Return the call as a JSON object, its arguments decoded; the inverse of `from_dict`. "id" is left out if
        there is none."""
        return {"name": self.name, "arguments": json.loads(self.arguments)} | ({"id": self.id} if self.id else {})

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ToolCall:
        """Return the call in a mapping with name and arguments (any JSON value, not JSON as text), and id if it has
        one; the inverse of `as_dict`."""
        return cls(value["name"], as_json(value["arguments"]), value.get("id"))


def as_json(value: object) -> str:
    """Return value as JSON, letters beyond ASCII as they are, and what JSON has no type for as text."""
    return json.dumps(value, ensure_ascii=False, default=str)  # a Parquet file's dates, decimals and bytes


def read_calls(calls: object, number: int, notes: Notes) -> tuple[ToolCall, ...]:
    """Return the tool calls of turn `number`, from a list, one call or JSON of them; () without any. Raises Flaw for
    one without a name or with arguments that are no object."""
    if not calls:
        return ()
    if isinstance(calls, str):
        calls = _json(calls, "data.calls_no_json", turn=number)
    return tuple(_call(call, number, notes) for call in (calls if isinstance(calls, list) else [calls]))


def _call(call: Any, number: int, notes: Notes) -> ToolCall:
    """Return one call, with its "function" or without; arguments may be JSON text, nulls in them are dropped, other
    fields noted. Raises Flaw."""
    # OpenAI nests it in "function".
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise Flaw("data.call_without_name", turn=number, found=as_json(call)[:80])
    names = ("arguments", "parameters", "args")
    arguments_key = next((name for name in names if function.get(name) is not None), names[1])
    arguments = function.get(arguments_key)
    if function is not call:
        notes.add_unread("call", call, ("id", "type", "function"))
    notes.add_unread(
        "call", function, ("name", arguments_key) if function is not call else ("id", "type", "name", arguments_key)
    )
    if isinstance(arguments, str) and arguments.strip():  # OpenAI writes them as JSON
        arguments = _json(arguments, "data.arguments_no_json", turn=number, name=function["name"])
    arguments = {} if arguments in (None, "") else _without_nulls(arguments)
    if not isinstance(arguments, dict):
        raise Flaw("data.arguments_no_object", turn=number, name=function["name"], found=type_name(arguments))
    id = call.get("id")
    return ToolCall(function["name"], as_json(arguments), str(id) if id else None)


def without_parts(turn: Any, notes: Notes) -> list[Any]:
    """Return the turns of a turn whose calls and results are parts of its content, as Anthropic writes them: results
    become turns before it, calls move beside its text. [turn] for any other."""
    parts = turn.get("content") if isinstance(turn, dict) else None
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts] if isinstance(parts, list) else []
    if "tool_use" not in kinds and "tool_result" not in kinds:
        return [turn]
    calls, results, rest = [], [], []
    for kind, part in zip(kinds, parts or (), strict=True):
        if kind == "tool_use":
            calls.append({"id": part.get("id"), "name": part.get("name"), "arguments": part.get("input")})
            notes.add_unread("part", part, ("type", "id", "name", "input"))
        elif kind == "tool_result":
            results.append({"role": "tool", "tool_call_id": part.get("tool_use_id"), "content": part.get("content")})
            notes.add_unread("part", part, ("type", "tool_use_id", "content"))
        else:
            rest.append(part)
    if not rest and not calls:
        notes.add_unread("field", turn, ("role", "content"))
        return results
    # Results first: they answer the turn before this one.
    return [*results, turn | {"content": rest} | ({"tool_calls": calls} if calls else {})]


def read_tools(value: object, notes: Notes) -> str | None:
    """Return a row's tools as the JSON of a list of {type: function, function}, None if it has none. Raises Flaw for
    other values, a tool without a name, and more than MAX_TOOLS characters."""
    if isinstance(value, str) and value.strip():
        if len(value) > MAX_TOOLS:
            raise Flaw("data.tools_too_large", characters=len(value), limit=MAX_TOOLS)
        value = _json(value, "data.tools_no_json")
    if value is None or value == "" or value == []:
        return None
    if not isinstance(value, list):
        raise Flaw("data.tools_no_list", found=type_name(value))
    tools = []
    for number, tool in enumerate(value, 1):
        tool = _without_nulls(tool)
        function = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
            raise Flaw("data.tool_without_name", number=number, found=as_json(tool)[:80])
        if function is not tool:
            notes.add_unread("tool", tool, ("type", "function"))
        if "parameters" not in function and isinstance(function.get("input_schema"), dict):  # Anthropic
            function = {"parameters" if name == "input_schema" else name: part for name, part in function.items()}
        tools.append({"type": "function", "function": function})
    encoded = as_json(tools)
    if len(encoded) > MAX_TOOLS:
        raise Flaw("data.tools_too_large", characters=len(encoded), limit=MAX_TOOLS)
    return encoded


def _json(text: str, key: str, **params: object) -> Any:
    """Return the value that a text has as JSON. Raises Flaw with this key and params, and the text's beginning."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Flaw(key, found=text[:80], **params) from None


def _without_nulls(value: object) -> Any:
    """Return value without null keys: a Parquet file gives every row the keys that any row has."""
    if isinstance(value, dict):
        return {str(key): _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value
