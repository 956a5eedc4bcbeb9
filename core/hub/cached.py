"""Files of a hub model in the Hugging Face cache, and the files that make it complete. No network."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from core import files

Kind = Literal["model", "dataset"]
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
REPO_ID = re.compile(rf"(?!.*(?:\.\.|--|\.git\Z)){_PART}/{_PART}")  # the hub's own rules, with the owner required
REVISION = re.compile(r"(?!.*(?:\.\.|//|/\.))[A-Za-z0-9_][A-Za-z0-9_./-]{0,99}(?<![/.])")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_SMALL = (
    *("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "merges.txt", "README.md", *TOKENIZERS),
)
# Files of a vision or audio model, which programs need to use a merged one. A snapshot from before they were downloaded
# counts as complete without them.
_PROCESSOR = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_LICENSE = re.compile(r"LICENSE[\w-]*(\.md|\.txt)?")
SHARD = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)  # a file of its own folder
COMMIT = re.compile(r"[0-9a-f]{40}")


def installed(cache_dir: str | Path | None = None) -> list[str]:
    """Return the ids of the models whose main branch is usable in the cache without the network, sorted; [] without a
    cache."""
    cache = cache_folder(cache_dir)
    try:
        folders = [entry.name.split("--") for entry in os.scandir(cache) if entry.name.startswith("models--")]
    except OSError:
        return []
    ids = ["/".join(parts[1:]) for parts in folders if len(parts) == 3]
    return sorted(
        repo_id
        for repo_id in ids
        if REPO_ID.fullmatch(repo_id) and CachedRepo(repo_id, cache).snapshot(constants.DEFAULT_REVISION)
    )


def cached_folder(repo_id: str, revision: str | None = None, cache_dir: str | Path | None = None) -> Path | None:
    """Return the snapshot folder of a model's revision (None: main) if it is usable in the hub's cache without the
    network: a config, a tokenizer and every weight file exist, of whatever size. None otherwise, and for an invalid
    name. cache_dir: None for the default cache."""
    if not REPO_ID.fullmatch(repo_id) or not REVISION.fullmatch(revision or constants.DEFAULT_REVISION):
        return None
    return CachedRepo(repo_id, cache_folder(cache_dir)).snapshot(revision or constants.DEFAULT_REVISION)


# --- the cache
def cache_folder(cache_dir: str | Path | None) -> Path:
    """Return the absolute path of the hub's cache: cache_dir, or HF_HUB_CACHE for None. It need not exist."""
    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser().absolute()


@dataclass(frozen=True)
class CachedRepo:
    """One `models--owner--name` folder: blobs/, snapshots/<commit>/, refs/<revision>, trees/<commit>.json."""

    repo_id: str
    cache: Path
    kind: Kind = "model"

    @property
    def folder(self) -> Path:
        return self.cache / f"{self.kind}s--{self.repo_id.replace('/', '--')}"

    @property
    def lock(self) -> Path:
        """The lock file that this app holds while it changes the folder."""
        return self.lock_of("lora-garage")

    def lock_of(self, blob: str) -> Path:
        """The lock file that huggingface_hub holds while it downloads a file."""
        return self.cache / ".locks" / self.folder.name / f"{blob}.lock"

    def snapshot(self, revision: str) -> Path | None:
        """Return the snapshot folder of revision if it is usable (a config, a tokenizer, and every shard its index
        names); else None."""
        commit = revision
        if not COMMIT.fullmatch(revision):
            try:
                commit = (self.folder / "refs" / revision).read_text("utf-8").strip()
            except (OSError, ValueError):
                return None
        folder = self.folder / "snapshots" / commit
        if not COMMIT.fullmatch(commit) or not (folder / "config.json").is_file():
            return None
        if not any((folder / name).is_file() for name in TOKENIZERS):
            return None
        return folder if all((folder / name).is_file() for name in _local_weights(folder) or [SINGLE]) else None

    def is_complete(self, snapshot: Path) -> bool:
        """Return whether every needed file of the cached listing exists in full size; False without a listing."""
        try:
            listing = get_cached_repo_tree(self.repo_id, revision=snapshot.name, cache_dir=self.cache)
        except (CachedRepoTreeNotFoundError, OSError):
            return False
        weights = _local_weights(snapshot)
        needed = [
            file for file in listing if (is_small(file.path) and file.path not in _PROCESSOR) or file.path in weights
        ]
        return all(has(snapshot / file.path, file.size) for file in needed)


def _local_weights(folder: Path) -> list[str]:
    """Return the names of the weight files that a snapshot must have: model.safetensors alone if it is there, else the
    index and the shards that it names, whether they exist or not."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    return [INDEX, *shards(folder / INDEX)]


def shards(index: Path) -> list[str]:
    """Return the shard names of an index file, sorted; [] if it is missing or not an index."""
    content = files.read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    return sorted({str(name) for name in weight_map.values()}) if isinstance(weight_map, dict) else []


def has(path: Path, size: int | None) -> bool:
    """Return whether the file exists, of this size in bytes if it is known; False if it cannot be read."""
    try:
        return path.is_file() and (size is None or path.stat().st_size == size)
    except OSError:
        return False


def is_small(name: str) -> bool:
    """Return whether a file of this name is downloaded beside the weights: configuration, tokenizer, processor, card,
    licence."""
    return name in _SMALL or name in _PROCESSOR or bool(_LICENSE.fullmatch(name))
