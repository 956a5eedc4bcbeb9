"""The workspace to another folder: copied, read back, pointed to; whatever is killed, one of the two is whole and is opened."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from core import files
from core.commands.__main__ import main
from core.errors import BusyError, GarageError, RecipeError
from core.messages import msg
from core.workspace import lease, moving
from core.workspace.folder import MOVED, Workspace
from core.workspace.owner import Ownership

NAMES = ("runs/2026-11-28_a/recipe.yaml", "datasets/中文 x/rows.arrow", "models/from-gguf/b/model.safetensors", "preferences.json")


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    space = Workspace.open(tmp_path / "old")
    for name in NAMES:
        (space.root / name).parent.mkdir(parents=True, exist_ok=True)
        (space.root / name).write_bytes(name.encode() * 1000)
    (space.root / "runs" / "empty").mkdir()
    (space.cache / "thrown away").write_text("x")
    return space


def quiet(done: int, total: int) -> None:
    pass


def held(root: Path) -> dict[str, bytes]:
    """All but what stays, and what a kill leaves beside it (core/files.py)."""
    tops = {path: path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
    paths = [path for path, top in tops.items() if top not in moving.STAYS and not top.startswith(".mov")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_a_moved_workspace_is_found_by_its_old_name_and_the_old_copy_goes_when_told(space: Workspace, tmp_path: Path) -> None:
    before, told = held(space.root), []
    new = moving.move(space, str(tmp_path / "D" / "garage"), lambda done, total: told.append((done, total)))
    assert new.root == tmp_path / "D" / "garage" and held(new.root) == before == held(space.root)
    assert told[-1][0] == told[-1][1] == sum(map(len, before.values())) and (new.runs / "empty").is_dir()
    assert Workspace.open(space.root).root == Workspace.open(new.root).root == new.root and not (new.root / "cache").exists()
    assert moving.old_copy(new) == space.root
    assert moving.forget_old(new) == sum(map(len, before.values()))
    assert held(new.root) == before and held(space.root) == {} and Workspace.open(space.root).root == new.root
    with pytest.raises(RecipeError) as refused:
        moving.forget_old(new)
    assert refused.value.message.key == "moving.no_old"
    back = moving.move(new, str(space.root), quiet)  # to where it came from
    assert back.root == space.root and held(back.root) == before and Workspace.open(new.root).root == space.root


@pytest.mark.parametrize("step", range(7))
def test_a_move_that_is_killed_leaves_the_old_one_in_use_and_the_next_goes_on(
    space: Workspace, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the step-th rename of a file: what arrives, and what points."""
    before, real, left = held(space.root), files.rename, step

    def killed(source: Path, target: Path, *rest: float) -> None:
        nonlocal left
        if target.name not in ("app.owner.json", "gpu.owner.json"):
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
        real(source, target, *rest)

    monkeypatch.setattr(files, "rename", killed)
    new = str(tmp_path / "new")
    with pytest.raises(KeyboardInterrupt):
        moving.move(space, new, quiet)
    monkeypatch.setattr(files, "rename", real)
    assert Workspace.open(space.root).root == space.root and held(space.root) == before
    assert moving.move(space, new, quiet).root == Path(new) and held(Path(new)) == before


def test_a_drive_that_gives_back_something_else_is_not_pointed_to(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "_digest", lambda path: b"something else")
    with pytest.raises(RecipeError) as refused:
        moving.move(space, str(tmp_path / "new"), quiet)
    assert refused.value.message.key == "moving.failed" and not (space.root / MOVED).exists()
    assert "read back" in refused.value.message.render("en")


def test_nothing_is_moved_from_under_an_app_or_a_run(space: Workspace, tmp_path: Path) -> None:
    with lease.hold(space, msg("moving.doing", folder="x")), pytest.raises(BusyError):
        moving.move(space, str(tmp_path / "new"), quiet)
    owner = Ownership(space)
    assert owner.claim("") is None
    with pytest.raises(BusyError):
        moving.move(space, str(tmp_path / "new"), quiet)
    owner.release()
    assert not (space.root / MOVED).exists()


