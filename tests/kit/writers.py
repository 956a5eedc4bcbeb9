"""A scripted model that writes rows about an invented coffee roaster, with faults a test chooses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from core.chat.making.writers import Conversations
from core.files import JsonObject


def manual(parts: int) -> str:
    """Return a manual with a chapter for each part; no model knows its facts."""
    return "\n\n".join(
        f"# Part {n}\n\nThe lever of the Brassel {n} turns {n + 3} times a minute.\n\n"
        f"The tray of the Brassel {n} takes {n * 7 + 20} grams of chaff. "
        + "Keep it dry and never use soap on it. "
        * 30
        for n in range(1, parts + 1)
    )


def facts_of(passage: str) -> list[tuple[str, str, str]]:
    """Return the facts (question, answer, quote) that a passage of the manual states."""
    found = re.findall(r"(The (\w+) of the Brassel (\w+) ((?:turns|takes) \d+ [^.]*)\.)", passage)
    return [(f"What does the {part} of the Brassel {n} do?", f"It {does}.", quote) for quote, part, n, does in found]


def scripted_reply(body: dict[str, Any]) -> str:
    """Return a ScriptedWriter's reply to the body of a request to a server."""
    wanted = body.get("response_format", {}).get("json_schema", {}).get("schema")
    return ScriptedWriter().answers([body["messages"]], 100, schema=wanted)[0]


class ScriptedWriter:
    """Writes each fact as a row, and answers from the passage that it is given. change: called with the number of the
    call and a reply, returns the reply to use."""

    name = "scripted"

    def __init__(self, change: Callable[[int, str], str] = lambda call, text: text, knows: str = "") -> None:
        self.requests: list[list[JsonObject]] = []
        self._change, self._knows = change, knows

    def answers(
        self, conversations: Conversations, max_tokens: int, attempt: int = 0, schema: JsonObject | None = None
    ) -> list[str]:
        return [self._answer([dict(turn) for turn in turns], schema) for turns in conversations]

    def _answer(self, turns: list[JsonObject], schema: JsonObject | None) -> str:
        self.requests.append(turns)
        question = str(turns[-1]["content"])
        if schema is not None:
            text = self._rows(question, schema)
        else:
            system = str(turns[0]["content"])
            passage = (
                json.loads(system[system.index('{"passage"') :])["passage"] if '{"passage"' in system else self._knows
            )
            text = next((answer for asked, answer, _ in facts_of(passage) if asked == question), "NOT STATED")
        return self._change(len(self.requests), text)

    @staticmethod
    def _rows(passage: str, schema: JsonObject) -> str:
        row: dict[str, Any] = schema["properties"]["rows"]["items"]["properties"]
        if "steps" in row:
            steps = [{"question": q, "answer": a, "quote": quote} for q, a, quote in facts_of(passage)]
            return json.dumps({"rows": [{"steps": steps}]})
        if "question" in row:
            return json.dumps({"rows": [{"question": "Who painted the Brassel?"}]})
        return json.dumps({"rows": [{"questions": [q, f"Tell me: {q}"], "answer": a, "quote": quote}
                                    for q, a, quote in facts_of(passage)]})  # fmt: skip
