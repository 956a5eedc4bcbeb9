"""The one entry point for base models: the starter, a hub model, or a folder of the person's library.

`obtain` returns a local folder with config.json, safetensors and a tokenizer, downloading what is missing; it runs in a
worker. Everything else here is quick and serves the page. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Literal

from huggingface_hub import try_to_load_from_cache

from core import files
from core.errors import ModelError
from core.files import JsonObject
from core.hub import cached, download, peek
from core.hub.downloads import Bring, BringAdapter, Downloads, with_nearest
from core.messages import Message
from core.models import adapters, families, headers, hub_shapes, quantized, starter
from core.models.known import SIZE, known_models, shape_of_size
from core.models.shapes.shape import ModelShape
from core.models.starter import Check, Report
from core.workspace import preferences
from core.workspace.folder import Workspace, expand


@dataclass(frozen=True)
class ModelRef:
    """A base model as a recipe names it. kind: where its files come from."""

    id: str
    kind: Literal["starter", "hub", "library"]

    @classmethod
    def parse(cls, model_id: str) -> ModelRef:
        """Parse an id: `starter`, `library:name` or, of the hub, `owner/name`. Raises ModelError for any other."""
        if model_id == "starter":
            return cls(model_id, "starter")
        if model_id.startswith("library:"):
            return cls(model_id, "library")
        if cached.REPO_ID.fullmatch(model_id):
            return cls(model_id, "hub")
        raise ModelError("model.bad_id", found=model_id[:100])


@dataclass(frozen=True)
class Models:
    """The base models of a workspace."""

    workspace: Workspace

    def obtain(self, model_id: str, revision: str | None, report: Report, check: Check, to_train: bool = True) -> Path:
        """Return a usable local folder for model_id, its weights checked, downloading it if needed (the starter is
        converted). Imports transformers.

        Raises ModelError (missing, gated, no space, damaged, unsafe; with to_train also quantized in a way that cannot
        be trained, which a chat may still load).
        """
        ref = ModelRef.parse(model_id)
        if ref.kind == "starter":
            return starter.ensure(self.workspace.models, report, check)
        if ref.kind == "library":
            folder = self.library_folder(model_id)
            families.refuse(model_id, folder)
            if to_train:
                quantized.refuse(model_id, folder)
            _check_weights(folder)
            return folder

        def refuse_unusable(folder: Path) -> None:
            """Raise ModelError if the config.json in folder is of a model that cannot be loaded or, with to_train,
            whose quantization cannot be trained."""
            families.refuse(model_id, folder)
            if to_train:
                quantized.refuse(model_id, folder)

        folder = check_folder(
            self.download(model_id, revision, partial(report, "downloading_model"), check, refuse_unusable), model_id
        )
        _check_weights(folder)
        return folder

    def download(
        self,
        repo: str,
        revision: str | None,
        report: download.Report,
        check: Check,
        accept: Callable[[Path], None] | None = None,
    ) -> Path:
        """Download a hub model now and return its folder. accept: as of download.fetch; None accepts only possible
        bases. Raises ModelError, and what check and accept raise."""
        accept = accept or partial(self._accept, repo)
        try:
            return download.patiently(
                lambda noted: download.fetch(repo, revision, noted, check, accept=accept), report, check
            )
        except ModelError as error:
            raise ModelError(with_nearest(repo, error.message, [known.hub for known in known_models()])) from None

    def downloads(self, bring: Bring, bring_adapter: BringAdapter) -> Downloads:
        """Return the workspace's list of downloads, which refuses a model that cannot be trained by its config.json,
        before any large file, and suggests known names for a mistyped one.

        bring: makes a dataset of downloaded files and returns its id. bring_adapter: downloads an adapter, makes it a
        run and returns the run's name.
        """
        return Downloads(self.workspace, self._accept, [known.hub for known in known_models()], bring, bring_adapter)

    def _accept(self, model_id: str, folder: Path) -> None:
        """Raise ModelError as `obtain`, by config.json alone, without transformers, which would import torch into the
        web process."""
        config = files.read_object(folder / "config.json")
        if why := self._refused(model_id, config, folder):
            raise ModelError(why)

    def _refused(
        self, model_id: str, config: JsonObject, folder: Path | None, revision: str | None = None
    ) -> Message | None:
        """Return why a model cannot be trained, by its config.json and its card; None if it can. folder: of the model,
        if it is here; otherwise a card may be read from the hub."""
        return families.refusal(model_id, config) or quantized.refusal(model_id, config, folder, revision)

    def library_folder(self, model_id: str) -> Path:
        """Return the folder of `library:<name>`, a library folder itself or one directly inside it, so that no id can
        lead elsewhere. Raises ModelError if there is none with a model in safetensors."""
        folders = self._library()
        if model_id not in folders:
            self._refuse_gguf(model_id.removeprefix("library:"))
            names = sorted(folders) or ["-"]
            raise ModelError("model.not_in_library", found=model_id[:100], there=names[:10])
        return check_folder(folders[model_id], model_id)

    def _refuse_gguf(self, name: str) -> None:
        """Raise ModelError if name, with or without the ending .gguf, is a GGUF file in a library folder, or a folder
        in it that holds a GGUF file. For a name that is no model in safetensors."""
        for root in self.workspace.library_folders:
            for path in (root / name, root / f"{name}.gguf") if re.fullmatch(r"[\w .-]+", name) else ():
                if (path.suffix == ".gguf" and path.is_file()) or (path.is_dir() and any(path.glob("*.gguf"))):
                    raise ModelError("model.gguf", found=name[:100])

    def local_folder(self, model_id: str) -> Path | None:
        """Return the folder of model_id on this PC (of a hub model the snapshot of its main branch, if usable); None if
        it must be downloaded first. Raises ModelError for an invalid id, or one that the library lacks."""
        ref = ModelRef.parse(model_id)
        if ref.kind == "starter":
            return starter.folder(self.workspace.models) if starter.is_ready(self.workspace.models) else None
        if ref.kind == "library":
            return self.library_folder(model_id)
        config = try_to_load_from_cache(model_id, "config.json") if model_id in cached.installed() else None
        return Path(config).parent if isinstance(config, str) else None

    def hub_id(self, model_id: str) -> str:
        """Return the model.id for an id of presets/models.yaml (`qwen3-4b` is Qwen/Qwen3-4B); any other id
        unchanged."""
        return next((known.hub for known in known_models() if known.id == model_id), model_id)

    def shape(self, model_id: str, revision: str | None = None) -> ModelShape:
        """Return the shape of a model, from this PC, else from the catalogue, else from the headers of its files on the
        hub.

        Accepts ids of the catalogue too. Only the last way needs the network, for seconds. Raises ModelError.
        """
        hub_id = self.hub_id(model_id)
        local = self._local(hub_id, revision)
        if isinstance(local, Path):
            return _shape_in(local)
        try:
            return local or hub_shapes.fetch_shape(hub_id, revision)
        except ModelError as error:
            raise ModelError(with_nearest(hub_id, error.message, [known.hub for known in known_models()])) from None

    def local_shape(self, model_id: str) -> ModelShape | None:
        """Return the shape without the network: None for a model that is neither here nor in the catalogue, or whose
        config is unusable."""
        try:
            local = self._local(self.hub_id(model_id), None)
            return _shape_in(local) if isinstance(local, Path) else local
        except ModelError:
            return None

    def config(self, model_id: str, revision: str | None = None) -> JsonObject:
        """Return the config.json of a model, from this PC or the Hub. Raises ModelError.

        For a starter that is not here: the part that follows from its shape, which describes it completely.
        """
        hub_id = self.hub_id(model_id)
        local = self._local(hub_id, revision)
        if isinstance(local, Path):
            return _config_of(local / "config.json")
        is_starter = ModelRef.parse(hub_id).kind == "starter"
        return local.config() if is_starter and local else peek.fetch_config(hub_id, revision)

    def refusal(self, model_id: str, revision: str | None = None) -> Message | None:
        """Return why `obtain` would refuse a model by its config.json; None if it would not.

        Uses the network as `config` does, but not for models of the catalogue.
        """
        hub_id = self.hub_id(model_id)
        local = self._local(hub_id, revision)
        if isinstance(local, ModelShape):
            return None
        config = files.read_object(local / "config.json") if local else peek.fetch_config(hub_id, revision)
        return self._refused(hub_id, config, local, revision)

    def _local(self, hub_id: str, revision: str | None) -> Path | ModelShape | None:
        """Return the folder of a model on this PC, else its shape in the catalogue (unless a revision is given),
        without the network; else None. Raises ModelError for a bad id."""
        kind = ModelRef.parse(hub_id).kind
        if kind == "library":
            return self.library_folder(hub_id)
        folder = starter.folder(self.workspace.models) if kind == "starter" else cached.cached_folder(hub_id, revision)
        if folder is not None and (folder / "config.json").is_file():
            return folder
        if revision is None or kind == "starter":
            return next((known.shape for known in known_models() if known.hub == hub_id), None)
        return None

    def _library(self) -> dict[str, Path]:
        """Return the model folders of the library folders by id ("library:NAME"); of two with one name the first."""
        folders: dict[str, Path] = {}
        for root in self.workspace.library_folders:
            if not root.is_dir():
                continue
            for folder in [root, *sorted(root.iterdir())]:
                if (folder / "config.json").is_file():
                    folders.setdefault(f"library:{folder.name}", folder)
        return folders

    def add_folder(self, name: str) -> int:
        """Add a folder of this PC to the library and return the number of its models. Raises ModelError if it holds
        none, and RecipeError if it cannot be saved."""
        folder = expand(name.strip()).absolute()
        inside = [folder, *folder.iterdir()] if folder.is_dir() else []
        count = sum((each / "config.json").is_file() for each in inside)
        if not count:
            raise ModelError("model.no_models_in", folder=folder)
        if folder not in self.workspace.library_folders:
            added = (*self.workspace.added_folders, folder)
            preferences.choose(self.workspace, model_folders=tuple(map(str, added)))
        return count

    def remove_folder(self, name: str) -> None:
        """Take an added folder out of the library; its files stay. Raises RecipeError if that cannot be saved."""
        kept = tuple(str(each) for each in self.workspace.added_folders if str(each) != name)
        preferences.choose(self.workspace, model_folders=kept)

    def base_of(self, adapter_folder: Path) -> str:
        """Return the id of the base that an adapter's config names: `starter`, a hub id, or `library:NAME` for a folder
        of that name in the library. A hub id is returned without a look at the hub. Raises ModelError for any other
        base.

        The hub's SmolLM2 is not the starter: its weights are not the dequantized ones.
        """
        base = adapters.facts_in(adapter_folder).base
        if base.replace("\\", "/").rsplit("/", 1)[-1] == starter.folder(self.workspace.models).name:
            return "starter"
        if cached.REPO_ID.fullmatch(base):
            return base
        in_library = f"library:{PurePath(base.replace(chr(92), '/')).name}"
        if in_library in self._library():
            return in_library
        raise ModelError("adapter.base_unknown", folder=adapter_folder.name, base=base[:200])

    def choices(self) -> Sequence[str]:
        """Return ids that load without a download, the starter first (which may need a first download)."""
        return ["starter", *sorted(self._library()), *cached.installed()]

    def local_ids(self) -> frozenset[str]:
        """Return the ids of models on this PC; the starter only once downloaded."""
        return frozenset(id for id in self.choices() if id != "starter" or starter.is_ready(self.workspace.models))


def shape_of(models: Models, name: str) -> ModelShape:
    """Return the shape of a model named in a terminal: a bare size, a folder with config.json, that file, or an id,
    whose shape is requested from the hub if it is neither on this PC nor in the catalogue. Raises ModelError.

    Opens any path it is given, so it is not for names from a browser.
    """
    if SIZE.fullmatch(name):
        return shape_of_size(name)
    path = expand(name)
    if path.is_file():
        return ModelShape.from_config(_config_of(path))
    if (path / "config.json").is_file():
        return _shape_in(path)
    try:
        ModelRef.parse(models.hub_id(name))
    except ModelError:
        raise ModelError("shape.unknown_model", found=name[:100]) from None
    try:
        return models.shape(name)
    except ModelError as error:
        if error.message.key != "hub.no_network":
            raise
        raise ModelError("shape.no_network", model=name, why=error.message) from None


def config_of(models: Models, name: str) -> JsonObject:
    """Return the config.json of a model named in a terminal: a folder with that file, the file itself, or a model's id.
    Of a bare size such as 7B it is one made from a typical shape of that size. Raises ModelError."""
    path = expand(name)
    if SIZE.fullmatch(name):
        return shape_of_size(name).config()
    if path.is_file():
        return _config_of(path)
    if (path / "config.json").is_file():
        return _config_of(path / "config.json")
    return models.config(name)


def _config_of(file: Path) -> JsonObject:
    """Return a config.json whose numbers make a valid shape. Raises ModelError, also for a GGUF file."""
    if file.suffix == ".gguf":
        raise ModelError("model.gguf", found=file.stem[:100])
    config = files.read_object(file)
    ModelShape.from_config(config)
    return config


def _shape_in(folder: Path) -> ModelShape:
    """Return the shape of the model in folder, with the counts of its files. Raises ModelError if these are damaged or
    do not match its config.json."""
    config, tensors = _config_of(folder / "config.json"), headers.of_folder(folder)
    shape = ModelShape.from_config(config)
    headers.refuse_contradiction(tensors, config, shape)
    return shape.with_held(headers.count_weights(tensors, config, shape))


def _check_weights(folder: Path) -> None:
    """Raise ModelError for broken weight files, or weights that do not match config.json; a config without a shape is
    not compared."""
    tensors, config = headers.of_folder(folder), files.read_object(folder / "config.json")
    try:
        shape = ModelShape.from_config(config)
    except ModelError:
        return  # unknown to the arithmetic, maybe not to transformers
    headers.refuse_contradiction(tensors, config, shape)


def check_folder(folder: Path, model_id: str) -> Path:
    """Return folder if it holds a model in safetensors. Raises ModelError, which tells pickles from no weights."""
    if not files.read_object(folder / "config.json").get("model_type"):
        raise ModelError("model.no_config", model=model_id, folder=folder.name)
    if not any(folder.glob("*.safetensors")):
        pickles = [p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt*"))]
        raise ModelError("model.only_pickles" if pickles else "model.no_weights", model=model_id, files=pickles[:3])
    return folder
