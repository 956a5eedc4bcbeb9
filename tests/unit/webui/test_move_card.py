"""Settings' part that moves the workspace, without a browser: what its buttons answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from core.workspace import moving
from core.workspace.folder import Workspace
from webui.kit.wording import Wording
from webui.pages import settings_cards
from webui.pages.settings_cards import MoveCard


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MoveCard:
    monkeypatch.setattr(settings_cards, "is_here", lambda request: request == "here")
    return MoveCard(SimpleNamespace(workspace=Workspace.open(tmp_path / "old")), Wording("en"))  # type: ignore[arg-type]


def seen(outputs: list) -> tuple[str, bool, bool]:
    said, cancel, forget = outputs
    return str(said), cancel["visible"], forget["visible"]


def test_a_move_is_asked_for_taken_back_and_its_old_copy_deleted_after_a_question(card: MoveCard, tmp_path: Path) -> None:
    new = str(tmp_path / "new")
    said, cancel, forget = seen(card.ask(new, "here"))
    assert new in said and "next start" in said and cancel and not forget
    assert seen(card.take_back("here"))[1:] == (False, False) and moving.wish(card.services.workspace) is None
    assert 'role="alert"' in seen(card.ask(str(tmp_path), "here"))[0], "inside each other"
    for hostile in (None, 3, "\0", ["x"]):
        assert seen(card.ask(hostile, "here"))[1] is False
    card.ask(new, "here")
    card.services.workspace = moving.move_where_asked(card.services.workspace, lambda done, total: None)
    (tmp_path / "old" / "settings.yaml").write_text("library_folders: []", "utf-8")
    assert str(tmp_path / "old") in seen(card.fresh())[0] and seen(card.fresh())[2]
    card.delete_old(None, "here")
    assert (tmp_path / "old" / "settings.yaml").exists()
    assert seen(card.delete_old("said", "here"))[2] is False and not (tmp_path / "old" / "settings.yaml").exists()


def test_over_the_network_no_folder_of_this_pc_is_named(card: MoveCard, tmp_path: Path) -> None:
    said, cancel, _ = seen(card.ask(str(tmp_path / "new"), "elsewhere"))
    assert "on the PC itself" in said and not cancel and moving.wish(card.services.workspace) is None
