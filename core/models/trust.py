"""Models whose repository has its own Python code: refused unless exactly that code was trusted on the command line.

`python launch.py trust MODEL` shows the files and stores their sha256 in <workspace>/trusted.json; the page cannot.
Each load compares: a changed, added or removed file is refused. A trusted model may do everything that the person may,
because Python is not confined.

trusted.json: {"<model id>": {"files": {"modeling_x.py": "<sha256>"}, "when": ISO time}}; written by the command alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core import files
from core.errors import ModelError
from core.hub import cached, peek
from core.messages import Message, msg
from core.models import families
from core.workspace.folder import Workspace

MAX_FILES = 200
Pins = dict[str, str]  # name, with / between folders, to sha256


@dataclass(frozen=True)
class Trust:
    """The models of a workspace whose code is trusted."""

    workspace: Workspace

    @property
    def file(self) -> Path:
        return self.workspace.root / "trusted.json"

    def pins(self, model_id: str) -> Pins | None:
        """Return the trusted files of a model; None without any."""
        entry = files.read_object(self.file).get(model_id)
        pins = entry.get("files") if isinstance(entry, dict) else None
        return {str(name): str(digest) for name, digest in pins.items()} if isinstance(pins, dict) else None

    def pin(self, model_id: str, pins: Pins) -> None:
        entry = {"files": pins, "when": datetime.now().astimezone().isoformat(timespec="seconds")}
        files.add_to_object(self.file, {model_id: entry})

    def forget(self, model_id: str) -> bool:
        """Stop trusting a model. Returns whether it was trusted."""
        entries = files.read_for_update(self.file)
        if existed := entries.pop(model_id, None) is not None:
            files.replace_json(self.file, entries)
        return existed

    def refuse_config(self, model_id: str, folder: Path) -> None:
        """Raise ModelError for a config.json that needs untrusted code. Needs no other file; imports transformers."""
        if needs_code(folder) and (why := self._refusal(model_id, files.read_object(folder / "config.json"))):
            raise ModelError(why)

    def refusal(self, model_id: str, config: Mapping[str, object]) -> Message | None:
        """Return why `refuse_config` would refuse config, without importing transformers; None if it would not."""
        needs_own = families.known() and config.get("auto_map") and config.get("model_type") not in families.known()
        return self._refusal(model_id, config) if needs_own else None

    def _refusal(self, model_id: str, config: Mapping[str, object]) -> Message | None:
        """Return why the model's code may not run: it is foreign, or not trusted."""
        auto_map = config.get("auto_map")
        for value in auto_map.values() if isinstance(auto_map, dict) else ():
            if any("--" in str(part) for part in (value if isinstance(value, list) else [value])):
                return msg("trust.foreign", model=model_id, found=str(value)[:100])
        return msg("trust.needed", model=model_id) if self.pins(model_id) is None else None

    def allows(self, model_id: str, folder: Path) -> bool:
        """Return whether the model in folder must be loaded with its own Python, which is then trusted.

        Call before each load. Raises ModelError if its code is not exactly what was trusted.
        """
        if not needs_code(folder):
            return False
        self.refuse_config(model_id, folder)
        pinned, present = self.pins(model_id) or {}, code_in(folder)
        for name in sorted({*pinned, *present}):
            if pinned.get(name) != present.get(name):
                kind = "changed" if name in pinned and name in present else "added" if name in present else "gone"
                raise ModelError(f"trust.{kind}", model=model_id, file=name[:100])
        return True

    def bring_code(self, model_id: str, folder: Path) -> None:
        """Download the trusted files of a hub model, from the commit of its weights. Raises ModelError for other
        content."""
        for name, digest in (self.pins(model_id) or {}).items() if needs_code(folder) else ():
            if not (folder / name).exists():
                content = peek.fetch_start(model_id, name, folder.name)
                if sha256(content) != digest:
                    raise ModelError("trust.changed", model=model_id, file=name[:100])
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                files.replace(folder / name, content)


def needs_code(folder: Path) -> bool:
    """Return whether transformers has no class for the model in folder. Raises ModelError without a config.json."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return cached.needs_remote_code(folder, CONFIG_MAPPING_NAMES.keys())


def code_in(folder: Path) -> Pins:
    """Return every Python file in and below folder. Raises ModelError for a link that leads out of it, or for too
    many."""
    digests: Pins = {}
    for path in sorted(folder.rglob("*.py")):
        if len(digests) >= MAX_FILES:
            raise ModelError("trust.too_many", folder=folder.name, most=MAX_FILES)
        digests[path.relative_to(folder).as_posix()] = sha256(path.read_bytes())
    return digests


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
