"""What lies on this PC: in the hub's cache, in library folders, and in the stores of LM Studio and Ollama, which nobody
touches."""

from __future__ import annotations

import json
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
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
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
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """REPO in the hub's cache."""
    fetch_here(monkeypatch)
    with FakeHub({REPO: FILES}) as server:
        download.fetch(REPO, None, lambda progress: None, lambda: None, endpoint=server.url)
    return tmp_path / "cache" / "models--owner--model"


def by_store(space: Workspace) -> dict[str, list[StoredModel]]:
    found: dict[str, list[StoredModel]] = {}
    for row in on_disk(space):
        found.setdefault(row.store, []).append(row)
    return found


def test_a_model_of_the_hub_is_counted_once_though_its_snapshots_point_to_it(space: Workspace, here: Path) -> None:
    (row,) = by_store(space)["hub"]
    listing = sum(
        path.stat().st_size for name in ("refs", "trees") for path in (here / name).rglob("*") if path.is_file()
    )
    assert (row.id, row.size, row.is_complete, row.can_delete) == (REPO, SIZE + listing, True, True)
    assert row.last_used >= (here / "refs" / "main").stat().st_mtime


def test_half_a_model_is_a_row_that_says_so(space: Workspace, here: Path) -> None:
    (here / "refs" / "main").unlink()
    (here / "blobs" / "x.incomplete").write_bytes(bytes(1000))
    (row,) = by_store(space)["hub"]
    assert not row.is_complete and row.size > SIZE + 1000


def test_folders_of_the_library_are_named_as_a_recipe_names_them(space: Workspace) -> None:
    (row,) = by_store(space)["library"]
    assert (row.id, row.size, row.can_delete) == ("library:mine", 502, False)


def test_lm_studios_models_are_found_in_its_home_and_where_it_was_moved(
    space: Workspace, home: Path, tmp_path: Path
) -> None:
    model = home / ".lmstudio" / "models" / "maker" / "Model-GGUF"
    model.mkdir(parents=True)
    (model / "model-Q4_K_M.gguf").write_bytes(bytes(700))
    for more in ("model-Q8_0.gguf", "mmproj-model-f16.gguf", "big-00001-of-00002.gguf"):
        (model / more).write_bytes(bytes(900 if "Q8" in more else 999))
    (row,) = by_store(space)["lm_studio"]
    assert (row.id, row.can_delete) == ("maker/Model-GGUF", False) and row.size == 700 + 900 + 2 * 999
    assert row.gguf == model / "model-Q8_0.gguf"  # the least rounded one that is whole
    moved = tmp_path / "moved"
    (moved / "models" / "other" / "Model").mkdir(parents=True)
    (moved / "models" / "other" / "Model" / "m.gguf").write_bytes(bytes(10))
    (home / ".lmstudio-home-pointer").write_text(str(moved))
    assert [row.id for row in by_store(space)["lm_studio"]] == ["other/Model"]


def test_ollamas_models_are_read_from_its_manifests(
    space: Workspace, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifest(root: Path, *name: str, content: object) -> None:
        file = root.joinpath("manifests", *name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    # As ollama writes them: docs of its manifests, schemaVersion 2.
    layers = {
        "schemaVersion": 2,
        "layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:0", "size": 900}],
    }
    root = home / ".ollama" / "models"
    manifest(root, "its.host", "library", "llama3.2", "1b", content=layers)
    manifest(root, "its.host", "me", "tuned", "latest", content=layers)
    for name, broken in (("a", "no json"), ("b", []), ("c", {"layers": [{"size": "9"}, 1]}), ("d", {"layers": None})):
        manifest(root, "its.host", "library", name, "latest", content=broken)
    assert [(row.id, row.size) for row in by_store(space)["ollama"]] == [("llama3.2:1b", 900), ("me/tuned:latest", 900)]
    assert [row.made_from for row in by_store(space)["ollama"]] == ["meta-llama/Llama-3.2-1B-Instruct", None]
    assert all(row.gguf is None for row in by_store(space)["ollama"])  # no such blob
    blob = root / "blobs" / f"sha256-{'a' * 64}"
    blob.parent.mkdir()
    blob.write_bytes(b"GGUF")
    layers["layers"][0]["digest"] = f"sha256:{'a' * 64}"
    manifest(root, "its.host", "library", "llama3.2", "1b", content=layers)
    assert [row.gguf for row in by_store(space)["ollama"]] == [blob, None]
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "elsewhere"))
    assert "ollama" not in by_store(space)


def test_stores_that_are_not_there_and_links_to_nothing_are_no_rows_and_no_errors(
    space: Workspace, home: Path, tmp_path: Path
) -> None:
    (home / ".lmstudio-home-pointer").write_bytes(b"\xff\xfe")
    (home / ".ollama").write_text("a file")
    broken = tmp_path / "library" / "mine" / "gone.safetensors"
    if os.name != "nt":
        broken.symlink_to(tmp_path / "nothing")
    assert [row.id for row in on_disk(space)] == ["library:mine"]


def test_deleting_frees_what_was_told_and_leaves_the_rest_of_the_cache(space: Workspace, here: Path) -> None:
    other = here.parent / "models--owner--other" / "blobs"
    other.mkdir(parents=True)
    told = by_store(space)["hub"][0].size
    assert delete(space, REPO, {}) == told
    assert not here.exists() and other.is_dir() and cached.installed() == []
    with pytest.raises(ModelError) as caught:
        delete(space, REPO, {})
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
    space: Workspace, here: Path, state: State, needed: bool
) -> None:
    runs = Runs(space)
    recipe = Recipe.parse({"name": "Pirate", "model": {"id": REPO}, "data": {"source": "sample:pirate_answers"}})
    run = runs.create(recipe, "test")
    for step in PATHS[state]:
        run.write_status(Status(state=step, since=1.0))
    (row,) = [row for row in on_disk(space, runs.uses()) if row.store == "hub"]
    assert row.uses == (Use("Pirate", needed),) and row.can_delete is not needed
    if not needed:
        delete(space, REPO, runs.uses())
        assert not here.exists()
        return
    with pytest.raises(ModelError) as caught:
        delete(space, REPO, runs.uses())
    assert caught.value.message.key == "on_disk.used" and "Pirate" in str(caught.value) and cached.installed() == [REPO]


def test_what_was_made_of_a_gguf_file_is_ours_to_delete(space: Workspace) -> None:
    space = Workspace.open(space.root)
    made = space.from_gguf / "mine2"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    (row,) = [row for row in on_disk(space) if row.id == "library:mine2"]
    assert row.is_ours and row.can_delete
    with pytest.raises(ModelError, match="Night"):
        delete(space, row.id, {row.id: (Use("Night", True),)})
    assert delete(space, row.id, {}) == 2 and not made.exists()


def test_a_model_on_its_way_is_not_deleted(space: Workspace, here: Path) -> None:
    lock = cached.CachedRepo(REPO, here.parent).lock
    with WeakFileLock(lock), pytest.raises(ModelError) as caught:
        delete(space, REPO, {})
    assert caught.value.message.key == "on_disk.downloading" and cached.installed() == [REPO]


@pytest.mark.parametrize("name", ["starter", "library:mine", "../..", "owner", "a/b/c", ""])
def test_nothing_but_a_model_of_the_hub_is_deleted(space: Workspace, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        delete(space, name, {})
    assert caught.value.message.key == "on_disk.not_of_the_hub"
