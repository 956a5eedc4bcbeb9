"""Adds several files, or a folder, as one dataset: packed into one archive, which is kept like any other file."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from core.data.chats.messengers import SLACK_USERS
from core.data.reading import dataset_info, folders, sniff, zips
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.sets.info import DatasetInfo
from core.data.store import DatasetStore
from core.errors import DataError
from core.progress import Check, go_on

_PREFIX = ".packing-"
_STALE_S = 3600  # packing 2 GiB takes minutes


def add(
    store: DatasetStore, paths: Sequence[Path], name: str = "", choices: Choices = NO_CHOICES, check: Check = go_on
) -> DatasetInfo:
    """Import files and folders as one dataset and return its info. A single file is imported as it is; anything else is
    packed into one zip, with only those files of a folder that the data consists of and that describe it.

    name: of the dataset; "" for one made of the file names. Raises DataError if nothing can be read or stored.
    """
    if len(paths) == 1 and not paths[0].is_dir():
        return store.import_file(paths[0], name or paths[0].stem, choices, check)
    files: dict[str, Path] = {}
    for path in paths:
        for inside, file in _files_of_folder(path, choices) if path.is_dir() else [(path.name, path)]:
            while inside in files:  # two folders may have files of the same name
                inside = f"_{inside}"
            files[inside] = file
    shown = name or (paths[0].name if len(paths) == 1 else f"{paths[0].stem} + {len(paths) - 1}")
    store.root.mkdir(parents=True, exist_ok=True)
    try:
        _clean(store.root)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=store.root) as folder:
            archive = Path(folder) / "files.zip"
            zips.pack(sorted(files.items(), key=lambda item: folders.by_name(item[0])), archive, check)
            return store.import_file(archive, shown, choices, check)
    except OSError as error:
        raise DataError("data.cannot_store", name=shown, reason=error.strerror or str(error)) from error


def _clean(root: Path) -> None:
    """Remove archives that a crash left behind, once they are older than _STALE_S."""
    for folder in root.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _STALE_S:
                shutil.rmtree(folder, ignore_errors=True)


def _files_of_folder(folder: Path, choices: Choices) -> list[tuple[str, Path]]:
    """Return (name in the folder, path) of the files that the data consists of, with those that describe it. Raises
    DataError."""
    source = sniff.probe(folder, choices=choices)
    parts, is_slack = source.parts or (source,), source.chat == "slack"
    # Files beside the data may say what it means.
    data_names = {name for part in parts for name in (part.path.name, part.label_names.file)}
    files = [(path.relative_to(folder).as_posix(), path) for path in folders.files_of(folder)]
    return [
        (name, path)
        for name, path in files
        if name in data_names or path.name == dataset_info.NAME or is_slack and name == SLACK_USERS
    ]
