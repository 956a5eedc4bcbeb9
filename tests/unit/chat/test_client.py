"""Which card the chat's process is started on. The process itself is played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core.chat import client
from core.chat.client import ChatClient, ChatTarget
from core.runs.run_json import RunFacts
from core.system import devices
from core.system.gpu import Card, Nvidia
from core.workspace.folder import Workspace
from tests.kit.runs import trained

BASE = ChatTarget("starter")
SMALL, LARGE = (
    Card(index=i, name=f"RTX {i}", uuid=f"GPU-{i}", total_bytes=(i + 1) << 33, free_bytes=(i + 1) << 33)
    for i in range(2)
)


class Played:
    """In a Child's place: lives until it is ended."""

    started: list[str | None]

    def __init__(self, module: str, *arguments: str, environment: dict[str, str], **options: Any):
        self.code: int | None = None
        self.process = SimpleNamespace(poll=lambda: self.code)
        Played.started.append(environment.get(devices.VISIBLE))

    def send(self, **values: Any) -> None:
        pass

    def listen(self, hear: Any, ended: Any) -> None:
        pass

    def end(self, wait_s: float) -> None:
        self.code = 0


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch):
    def are(*cards: Card) -> None:
        monkeypatch.setattr(devices, "read_cards", lambda: Nvidia(driver="580", cards=cards))

    Played.started = []
    monkeypatch.setattr(client, "Child", Played)
    are(SMALL, LARGE)
    return are


def full(card: Card) -> Card:
    """With what our own worker holds on it."""
    return card.model_copy(update={"free_bytes": 0})


def test_a_second_adapter_stays_on_the_card_that_the_worker_has(workspace: Workspace, cards):
    """Our own worker's memory made the other card look freer: the base was read again, there and back."""
    chat = ChatClient(workspace)
    chat.load(BASE)
    cards(SMALL, full(LARGE))
    chat.load(BASE)
    assert Played.started == ["GPU-1"]
    chat.unload()
    chat.load(BASE)
    assert Played.started == ["GPU-1", "GPU-0"], "no worker holds a card now"


def test_a_card_that_is_lost_and_the_processor_are_not_stayed_on(workspace: Workspace, cards):
    chat, run = ChatClient(workspace), trained(workspace, "on the processor")
    chat.load(BASE)
    cards(SMALL, LARGE.model_copy(update={"lost": True}))
    chat.load(BASE)
    assert Played.started == ["GPU-1", "GPU-0"]
    run.add_facts(RunFacts(wanted_device="cpu"))
    chat.load(ChatTarget("starter", run=run.id))
    chat.load(BASE)
    assert Played.started == ["GPU-1", "GPU-0", "-1", "GPU-0"]
