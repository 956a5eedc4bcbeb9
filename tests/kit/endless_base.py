"""The app with a chat whose base model never ends by itself: `python -m tests.kit.endless_base`, with the options of
the app."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from core.chat.answer import Answer, Done, Piece
from core.chat.client import ChatState, ChatTarget
from core.errors import ChatError


class EndlessBase:
    """Replaces core.chat.client.ChatClient: the tuned answer is complete at once, the base's is written until it is
    stopped."""

    def __init__(self) -> None:
        self._state, self._answer, self._count = ChatState(), None, 0

    def state(self) -> ChatState:
        return self._state

    def load(self, target: ChatTarget) -> None:
        self._state = ChatState("ready", target, dtype="bfloat16", mixed=True)

    def unload(self, reason: Any = None) -> None:
        self.stop()
        self._state = ChatState(why_unloaded=reason)

    def ask(self, base: Sequence[Any], tuned: Sequence[Any], sampling: Any = None, strength: float = 1.0) -> Answer:
        if self._answer is not None:
            raise ChatError("chat.already_answering")
        self._count += 1
        self._answer = answer = Answer(self._count, lambda number, column, question: self.stop(column))
        for item in (
            Piece("base", "and on and on"),
            Piece("tuned", f"Aye {self._count}."),
            Done("tuned", 3, 0.5, "stop"),
        ):
            answer.put(item)
        return answer

    def stop(self, column: str | None = None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.put(Done("base", 256, 9.0, "stopped"))
            answer.put(None)


def main() -> int:
    import webui.state.services
    from webui.__main__ import main as app

    webui.state.services.ChatClient = lambda workspace, **settings: EndlessBase()
    return app(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
