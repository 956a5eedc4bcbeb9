"""A KoboldAI story: `prompt` and `actions` in order; if it was written as a chat, its markers say who writes."""

from __future__ import annotations

import re
from typing import Any

from core.data.shapes.left_out import Columns, Notes

_MARK = re.compile(r"\{\{\[(INPUT|OUTPUT)\]\}\}")
_OF_SAVE = ("gamestarted", "authorsnote", "anotetemplate", "actions_metadata", "savedsettings")


def kobold(values: Columns, notes: Notes) -> dict[str, Any] | None:
    actions, prompt = values.peek("actions"), values.peek("prompt")
    if not isinstance(actions, list) or not isinstance(prompt, str) or not any(name in values for name in _OF_SAVE):
        return None
    values.take("actions", "prompt", *(name for name in _OF_SAVE if name != "authorsnote"))
    parts = _MARK.split(prompt + "".join(part for part in actions if isinstance(part, str)))
    if any(not isinstance(part, str) for part in actions):
        notes.leave("part", "actions")
    if len(parts) == 1:
        return {"text": parts[0].strip()}
    memory = values.peek("memory")
    values.take("memory")
    about = "\n\n".join(part.strip() for part in (memory, parts[0]) if isinstance(part, str) and part.strip())
    turns = [
        {"role": "user" if mark == "INPUT" else "assistant", "content": text.strip()}
        for mark, text in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return {
        "messages": [
            *([{"role": "system", "content": about}] if about else []),
            *(turn for turn in turns if turn["content"]),
        ]
    }
