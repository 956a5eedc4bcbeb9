"""No hub, token or cache of this PC: what a test asks is the hub of tests/kit/hub, which nobody has asked before."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.models.library import Models
from core.workspace.folder import Workspace
from tests.kit.fetching import fetch_here


@pytest.fixture(autouse=True)
def no_hub_of_this_pc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    places = {"HF_TOKEN_PATH": str(tmp_path / "no-token"), "HF_HUB_CACHE": str(tmp_path / "cache")}
    for name, value in (places | {"HF_HUB_OFFLINE": False}).items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    """Of an empty workspace, downloading on threads of this process."""
    fetch_here(monkeypatch)
    return Models(Workspace.open(tmp_path / "ws"))