@pytest.mark.parametrize(
    ("folder", "key"),
    [
        (" ", "nowhere"),
        ("old/inside", "inside"),
        ("old", "inside"),
        (".", "inside"),
        ("full", "not_empty"),
        ("a\0b", "cannot_write"),
        ("file/x", "cannot_write"),
    ],
)
def test_a_folder_that_is_no_place_for_it_is_refused(space: Workspace, tmp_path: Path, folder: str, key: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError) as refused:
        moving.ask_for(space, folder if not folder.strip() else os.path.normpath(tmp_path / folder))
    assert refused.value.message.key == f"moving.{key}" and moving.wish(space) is None


def test_too_small_a_drive_is_said_before_anything_is_copied(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("usage", (), {"free": moving.SPARE}))
    with pytest.raises(RecipeError) as refused:
        moving.ask_for(space, str(tmp_path / "new"))
    assert refused.value.message.key == "moving.no_room" and not (tmp_path / "new").exists()


def test_what_the_page_asked_for_is_done_by_the_next_start_and_a_failure_is_kept_for_it(space: Workspace, tmp_path: Path) -> None:
    moving.ask_for(space, str(tmp_path / "new"))
    with lease.hold(space, msg("moving.doing", folder="x")):
        assert moving.move_where_asked(space, quiet).root == space.root and moving.wish(space).problem is None, (
            "a run goes on: later"
        )
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "holiday.jpg").touch()
    assert moving.move_where_asked(space, quiet).root == space.root
    assert moving.wish(space).problem.key == "moving.not_empty"
    assert moving.move_where_asked(space, quiet).root == space.root, "not at each start again"
    moving.ask_for(space, str(tmp_path / "other"))
    assert moving.move_where_asked(space, quiet).root == tmp_path / "other" and moving.wish(Workspace(tmp_path / "other")) is None


def test_a_drive_that_is_not_plugged_in_is_not_made_anew(space: Workspace, tmp_path: Path) -> None:
    moving.move(space, str(tmp_path / "drive"), quiet)
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    with pytest.raises(GarageError) as refused:
        Workspace.open(space.root)
    assert refused.value.message.key == "workspace.moved_away" and not (tmp_path / "drive").exists()


def test_a_word_of_where_it_went_that_cannot_be_read_makes_no_new_one(
    space: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving.move(space, str(tmp_path / "new"), quiet)
    there = sorted(space.root.iterdir())
    with monkeypatch.context() as patched:
        refuse = Mock(side_effect=PermissionError(13, "held by a scanner"))
        patched.setattr(Path, "read_text", refuse)
        patched.setattr(files, "open", refuse, raising=False)
        with pytest.raises(RecipeError, match="held by a scanner"):
            Workspace.open(space.root)
    assert sorted(space.root.iterdir()) == there and Workspace.open(space.root).root == tmp_path / "new"


@pytest.mark.skipif(os.name == "nt", reason="a link needs a right there that users have not")
def test_links_arrive_as_links(space: Workspace, tmp_path: Path) -> None:
    os.link(space.root / NAMES[0], space.root / "runs" / "same")
    (space.root / "runs" / "link").symlink_to("2026-11-28_a", target_is_directory=True)
    size = moving.size(space)
    new = moving.move(space, str(tmp_path / "new"), quiet)
    assert (new.runs / "same").stat().st_ino == (new.root / NAMES[0]).stat().st_ino and moving.size(new) == size
    assert (new.runs / "link").is_symlink() and (new.runs / "link" / "recipe.yaml").is_file()


def test_the_command_moves_it_and_deletes_the_old_copy(space: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = ["--workspace", str(space.root)]
    assert main(["workspace", *old, "--move", str(tmp_path / "new")]) == 0
    said = capsys.readouterr()
    assert str(tmp_path / "new") in said.out and "--delete-old" in said.out and "copied and checked" in said.err
    assert main(["workspace", *old, "--delete-old", "--json"]) == 0
    assert f'"workspace": "{tmp_path / "new"}"' in capsys.readouterr().out.replace("\\\\", "\\") and held(space.root) == {}
    assert main(["workspace", *old, "--move", str(tmp_path / "new")]) == 2
