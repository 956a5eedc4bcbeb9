"""What lies on this PC: in the hub's cache and in library folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub.utils import WeakFileLock

from core.errors import ModelError
from core.hub import cached, download
from core.models.on_disk import StoredModel, Use, delete, on_disk
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import Status
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit.fetching import fetch_here
from tests.kit.hub import FakeHub, tiny_model
from tests.kit.runs import PATHS

REPO = "owner/model"
# no two alike, which would be one blob where there are links
FILES = tiny_model() | {"tokenizer_config.json": b'{"a": 1}'}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    return folder


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    library = tmp_path / "library" / "mine"
    library.mkdir(parents=True)
    (library / "config.json").write_text("{}")
    (library / "model.safetensors").write_bytes(bytes(500))
    (tmp_path / "library" / "no model").mkdir()
    return Workspace(Workspace.open(tmp_path / "ws").root, (tmp_path / "library",))


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """REPO in the hub's cache."""
    fetch_here(monkeypatch)
    with FakeHub({REPO: FILES}) as server:
        download.fetch(REPO, None, lambda progress: None, lambda: None, endpoint=server.url)
    return tmp_path / "cache" / "models--owner--model"


def by_store(space: Workspace) -> dict[str, list[StoredModel]]:
    rows_by_store: dict[str, list[StoredModel]] = {}
    for row in on_disk(space):
        rows_by_store.setdefault(row.store, []).append(row)
    return rows_by_store


def test_a_model_of_the_hub_is_counted_once_though_its_snapshots_point_to_it(
    space: Workspace, hub_folder: Path
) -> None:
    (row,) = by_store(space)["hub"]
    listing = sum(
        path.stat().st_size for name in ("refs", "trees") for path in (hub_folder / name).rglob("*") if path.is_file()
    )
    assert (row.id, row.size, row.is_complete, row.can_delete) == (REPO, SIZE + listing, True, True)
    assert row.last_used >= (hub_folder / "refs" / "main").stat().st_mtime


def test_half_a_model_is_a_row_that_says_so(space: Workspace, hub_folder: Path) -> None:
    (hub_folder / "refs" / "main").unlink()
    (hub_folder / "blobs" / "x.incomplete").write_bytes(bytes(1000))
    (row,) = by_store(space)["hub"]
    assert not row.is_complete and row.size > SIZE + 1000


def test_folders_of_the_library_are_named_as_a_recipe_names_them(space: Workspace) -> None:
    (row,) = by_store(space)["library"]
    assert (row.id, row.size, row.can_delete) == ("library:mine", 502, False)


def test_stores_that_are_not_there_and_links_to_nothing_are_no_rows_and_no_errors(
    space: Workspace, home: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "library" / "mine" / "gone.safetensors"
    if os.name != "nt":
        broken.symlink_to(tmp_path / "nothing")
    assert [row.id for row in on_disk(space)] == ["library:mine"]


def test_deleting_frees_what_was_told_and_leaves_the_rest_of_the_cache(space: Workspace, hub_folder: Path) -> None:
    other = hub_folder.parent / "models--owner--other" / "blobs"
    other.mkdir(parents=True)
    size = by_store(space)["hub"][0].size
    assert delete(REPO, {}) == size
    assert not hub_folder.exists() and other.is_dir() and cached.installed() == []
    with pytest.raises(ModelError) as caught:
        delete(REPO, {})
    assert caught.value.message.key == "on_disk.not_there"


@pytest.mark.parametrize(
    ("state", "needed"),
    [
        (State.QUEUED, True),
        (State.PAUSED, True),
        (State.RUNNING, True),
        (State.COMPLETED, False),
        (State.STOPPED, False),
    ],
)
def test_a_model_that_a_run_still_needs_is_not_deleted_and_the_run_is_named(
    space: Workspace, hub_folder: Path, state: State, needed: bool
) -> None:
    runs = Runs(space)
    recipe = Recipe.parse({"name": "Pirate", "model": {"id": REPO}, "data": {"source": "sample:pirate_answers"}})
    run = runs.create(recipe, "test")
    for step in PATHS[state]:
        run.write_status(Status(state=step, since=1.0))
    (row,) = [row for row in on_disk(space, runs.uses()) if row.store == "hub"]
    assert row.uses == (Use("Pirate", needed, run.facts().created),) and row.can_delete is not needed
    assert row.last_used >= run.facts().created, "the system may not have recorded that the run read the files"
    if not needed:
        delete(REPO, runs.uses())
        assert not hub_folder.exists()
        return
    with pytest.raises(ModelError) as caught:
        delete(REPO, runs.uses())
    assert caught.value.message.key == "on_disk.used" and "Pirate" in str(caught.value) and cached.installed() == [REPO]


def test_a_model_on_its_way_is_not_deleted(space: Workspace, hub_folder: Path) -> None:
    lock = cached.CachedRepo(REPO, hub_folder.parent).lock
    with WeakFileLock(lock), pytest.raises(ModelError) as caught:
        delete(REPO, {})
    assert caught.value.message.key == "on_disk.downloading" and cached.installed() == [REPO]


@pytest.mark.parametrize("name", ["starter", "library:mine", "../..", "owner", "a/b/c", ""])
def test_nothing_but_a_model_of_the_hub_is_deleted(space: Workspace, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        delete(name, {})
    assert caught.value.message.key == "on_disk.not_of_the_hub"
