"""A copy of the workspace in another folder is used from now on, and found by the old name."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from core.commands.__main__ import main
from core.errors import RecipeError
from core.messages import msg
from core.workspace import lease
from core.workspace.folder import MOVED, Workspace, use_copy
from core.workspace.owner import Ownership


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    space = Workspace.open(tmp_path / "old")
    (space.runs / "2026-11-28_a").mkdir()
    (space.runs / "2026-11-28_a" / "recipe.yaml").write_text("name: a\n", "utf-8")
    return space


def copied(space: Workspace, to: Path) -> Path:
    return Path(shutil.copytree(space.root, to))


def test_a_copy_is_found_by_the_old_name_and_can_come_back(space: Workspace, tmp_path: Path) -> None:
    new = copied(space, tmp_path / "D 盘" / "garage")
    assert main(["workspace", "--workspace", str(space.root), "--use", str(new)]) == 0
    assert Workspace.open(space.root).root == Workspace.open(new).root == new
    for path in [path for path in space.root.iterdir() if path.name != MOVED]:  # which the command says may go
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (Workspace.open(space.root).runs / "2026-11-28_a").is_dir()
    copied(Workspace.open(new), tmp_path / "back")
    shutil.copytree(new, space.root, dirs_exist_ok=True)
    use_copy(new, space.root)
    assert Workspace.open(space.root).root == Workspace.open(new).root == space.root


def test_what_is_no_copy_is_refused_and_nothing_changes(space: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    linked = tmp_path / "link"
    with suppress(OSError):  # Windows without the right to make links
        linked.symlink_to(space.root, target_is_directory=True)
    if not (linked / "runs").is_dir():  # nor under Wine, whose links lead nowhere
        linked = space.root
    for folder, key in (
        (tmp_path / "empty", "workspace.not_copied"),
        (tmp_path / "none", "workspace.not_copied"),
        (Workspace.open(tmp_path / "another").root, "workspace.not_copied"),
        (linked, "workspace.inside"),
        (space.root, "workspace.inside"),
        (space.runs, "workspace.inside"),
        (tmp_path, "workspace.inside"),
        (Path("~nobody-here/x"), "workspace.not_copied" if os.name == "nt" else "workspace.no_home"),
    ):
        with pytest.raises(RecipeError) as refused:
            use_copy(space.root, folder)
        assert refused.value.message.key == key
    assert Workspace.open(space.root).root == space.root


def test_a_copy_that_was_cut_off_is_refused_and_names_the_file(space: Workspace, tmp_path: Path) -> None:
    new = copied(space, tmp_path / "new")
    (new / "runs" / "2026-11-28_a" / "recipe.yaml").write_text("na", "utf-8")
    with pytest.raises(RecipeError) as refused:
        use_copy(space.root, new)
    assert str(Path("runs", "2026-11-28_a", "recipe.yaml")) in refused.value.message.render("en")


def test_while_a_run_is_at_work_the_workspace_stays(
    space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = copied(space, tmp_path / "new")
    with lease.hold(space, msg("lease.held")):
        assert main(["workspace", "--workspace", str(space.root), "--use", str(new)]) == 2
    assert Workspace.open(space.root).root == space.root


def test_an_open_app_keeps_its_workspace(space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = copied(space, tmp_path / "new")
    app = Ownership(space)
    assert app.claim("http://127.0.0.1:1", patience_s=0.0) is None
    try:
        assert main(["workspace", "--workspace", str(space.root), "--use", str(new)]) == 2
        assert "Close it first" in capsys.readouterr().err and Workspace.open(space.root).root == space.root
    finally:
        app.release()


def test_a_pointer_to_a_folder_that_is_gone_is_said_and_no_new_workspace_is_made(
    space: Workspace, tmp_path: Path
) -> None:
    new = copied(space, tmp_path / "new")
    use_copy(space.root, new)
    shutil.rmtree(new)
    with pytest.raises(RecipeError) as refused:
        Workspace.open(space.root)
    assert refused.value.message.key == "workspace.moved_away" and not new.exists()
