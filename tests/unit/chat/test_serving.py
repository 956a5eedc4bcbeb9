"""What the chat's process does with what it is told, one command after the other; no model is loaded."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.chat.chat_worker import ChatWorker
from core.errors import ModelError
from core.workspace.folder import Workspace


@pytest.mark.parametrize("failure", [ModelError("hub.bad_id", found="x"), MemoryError(), KeyError("x")], ids=str)
def test_a_load_that_fails_after_another_was_asked_for_does_not_end_that_one(
    failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by a reader: too large a model, then the same in 4 bit: "the chat process ended unexpectedly"."""
    loaded: list[int] = []
    events: list[dict[str, Any]] = []

    def load(worker: ChatWorker, command: dict[str, Any]) -> None:
        worker._load = command["load"]
        if command["load"] == 1:
            raise failure
        loaded.append(command["load"])

    def both(hear: Any, gone: Any) -> None:
        for number in (1, 2):
            hear({"command": "load", "load": number})

    monkeypatch.setattr(ChatWorker, "_do_load", load)
    parent = SimpleNamespace(listen=both, send=lambda **what: events.append(what))
    worker = ChatWorker(Workspace.open(tmp_path), parent, contextlib.ExitStack())  # type: ignore[arg-type]
    assert worker.serve(0) == 0 and loaded == [2]
    assert [each["event"] for each in events] == ["error", "idle"]
