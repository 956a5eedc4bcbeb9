"""The text of an example in its parts, each with whether it is trained, so that a person or a program can check it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from core.data.conversation import ChatMessage
from core.data.formats import Example
from core.files import JsonObject


def trained_text(example: Example) -> JsonObject:
    """Return the parts of an example as JSON values, before any model's template.

    parts: [{role, text, trained}], with thinking and tool_calls if there are some; role is null for text that no
    template surrounds. rejected: the parts of the worse answer's conversation. tools: the available ones.
    """
    if example.text is not None:
        parts = [_text_part(None, example.text, True)]
    elif example.messages:
        parts = _parts(example.messages, not example.is_bad)
    else:
        parts = [
            _text_part(None, example.prompt or "", False),
            _text_part(None, example.completion or "", not example.is_bad),
        ]
    more: JsonObject = {}
    if example.rejected:
        more["rejected"] = _parts(example.rejected, False)
    if example.tools:
        more["tools"] = json.loads(example.tools)
    return {"parts": parts, **more}


def _parts(messages: Iterable[ChatMessage], trained: bool) -> list[JsonObject]:
    """Return messages as parts to show: {role, text, trained}, with thinking and tool_calls if there are some.

    trained: False marks no part as trained; True marks the answers whose weight is not 0.
    """
    return [
        _text_part(message.role, message.content, trained and message.role == "assistant" and message.weight > 0)
        | ({"thinking": message.reasoning} if message.reasoning else {})
        | ({"tool_calls": [call.as_dict() for call in message.tool_calls]} if message.tool_calls else {})
        for message in messages
    ]


def _text_part(role: str | None, text: str, trained: bool) -> JsonObject:
    """Return one part of a row as the page shows it. role: None for a text that is no message. trained: True if the
    loss counts its tokens."""
    return {"role": role, "text": text, "trained": trained}
