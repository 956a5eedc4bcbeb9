"""Conversations as ChatGPT and Claude export them, written as messages: the assistant's answers are what is learned.

ChatGPT keeps a tree (`mapping`) in which an answer that was asked for again is a branch: the newest is taken. What is no text of the person
or the assistant (pictures, tools, hidden instructions) is named among what is left out. Turns of one side in a row are one turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.data.shapes.left_out import Columns, Notes, says

Turn = tuple[str, str]  # role, text


def chatgpt(values: Columns, notes: Notes) -> dict[str, Any] | None:
    nodes = values.peek("mapping")
    if not isinstance(nodes, dict) or not all(isinstance(node, dict) and "message" in node for node in nodes.values()):
        return None
    values.take("mapping", "current_node")
    branch = list(_branch(nodes, values.peek("current_node")))
    if any(_text(node["message"], Notes()) for id, node in nodes.items() if id not in branch):
        notes.leave("branch")
    turns = [turn for id in branch if (turn := _text(nodes[id]["message"], notes))]
    return {"messages": _joined(turns, notes)}


def _branch(nodes: Mapping[str, Any], last: Any) -> list[str]:
    """The ids from the first message to the last: the one that was open, else the newest that has no answer."""
    if last not in nodes:
        leaves = [id for id, node in nodes.items() if not node.get("children")]
        last = max(leaves, key=lambda id: _time(nodes[id]["message"]), default=None)
    found: list[str] = []
    while last in nodes and last not in found:
        found.append(last)
        last = nodes[last].get("parent")
    return found[::-1]


def _time(message: Any) -> float:
    time = message.get("create_time") if isinstance(message, dict) else None
    return time if isinstance(time, int | float) else 0.0


def _text(message: Any, notes: Notes) -> Turn | None:
    if not isinstance(message, dict):
        return None
    author, content = message.get("author"), message.get("content")
    role = author.get("role") if isinstance(author, dict) else None
    kind = content.get("content_type") if isinstance(content, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    hidden = isinstance(data := message.get("metadata"), dict) and data.get("is_visually_hidden_from_conversation")
    if role not in ("user", "assistant") or kind not in ("text", "multimodal_text") or not isinstance(parts, list) or hidden:
        if says(content):
            notes.leave("message", str(kind if role in ("user", "assistant") and not hidden else role))
        return None
    for part in parts:
        if says(part) and not isinstance(part, str):
            notes.leave("message", str(part.get("content_type")) if isinstance(part, dict) else "part")
    notes.leave_unread(
        "field", message, ("author", "content", "id", "create_time", "update_time", "status", "end_turn", "weight", "recipient")
    )
    text = "\n".join(part for part in parts if isinstance(part, str)).strip()
    return (role, text) if text else None


def claude(values: Columns, notes: Notes) -> dict[str, Any] | None:
    said = values.peek("chat_messages")
    if not isinstance(said, list) or not all(isinstance(message, dict) and "sender" in message for message in said):
        return None
    values.take("chat_messages")
    turns = []
    for message in said:
        role = {"human": "user", "assistant": "assistant"}.get(message["sender"])
        text = "\n".join(_parts(message.get("content"), notes)).strip() or message.get("text")
        notes.leave_unread("field", message, ("sender", "content", "text", "uuid", "created_at", "updated_at"))
        if role is None:
            notes.leave("message", str(message["sender"]))
        elif isinstance(text, str) and text.strip():
            turns.append((role, text.strip()))
    return {"messages": _joined(turns, notes)}


def _parts(content: Any, notes: Notes) -> Iterator[str]:
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        elif says(part):
            notes.leave("message", str(part.get("type")) if isinstance(part, dict) else "part")


def _joined(turns: list[Turn], notes: Notes) -> list[dict[str, str]]:
    """Turns that begin with the person's."""
    messages: list[dict[str, str]] = []
    for role, text in turns:
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text}"
        else:
            messages.append({"role": role, "content": text})
    if messages and messages[0]["role"] == "assistant":
        notes.leave("chat", "unasked")
        del messages[0]
    return messages
