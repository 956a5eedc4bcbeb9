"""The files that publishing sends: the export without our own record, with a model card made for it. No network.

The record (export.json) stays: it holds rows that the proof asked. An adapter's config leaves with the name of its base
in place of the folder where the base lies here.
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

STAYS = {"export.json", "README.md"}
CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class ParcelFile:
    """One file: as it lies here, or text that was made for it."""

    name: str
    size: int
    content: Path | bytes


@dataclass(frozen=True)
class Parcel:
    """notes: what a person should know before it leaves: the licence of the base, a base that others have to ask
    for."""

    kind: str
    repo: str
    pieces: tuple[ParcelFile, ...]
    notes: tuple[Message, ...]

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)


def check_name(repo: str, run_name: str) -> None:
    """Raises ExportError for what is no owner/name of a hub."""
    if not REPO_ID.fullmatch(repo):
        owner, _, name = repo.rpartition("/")
        better = f"{names.slug(owner, fallback='your-name')}/{names.slug(name or run_name, fallback='tuned')}"
        raise ExportError("publish.bad_repo", found=repo[:120], better=better)


def pack(run: RunFolder, result: ExportResult, folder: Path, repo: str, with_film: bool = False) -> Parcel:
    """Raises ExportError for a bad name, an export that did not prove itself, and one that was changed since."""
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
        proof=result.check.found,
        repo=repo,
        with_film=with_film,
    )
    pieces = [_made("README.md", model_card.of_run(run, form, base_folder))]
    for name, size in sorted(result.files.items()):
        path = folder / name
        if name in STAYS:
            continue
        if not path.is_file() or path.is_symlink() or path.stat().st_size != size:
            raise ExportError("publish.changed", name=result.name, file=name)
        if name == CONFIG:
            named = {"base_model_name_or_path": model_card.base_id_of(recipe), "revision": recipe.model.revision}
            pieces.append(_made(CONFIG, json.dumps(files.read_object(path) | named, indent=2) + "\n"))
        else:
            pieces.append(ParcelFile(name, size, path))
    base = model_card.base_of(recipe, base_folder)
    notes = [msg("publish.licence", said=base.permission)]
    if base.gated and result.kind != "adapter":
        notes.append(msg("publish.gated_base", base=recipe.model.id))
    if not REPO_ID.fullmatch(model_card.base_id_of(recipe)):
        notes.append(msg("publish.base_is_yours", base=recipe.model.id))
    return Parcel(result.kind, repo, tuple(pieces), tuple(notes))


def _made(name: str, text: str) -> ParcelFile:
    return ParcelFile(name, len(text.encode()), text.encode())
