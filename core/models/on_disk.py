"""Models on this PC: the hub's cache, the starter, the library folders, LM Studio and Ollama. No network.

Only models in the hub's cache and models that the app made from GGUF files can be deleted, and only as a whole: the
cache is shared with every other tool, so a person does it, by name. The other stores are only read: a row shows what is
there and how large it is.

LM Studio: <home>/models/<publisher>/<model>/, where ~/.lmstudio-home-pointer names the home, else ~/.lmstudio, else
~/.cache/lm-studio; its settings.json may name another folder of models (downloadsFolder).

Ollama: OLLAMA_MODELS, else ~/.ollama/models; manifests/<host>/<namespace>/<model>/<tag> lists the blobs and their
sizes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from filelock import Timeout
from huggingface_hub.utils import WeakFileLock

from core import files
from core.errors import ModelError
from core.files import JsonObject
from core.hub.cached import REPO_ID, CachedRepo, cache_folder
from core.models import gguf_names, starter
from core.workspace.folder import Workspace

Store = Literal["hub", "starter", "library", "lm_studio", "ollama"]
MOST = 1000  # rows of a store; files of a model
MANIFEST = 1 << 20  # bytes; Ollama's are some kilobytes
WEIGHTS = "application/vnd.ollama.image.model"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class Use:
    """A run that uses a model. needs_it: it waits, is at work, or can be resumed."""

    run: str
    needs_it: bool


@dataclass(frozen=True)
class StoredModel:
    """A model on this PC.

    id: the model.id if it can be a base, else its name in its store. size: bytes. last_used: newest access or change of
    one of its files, seconds since 1970; some systems record accesses once a day, some never. is_complete: for the
    hub's, whether it loads. made_from: for GGUF files, the catalogue model that they were made from, if their name
    shows it. gguf: such a file, if it is one complete model. is_ours: made here from a GGUF file
    (core.export.llamacpp.base).
    """

    store: Store
    id: str
    folder: Path
    size: int
    last_used: float
    is_complete: bool = True
    uses: tuple[Use, ...] = ()
    made_from: str | None = None
    gguf: Path | None = None
    is_ours: bool = False

    @property
    def can_delete(self) -> bool:
        return (self.store == "hub" or self.is_ours) and not any(use.needs_it for use in self.uses)


def on_disk(workspace: Workspace, uses: Mapping[str, Sequence[Use]] | None = None) -> list[StoredModel]:
    """Return all models, the largest first. uses: by model id (core.runs.all.Runs.uses)."""
    rows = [*_hub(), *_starter(workspace), *_library(workspace), *_lm_studio(), *_ollama()]
    used = (replace(row, uses=tuple(of_model)) if (of_model := (uses or {}).get(row.id)) else row for row in rows)
    return sorted(used, key=lambda row: (-row.size, row.id))


def delete(workspace: Workspace, repo_id: str, uses: Mapping[str, Sequence[Use]]) -> int:
    """Delete a model of the hub's cache with all its revisions, or one made here from a GGUF file; return the freed
    bytes.

    Raises ModelError, naming the run that uses it.
    """
    ours = {row.id: row for row in _library(workspace) if row.is_ours}.get(repo_id)
    if ours:
        if runs := [use.run for use in uses.get(repo_id, ()) if use.needs_it]:
            raise ModelError("on_disk.used", model=repo_id, runs=runs[:5])
        if not files.remove_tree(ours.folder, files.MOMENT_S):
            raise ModelError("on_disk.in_use", model=repo_id, folder=ours.folder)
        return ours.size
    if not REPO_ID.fullmatch(repo_id):
        raise ModelError("on_disk.not_of_the_hub", model=repo_id[:100])
    cached = CachedRepo(repo_id, cache_folder(None))
    if not cached.folder.is_dir():
        raise ModelError("on_disk.not_there", model=repo_id, folder=cached.cache)
    if runs := [use.run for use in uses.get(repo_id, ()) if use.needs_it]:
        raise ModelError("on_disk.used", model=repo_id, runs=runs[:5])
    cached.lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with WeakFileLock(cached.lock, timeout=files.LOOK_S):
            size, _ = _size_and_use(cached.folder)
            # References go first: an interrupted deletion leaves no model that looks complete.
            for name in ("refs", "snapshots"):
                files.remove_tree(cached.folder / name, files.MOMENT_S)
            if not files.remove_tree(cached.folder, files.MOMENT_S):
                raise ModelError("on_disk.in_use", model=repo_id, folder=cached.folder)
    except Timeout:
        raise ModelError("on_disk.downloading", model=repo_id) from None
    return size


def _hub() -> Iterator[StoredModel]:
    """Yield the models in the hub's cache; complete is one of which any ref has all files."""
    cache = cache_folder(None)
    for folder in _folders(cache):
        parts = folder.name.split("--")
        repo_id = "/".join(parts[1:])
        if parts[0] != "models" or not REPO_ID.fullmatch(repo_id):
            continue
        cached = CachedRepo(repo_id, cache)
        refs = [
            path.relative_to(cached.folder / "refs").as_posix()
            for path in (cached.folder / "refs").rglob("*")
            if path.is_file()
        ]
        size, last_used = _size_and_use(folder)
        yield StoredModel("hub", repo_id, folder, size, last_used, any(cached.snapshot(ref) for ref in refs))


def _starter(workspace: Workspace) -> Iterator[StoredModel]:
    if starter.is_ready(workspace.models):
        folder = starter.folder(workspace.models)
        yield StoredModel("starter", "starter", folder, *_size_and_use(folder))


