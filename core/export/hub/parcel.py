"""The files that publishing sends: the export with a model card and without this app's record. No network.

The record (export.json) is not sent: it holds rows of the data that the verification used. An adapter's config is sent
with its base's name in place of the local folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from core import files
from core.errors import ExportError
from core.export.records import ExportResult
from core.hub.cached import REPO_ID
from core.messages import Message, msg
from core.runs.best import step_of
from core.runs.cards import model_card
from core.runs.folder import RunFolder
from core.workspace import names

EXCLUDED = {"export.json", "README.md"}
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ParcelFile:
    """A file to send: a local path, or text that was generated."""

    name: str
    size: int
    content: Path | bytes


@dataclass(frozen=True)
class Parcel:
    """Files to publish. notes: what the user should know first, such as the base's licence or a gated base."""

    kind: str
    repo: str
    pieces: tuple[ParcelFile, ...]
    notes: tuple[Message, ...]

    @property
    def size(self) -> int:
        """Return the bytes of all files to publish."""
        return sum(piece.size for piece in self.pieces)


def check_name(repo: str, run_name: str) -> None:
    """Raise ExportError, with a name that would do, if repo is no owner/name of a hub."""
    if not REPO_ID.fullmatch(repo):
        owner, _, name = repo.rpartition("/")
        better = f"{names.slug(owner, fallback='your-name')}/{names.slug(name or run_name, fallback='tuned')}"
        raise ExportError("publish.bad_repo", found=repo[:120], better=better)


def pack(run: RunFolder, result: ExportResult, folder: Path, repo: str, with_film: bool = False) -> Parcel:
    """Collect the files of a publication, with a new model card, the base's hub name in the adapter's config, and notes
    on its licence, gated or local base. Raises ExportError for a bad name, an export that failed verification or was
    changed since."""
    check_name(repo, run.name)
    if not result.check.passed:
        raise ExportError("publish.not_proven", name=result.name)
    recipe, facts = run.recipe(), run.facts()
    base_folder = Path(facts.model_folder) if facts.model_folder else None
    form = model_card.CardBeside(
        kind=result.kind,
        step=step_of(result.checkpoint) if result.checkpoint else None,
        strength=result.strength,
        quant=result.quant or "",
        file=result.gguf,
        dtype=result.dtype,
        proof=result.check.summary,
        repo=repo,
        with_film=with_film,
    )
    pieces = [_file_of_text("README.md", model_card.of_run(run, form, base_folder))]
    for name, size in sorted(result.files.items()):
        path = folder / name
        if name in EXCLUDED:
            continue
        # Only what was verified is sent: no file that has changed, and no link, which could name any file of this PC.
        if not path.is_file() or path.is_symlink() or path.stat().st_size != size:
            raise ExportError("publish.changed", name=result.name, file=name)
        if name == CONFIG:
            # The local config names a folder of this computer; a published one names the model on the hub.
            named = {"base_model_name_or_path": model_card.base_id_of(recipe), "revision": recipe.model.revision}
            pieces.append(_file_of_text(CONFIG, json.dumps(files.read_object(path) | named, indent=2) + "\n"))
        else:
            pieces.append(ParcelFile(name, size, path))
    base = model_card.base_of(recipe, base_folder)
    notes = [msg("publish.licence", licence=base.permission)]
    if base.gated and result.kind != "adapter":
        notes.append(msg("publish.gated_base", base=recipe.model.id))
    if not REPO_ID.fullmatch(model_card.base_id_of(recipe)):
        notes.append(msg("publish.base_is_yours", base=recipe.model.id))
    return Parcel(result.kind, repo, tuple(pieces), tuple(notes))


def _file_of_text(name: str, text: str) -> ParcelFile:
    """Return a file to publish whose content is this text in UTF-8, held in memory."""
    return ParcelFile(name, len(text.encode()), text.encode())
