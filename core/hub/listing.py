"""The files of a hub repository at one commit, and the checks that need no weights.

Only safetensors and their companion files are ever downloaded: no pickles, no Python.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.hf_api import DatasetInfo, ModelInfo
from huggingface_hub.utils import build_hf_headers

from core import files
from core.errors import ModelError
from core.hub.cached import COMMIT, INDEX, SHARD, SINGLE, TOKENIZERS, Kind, is_small
from core.hub.card import base_of
from core.hub.hub_errors import NotAHub

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Files of an adapter that are read, and the most bytes of each; never a pickle.
ADAPTER_FILES = {
    "adapter_config.json": 1 << 20,
    "adapter_model.safetensors": 32 << 30,
    "chat_template.jinja": 1 << 20,
    "tokenizer_config.json": 16 << 20,
}
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
TIMEOUT_S = 10.0  # without a byte from the server


@dataclass(frozen=True)
class File:
    """A file of a repository. blob: its name under blobs/, the etag, as in huggingface_hub."""

    name: str
    size: int | None
    blob: str
    sha256: str | None


class Listing:
    """The files of one commit, with the checks that need no weights."""

    def __init__(self, repo_id: str, info: ModelInfo | DatasetInfo, token: bool | None = None):
        """Index the files of the hub's answer by name. Raises NotAHub if it names no commit. token: for further
        requests, None for the one that huggingface_hub finds, False for none."""
        self.repo_id, self.info = repo_id, info
        self.kind: Kind = "dataset" if isinstance(info, DatasetInfo) else "model"
        self.token = token  # None: the one that huggingface_hub finds; False: none, because that one is refused
        self.commit = info.sha or ""
        self.siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
        if not COMMIT.fullmatch(self.commit):
            raise NotAHub

    def refuse_unusable(self) -> None:
        """Raise ModelError if it is no model that can be trained (an adapter, other weights, none, no config or
        tokenizer), naming what the repository holds instead."""
        names = self.siblings.keys()
        weights = sorted(name for name in names if name.endswith(".safetensors"))
        base = base_of(self.info) if isinstance(self.info, ModelInfo) else None
        if "adapter_config.json" in names and "config.json" not in names:
            raise ModelError("hub.adapter_of" if base else "hub.adapter", repo=self.repo_id, base=base)
        if "model_index.json" in names and "config.json" not in names:
            raise ModelError("hub.diffusion", repo=self.repo_id)
        if SINGLE not in names and INDEX not in names:
            for key, endings in (
                ("hub.only_gguf_of" if base else "hub.only_gguf", (".gguf",)),
                ("hub.only_pickles", _PICKLES),
            ):
                matches = sorted(name for name in names if name.lower().endswith(endings))
                if matches and not weights:
                    raise ModelError(key, repo=self.repo_id, found=matches[:3], base=base)
            if weights:
                raise ModelError("hub.other_weights", repo=self.repo_id, found=weights[:3])
            raise ModelError("hub.no_weights", repo=self.repo_id)
        if "config.json" not in names:
            raise ModelError("hub.no_config", repo=self.repo_id)
        if not any(name in names for name in TOKENIZERS):
            raise ModelError("hub.no_tokenizer", repo=self.repo_id, expected=list(TOKENIZERS))

    def small_files(self) -> list[File]:
        """Return the files that are needed besides weights, config.json first: a gated repository refuses it before any
        large file."""
        names = sorted(filter(is_small, self.siblings), key=lambda name: (name != "config.json", name))
        return [self.file(name) for name in names]

    def adapter_files(self) -> list[File]:
        """Return the files of an adapter, its config first. Raises ModelError if the repository is none, or has one
        that is too large."""
        for name, key in zip(ADAPTER_FILES, ("foreign.no_adapter", "adapter.no_weights"), strict=False):
            if name not in self.siblings:
                raise ModelError(key, folder=self.repo_id)
        adapter_files = [self.file(name) for name in ADAPTER_FILES if name in self.siblings]
        for file in adapter_files:
            if (size := file.size or 0) > (most := ADAPTER_FILES[file.name]):
                raise ModelError("foreign.too_large", file=file.name, megabytes=size / 1e6, most=most / 1e6)
        return adapter_files

    def weights(self, shards: Iterable[str]) -> list[File]:
        """Return the weight files that transformers would load: model.safetensors if the repository has it, else
        shards, the file names in its index. Raises ModelError if there are no shards, if one is missing, or if its name
        is not that of a .safetensors file in the same folder."""
        if SINGLE in self.siblings:
            return [self.file(SINGLE)]
        shards = list(shards)
        for name in shards:
            # A name with a path could leave the snapshot, one of another kind could be a pickle.
            if name not in self.siblings or not SHARD.fullmatch(name):
                raise ModelError("hub.missing_shard", repo=self.repo_id, file=name)
        if not shards:
            raise ModelError("hub.missing_shard", repo=self.repo_id, file=SINGLE)
        return [self.file(name) for name in shards]

    def file(self, name: str) -> File:
        """Return a file by its name; without a usable etag its blob is named by commit and name. Raises KeyError."""
        sibling = self.siblings[name]
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        etag = sha256 or sibling.blob_id or ""
        blob = etag if _BLOB.fullmatch(etag) else hashlib.sha256(f"{self.commit}/{name}".encode()).hexdigest()
        return File(name, sibling.lfs.size if sibling.lfs else sibling.size, blob, sha256)

    def address(self, file: File, endpoint: str) -> tuple[str, dict[str, str]]:
        """A file's URL, and the request headers without compression, with which bytes could be neither counted nor
        continued."""
        url = hf_hub_url(self.repo_id, file.name, repo_type=self.kind, revision=self.commit, endpoint=endpoint)
        return url, build_hf_headers(token=self.token) | {"Accept-Encoding": "identity"}

    def save(self, folder: Path) -> None:
        """Write trees/<commit>.json (format 1) in folder, the repository's in huggingface_hub's cache, as the proof
        that the commit's snapshot is complete. Nothing happens if it exists, or if any size or blob is unknown."""
        needed = {}
        for name, sibling in sorted(self.siblings.items()):
            if sibling.size is None or sibling.blob_id is None:
                return
            needed[name] = {"size": sibling.size, "blob_id": sibling.blob_id}
            if sibling.lfs:
                needed[name] |= {"lfs_sha256": sibling.lfs.sha256, "lfs_size": sibling.lfs.size}
        target = folder / "trees" / f"{self.commit}.json"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            files.replace_json(target, {"format_version": 1, "files": needed})


def fetch_listing(repo_id: str, revision: str, endpoint: str, kind: Kind = "model") -> Listing:
    """Request the listing of a revision; if the token is refused, without it. Raises NotAHub, HTTPError and OSError
    (core.hub.hub_errors)."""
    try:
        return Listing(repo_id, _info(repo_id, revision, HfApi(endpoint=endpoint), kind))
    except HfHubHTTPError as error:
        # An expired token is refused even for open models, which need none.
        if error.response.status_code != 401 or not get_token():
            raise
        try:
            return Listing(repo_id, _info(repo_id, revision, HfApi(endpoint=endpoint, token=False), kind), False)
        except HfHubHTTPError:
            raise error from None


def _info(repo_id: str, revision: str, hub: HfApi, kind: Kind) -> ModelInfo | DatasetInfo:
    """Return a repository's record with the sizes of its files. Raises HTTPError; NotAHub for an answer that is no
    record."""
    ask_hub = hub.model_info if kind == "model" else hub.dataset_info
    try:
        return ask_hub(repo_id, revision=revision, timeout=TIMEOUT_S, files_metadata=True)
    except HTTPError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NotAHub from error
