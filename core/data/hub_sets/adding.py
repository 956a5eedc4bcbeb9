"""Adds a downloaded part of a Hub dataset: refuses one that is too large beforehand, reads it like any file, and
records its origin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from core import files
from core.data.reading.choices import Choices
from core.data.reading.file_rows import DEFAULT_LIMITS, Row
from core.data.reading.reader import read_rows
from core.data.sets.info import DatasetInfo, Origin
from core.data.store import DatasetStore
from core.errors import DataError
from core.files import JsonObject
from core.hub.hub_errors import format_size
from core.hub.sets.about import AboutPart
from core.hub.sets.fetching import FetchedPart
from core.hub.sets.name import PartName, SetName

FIRST_ROWS = 20_000  # number offered of a large dataset: more than most adapters need, some megabytes of text


def is_too_large(about: AboutPart) -> bool:
    """Return True if a part is above the limits, as far as its size is known; Parquet counts unpacked."""
    limits = DEFAULT_LIMITS
    return max(about.bytes, about.unpacked_bytes or 0) > limits.bytes or (about.rows or 0) > limits.rows


def part_of(repo: str, about: AboutPart, rows: int) -> PartName:
    """Return the name of a part. rows: the first to take, 0 for all. Raises DataError if all rows of a part that is too
    large are requested."""
    name = PartName(repo, about.config, about.split, rows)
    if not rows and is_too_large(about):
        raise DataError(
            "hub_set.too_large", part=name.shown, rows=about.rows if about.rows is not None else "?",
            size=format_size(max(about.bytes, about.unpacked_bytes or 0)), most_rows=DEFAULT_LIMITS.rows,
            most_size=format_size(DEFAULT_LIMITS.bytes), first=FIRST_ROWS,
        )  # fmt: skip
    return name


def add_part(
    store: DatasetStore, part: PartName, arrived: FetchedPart, choices: JsonObject, check: Callable[[], None]
) -> str:
    """Add a downloaded part to store and return the dataset's id: a single complete file as it is, others joined as
    JSON lines first. choices: Choices as JSON. Raises DataError if it cannot be trained, and what check raises."""
    file = arrived.files[0] if len(arrived.files) == 1 and not part.rows else _as_lines(part, arrived.files, check)
    origin = Origin(origin_name=str(part).removeprefix("datasets/"), revision=arrived.commit, licence=arrived.licence)
    return store.import_file(file, name_of(part), Choices.model_validate(choices), lambda rows=0: check(), origin).id


def name_of(part: PartName) -> str:
    """Return a name of a part for the screen, such as "pirate-talk:en:train", or "pirate-talk:en:train[:500]" for its
    first 500 rows; the configuration "default" is left out."""
    config = "" if part.config == "default" else f":{part.config}"
    return f"{part.repo.partition('/')[2]}{config}:{part.split}" + (f"[:{part.rows}]" if part.rows else "")


def find_added(store: DatasetStore, name: SetName) -> DatasetInfo | None:
    """Return the newest dataset of the workspace from the named repo, with the configuration and split that are named;
    None if there is none."""
    for info in store.list():
        part = PartName.parse(f"datasets/{info.origin_name}") if info.origin_name else None
        if part and part.repo == name.repo and set(name.named) <= {part.config, part.split}:
            return info
    return None


def _as_lines(part: PartName, paths: tuple[Path, ...], check: Callable[[], None]) -> Path:
    """Write the rows of all files, or the first part.rows of them if that is not 0, to rows.jsonl beside the first
    file, and return its path. Warnings of the reader are dropped. Raises DataError for an unreadable row or file, and
    for a CSV or TSV row with other columns than the first row; also what check raises, which is called for each row."""
    target, written = paths[0].with_name("rows.jsonl"), 0
    aside, columns = target.with_name(f".{target.name}"), None
    with open(aside, "w", encoding="utf-8", newline="\n") as file:
        for path, item in ((each, item) for each in paths for item in read_rows(each)):
            check()
            if not isinstance(item, Row):
                if item.severity == "error":  # the error would be lost in the JSONL file
                    raise DataError(item.sentence)
                continue
            columns = columns or item.values.keys()
            if path.suffix.lower() in (".csv", ".tsv") and item.values.keys() != columns:
                raise DataError("hub_set.other_columns", repo=part.repo, file=path.name)
            file.write(json.dumps(item.values, ensure_ascii=False) + "\n")
            written += 1
            if written == part.rows:
                break
    files.rename(aside, target)
    return target
