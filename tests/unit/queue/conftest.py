"""What the tests of the queue share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.workspace.folder import Workspace
from tests.kit.queue import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(Workspace.open(tmp_path / "ws"), monkeypatch)
    yield made
    for worker in made.workers:
        worker._lock.release(force=True)
