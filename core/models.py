"""One door for every base model: the starter, a hub model, or a folder of the person's library.

`obtain` returns a local folder with config.json, safetensors and a tokenizer, downloading what is missing; it runs in
a worker. Everything else here is quick and serves the page. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from core import adapter, atomic, hub, starter
from core.errors import ModelError
from core.run_folder import Progress
from core.starter import Check, Report
from core.workspace import Workspace


@dataclass(frozen=True)
class ModelRef:
    """A base model as a recipe names it. kind says which door it comes through."""

    id: str
    kind: Literal["starter", "hub", "library"]

    @classmethod
    def parse(cls, model_id: str) -> ModelRef:
        """Raises ModelError for anything that is not `starter`, `owner/name` or `library:name`."""
        if model_id == "starter":
            return cls(model_id, "starter")
        if model_id.startswith("library:"):
            return cls(model_id, "library")
        if hub.REPO_ID.fullmatch(model_id):
            return cls(model_id, "hub")
        raise ModelError("model.bad_id", found=model_id[:100])


@dataclass(frozen=True)
class Models:
    workspace: Workspace

    def obtain(self, model_id: str, revision: str | None, report: Report, check: Check) -> Path:
        """A usable local folder for model_id. Raises ModelError (missing, gated, no space, damaged, unsafe)."""
        ref = ModelRef.parse(model_id)
        if ref.kind == "starter":
            return starter.ensure(self.workspace.models, report, check)
        if ref.kind == "library":
            return self.library_folder(model_id)

        def downloading(progress: Progress) -> None:
            report("downloading_model", progress)

        return check_folder(hub.fetch(model_id, revision, downloading, check), model_id)

    def library_folder(self, model_id: str) -> Path:
        """The folder of `library:<name>`; only folders directly inside a library folder count, so no id can leave it."""
        found = self._library()
        if model_id not in found:
            names = sorted(found) or ["-"]
            raise ModelError("model.not_in_library", found=model_id[:100], there=names[:10])
        return check_folder(found[model_id], model_id)

    def _library(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for root in self.workspace.library_folders:
            if not root.is_dir():
                continue
            for folder in [root, *sorted(root.iterdir())]:
                if (folder / "config.json").is_file():
                    found.setdefault(f"library:{folder.name}", folder)
        return found

    def adapters(self) -> dict[str, Path]:
        """Adapter folders made elsewhere that lie directly inside a library folder, as `adapter:<name>`."""
        found: dict[str, Path] = {}
        for root in self.workspace.library_folders:
            if root.is_dir():
                for folder in sorted(root.iterdir()):
                    if (folder / "adapter_config.json").is_file():
                        found.setdefault(f"adapter:{folder.name}", folder)
        return found

    def base_of(self, adapter_folder: Path) -> str:
        """The id of the base that an adapter names. Raises ModelError where it is no base that can be had here.

        The hub's SmolLM2 is not the starter: its weights are not the dequantised ones.
        """
        base = adapter.describe(adapter_folder).base
        if base.replace("\\", "/").rsplit("/", 1)[-1] == starter.folder(self.workspace.models).name:
            return "starter"
        if hub.REPO_ID.fullmatch(base):
            return base
        in_library = f"library:{PurePath(base.replace(chr(92), '/')).name}"
        if in_library in self._library():
            return in_library
        raise ModelError("adapter.base_unknown", folder=adapter_folder.name, base=base[:200])

    def choices(self) -> Sequence[str]:
        """Ids that load without a download, the starter first (it may still have to be fetched once)."""
        return ["starter", *sorted(self._library()), *hub.installed()]


def check_folder(folder: Path, model_id: str) -> Path:
    """folder, once it is sure that it holds a causal model in safetensors. Raises ModelError."""
    config = atomic.read_json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("model_type"):
        raise ModelError("model.no_config", model=model_id, folder=folder.name)
    if not any(folder.glob("*.safetensors")):
        pickles = [p.name for p in (*folder.glob("*.bin"), *folder.glob("*.pt*"))]
        raise ModelError("model.only_pickles" if pickles else "model.no_weights", model=model_id, files=pickles[:3])
    return folder
