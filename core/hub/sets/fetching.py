"""Downloads a part of a dataset into its download folder, in the process that also downloads models
(core.hub.fetch_worker)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from core.errors import DataError, ModelError
from core.hub import download
from core.hub.answers import endpoint_of
from core.hub.download import Check, Report, Room
from core.hub.sets.name import PartName
from core.hub.sets.said import of_set


@dataclass(frozen=True)
class Arrived:
    """files: as the repository has them, or one with its rows. commit: that they are of."""

    files: tuple[Path, ...]
    commit: str
    licence: str


def fetch(part: PartName, folder: Path, report: Report, check: Check, room: Room) -> Arrived:
    """As download.fetch, into folder. Raises DataError, and what check raises, which ends it within a second."""
    asked = {
        "repo": part.repo,
        "revision": constants.DEFAULT_REVISION,
        "wanted": constants.DEFAULT_REVISION,
        "part": str(part),
    }
    asked |= {"endpoint": endpoint_of(), "cache": str(folder)}
    try:
        said = download.talk(asked, report, check, lambda folder: None, room)
    except ModelError as error:
        raise DataError(of_set(error.message)) from None
    return Arrived(tuple(Path(file) for file in said["files"]), said["commit"], said["licence"])
