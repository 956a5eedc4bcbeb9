"""Downloads a part of a dataset into its download folder, in the process that also downloads models
(core.hub.fetch_worker)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants

from core.errors import DataError, ModelError
from core.hub import download
from core.hub.download import Check, CheckDisk, Report
from core.hub.hub_errors import endpoint_of
from core.hub.sets.name import PartName
from core.hub.sets.set_errors import dataset_message


@dataclass(frozen=True)
class FetchedPart:
    """A downloaded part. files: as the repository has them, or one with its rows. commit: their commit."""

    files: tuple[Path, ...]
    commit: str
    licence: str


def fetch(part: PartName, folder: Path, report: Report, check: Check, check_disk: CheckDisk) -> FetchedPart:
    """Download a part into folder and return its files, commit and licence, as download.fetch. Raises DataError, and
    what check raises, which ends it within a second."""
    order = {
        "repo": part.repo,
        "revision": constants.DEFAULT_REVISION,
        "resolved": constants.DEFAULT_REVISION,
        "part": str(part),
    }
    order |= {"endpoint": endpoint_of(), "cache": str(folder)}
    try:
        result = download.run_worker(order, report, check, lambda folder: None, check_disk)
    except ModelError as error:
        raise DataError(dataset_message(error.message)) from None
    return FetchedPart(tuple(Path(file) for file in result["files"]), result["commit"], result["licence"])
