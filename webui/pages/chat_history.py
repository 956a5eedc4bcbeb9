"""A conversation on the page: gradio's messages, the turns that a model reads, and the folded parts of an answer."""

from __future__ import annotations

import re
from html import escape, unescape

from core.files import JsonObject

MAX_SYSTEM = 8000
Message = JsonObject

_THOUGHT = re.compile(r"\s*<think>(.*?)(?:</think>(.*)|$)", re.DOTALL)
_CALLS = re.compile(r"(<tool_call>.*?(?:</tool_call>|$))", re.DOTALL)
# a call of Llama 3: the answer is only its JSON
_BARE = re.compile(r"\s*\{\s*\"name\"\s*:.*\}\s*", re.DOTALL)
# A fold as `_folded` writes it. gradio's own folds have a button without a name within a button.
_FOLDED = re.compile(r'<details class="lg-(thought|call)"[^>]*><summary>[^<]*</summary><pre>([^<]*)</pre></details>')


def content_of(message: Message) -> str:
    """Return a message's text, which gradio hands back as a list of parts; "" without any."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def turns_of(history: list[Message] | None, system: str = "") -> list[dict[str, str]]:
    """Return a chatbot's history as turns of core.data.conversation, with a system prompt in front, folded thoughts
    as `reasoning` and folded calls in the text. A question without an answer is left out, unless it is the last
    message."""
    turns = [{"role": "system", "content": system.strip()[:MAX_SYSTEM]}] if system.strip() else []
    pairs: list[dict[str, str]] = []
    for message in history or []:
        role, content = str(message.get("role")), content_of(message)
        if role != "assistant" or not pairs or pairs[-1]["role"] != "assistant":
            pairs.append({"role": role, "content": ""})
        folded = _FOLDED.fullmatch(content.strip()) if role == "assistant" else None
        if folded and folded[1] == "thought":
            pairs[-1]["reasoning"] = unescape(folded[2])
        else:
            pairs[-1]["content"] += unescape(folded[2]) if folded else content
    for i, turn in enumerate(pairs):
        answered = i + 1 >= len(pairs) or _has_text(pairs[i + 1])
        if turn["role"] == "user" and answered or turn["role"] == "assistant" and _has_text(turn):
            turns.append(turn)
    return turns


def _has_text(turn: dict[str, str]) -> bool:
    """Return True for a turn with any content or reasoning."""
    return bool(turn["content"].strip() or turn.get("reasoning", "").strip())


def without_last(history: list[Message] | None) -> tuple[list[Message], str]:
    """Return the history before its last question, and that question; all of it and "" if there is none."""
    messages = list(history or [])
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].get("role") == "user":
            return messages[:i], content_of(messages[i])
    return messages, ""


def with_answer(history: list[Message] | None, answer: str, thought: str, call: str) -> list[Message]:
    """Return the history and then an answer, an assistant message each for its thinking, each tool call and each other
    text.

    Thinking and calls are HTML folds (<details>, their text escaped) titled `thought` and `call`. An empty answer is
    one empty message. The history itself is not changed; None counts as empty.
    """
    parts: list[str] = []
    if match := _THOUGHT.match(answer):
        thinking, answer = match[1].strip(), (match[2] or "").strip()
        parts += [_folded("thought", thought, thinking)] if thinking else []
    for part in [answer] if _BARE.fullmatch(answer) else _CALLS.split(answer):
        if part.startswith("<tool_call>") or _BARE.fullmatch(part):
            parts.append(_folded("call", call, part))
        elif part.strip():
            parts.append(part)
    return [*(history or []), *({"role": "assistant", "content": content} for content in parts or [""])]


def _folded(kind: str, title: str, content: str) -> str:
    """Return a fold as HTML on one line, as an empty line would end it in Markdown; open for the kind "call"."""
    text = escape(content).replace("\n", "&#10;")
    is_open = " open" if kind == "call" else ""
    return f'<details class="lg-{kind}"{is_open}><summary>{escape(title)}</summary><pre>{text}</pre></details>'


def last_answer(history: list[Message] | None) -> tuple[list[dict[str, str]], str]:
    """Return the turns up to the last question, and the answer as the model wrote it, thinking first; all turns and ""
    if there is none."""
    turns = turns_of(history)
    if not turns or turns[-1]["role"] != "assistant":
        return turns, ""
    return turns[:-1], as_written(turns[-1])


def as_written(turn: dict[str, str]) -> str:
    """Return an answer as the model wrote it: its reasoning in <think>, then its text."""
    thought = turn.get("reasoning", "").strip()
    return f"<think>\n{thought}\n</think>\n\n{turn['content'].strip()}" if thought else turn["content"].strip()