def _library(workspace: Workspace) -> Iterator[StoredModel]:
    """Yield models of the library folders, named as in core.models.library: the first one of each name."""
    names = set()
    for root in workspace.library_folders:
        for folder in [root, *_folders(root)] if root.is_dir() else []:
            if (folder / "config.json").is_file() and folder.name not in names:
                names.add(folder.name)
                is_ours = folder.parent == workspace.from_gguf
                yield StoredModel("library", f"library:{folder.name}", folder, *_size_and_use(folder), is_ours=is_ours)
        for file in _files(root):
            if file.suffix == ".gguf" and not _is_part(file):
                made_from = gguf_names.made_from(file.stem)
                yield StoredModel("library", file.name, file, *_file_size_and_use(file), made_from=made_from, gguf=file)


def lm_studio_models(home: Path) -> list[Path]:
    """Return the folders in which LM Studio keeps models, the one in use first: of each existing home, or as its
    settings say."""
    pointed = Path()
    with suppress(OSError, ValueError):
        pointed = Path((home / ".lmstudio-home-pointer").read_text("utf-8").strip())
    homes = (
        [pointed] if pointed.is_absolute() and pointed.is_dir() else [home / ".lmstudio", home / ".cache" / "lm-studio"]
    )
    folders = []
    for one in filter(Path.is_dir, homes):
        moved = files.read_object(one / "settings.json").get("downloadsFolder")
        folders.append(
            Path(moved) if isinstance(moved, str) and os.path.isabs(moved) and "\0" not in moved else one / "models"
        )
    return folders


def _lm_studio() -> Iterator[StoredModel]:
    """Yield the models of LM Studio, each with its largest complete GGUF file."""
    for publisher in (each for models in lm_studio_models(Path.home()) for each in _folders(models)):
        for folder in _folders(publisher):
            size, last_used = _size_and_use(folder)
            if size:
                made_from = gguf_names.made_from(folder.name)
                complete = [file for file in _files(folder) if file.suffix == ".gguf" and not _is_part(file)]
                best = max(
                    complete, key=_file_size_and_use, default=None
                )  # of several the largest, which is the least quantized
                yield StoredModel(
                    "lm_studio",
                    f"{publisher.name}/{folder.name}",
                    folder,
                    size,
                    last_used,
                    made_from=made_from,
                    gguf=best,
                )


def _ollama() -> Iterator[StoredModel]:
    """Yield the models of Ollama by their manifests, each with its GGUF blob."""
    setting = os.environ.get("OLLAMA_MODELS", "").strip()
    root = Path(setting) if setting else Path.home() / ".ollama" / "models"
    for host in _folders(root / "manifests"):
        for model in (each for namespace in _folders(host) for each in _folders(namespace)):
            for manifest in _files(model):
                layers = files.read_json(manifest, MANIFEST)
                listed = layers.get("layers") if isinstance(layers, dict) else None
                sizes = (
                    [layer.get("size") for layer in listed if isinstance(layer, dict)]
                    if isinstance(listed, list)
                    else []
                )
                size = sum(each for each in sizes if isinstance(each, int) and each > 0)
                if size:
                    space = model.parent.name
                    name = (
                        f"{model.name}:{manifest.name}"
                        if space == "library"
                        else f"{space}/{model.name}:{manifest.name}"
                    )
                    made_from = gguf_names.made_from(f"{model.name}:{manifest.name}")
                    blobs = [_blob(root, layer) for layer in listed or () if isinstance(layer, dict)]
                    gguf = next((blob for blob in blobs if blob), None)
                    yield StoredModel(
                        "ollama", name, manifest, size, manifest.stat().st_mtime, made_from=made_from, gguf=gguf
                    )


def _blob(root: Path, layer: JsonObject) -> Path | None:
    """Return the file of a layer with weights; None for any other layer."""
    digest = layer.get("digest")
    if layer.get("mediaType") != WEIGHTS or not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        return None
    blob = root / "blobs" / digest.replace(":", "-")
    return blob if blob.is_file() else None


def _is_part(file: Path) -> bool:
    """Return whether file is one of several files of a model, or its vision part (mmproj)."""
    return bool(PART.search(file.name)) or "mmproj" in file.name.lower()


def _folders(root: Path) -> list[Path]:
    return [path for path in _entries(root) if path.is_dir()]


def _files(root: Path) -> list[Path]:
    return [path for path in _entries(root) if path.is_file()]


def _entries(root: Path) -> list[Path]:
    """Return the entries of a folder; empty if it is missing or unreadable."""
    try:
        return sorted(root.iterdir())[:MOST]
    except OSError:
        return []


def _file_size_and_use(file: Path) -> tuple[int, float]:
    """Return the size of a file and its last use; zeros if it is gone."""
    with suppress(OSError):
        stat = file.stat()
        return stat.st_size, max(stat.st_atime, stat.st_mtime)
    return 0, 0.0


def _size_and_use(folder: Path) -> tuple[int, float]:
    """Return the bytes of a folder's files, links counted once by their target, and the last use of any of them, 0 if
    empty."""
    size, last_used, counted = 0, 0.0, set()
    inside = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    for path in islice(inside, 10 * MOST):
        with suppress(OSError):  # a broken link, or a file deleted meanwhile
            stat = os.stat(path)
            if S_ISREG(stat.st_mode) and (stat.st_dev, stat.st_ino) not in counted:
                counted.add((stat.st_dev, stat.st_ino))
                size += stat.st_size
                last_used = max(last_used, stat.st_atime, stat.st_mtime)
    return size, last_used
