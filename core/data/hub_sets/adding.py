"""Adds a downloaded part of a Hub dataset: refuses what is too large beforehand, reads it like any file, and records
where it is from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core import files
from core.data.reading.choices import Choices
from core.data.reading.file_rows import DEFAULT_LIMITS, Row
from core.data.reading.reader import read_rows
from core.data.sets.info import DatasetInfo, Origin
from core.data.store import DatasetStore
from core.errors import DataError
from core.hub.answers import format_size
from core.hub.sets.about import AboutPart
from core.hub.sets.fetching import FetchedPart
from core.hub.sets.name import PartName, SetName

FIRST_ROWS = 20_000  # that are offered of a large set: more than most adapters learn from, some megabytes of text


def is_too_large(told: AboutPart) -> bool:
    """More than is taken at most, as far as somebody tells; Parquet counts unpacked."""
    limits = DEFAULT_LIMITS
    return max(told.bytes, told.unpacked_bytes or 0) > limits.bytes or (told.rows or 0) > limits.rows


def part_of(repo: str, told: AboutPart, rows: int) -> PartName:
    """rows: 0 for all. Raises DataError for all of what is too large."""
    name = PartName(repo, told.config, told.split, rows)
    if not rows and is_too_large(told):
        raise DataError(
            "hub_set.too_large", part=name.shown, rows=told.rows if told.rows is not None else "?",
            size=format_size(max(told.bytes, told.unpacked_bytes or 0)), most_rows=DEFAULT_LIMITS.rows,
            most_size=format_size(DEFAULT_LIMITS.bytes), first=FIRST_ROWS,
        )  # fmt: skip
    return name


def bring(
    store: DatasetStore, part: PartName, came: FetchedPart, said: dict[str, Any], check: Callable[[], None]
) -> str:
    """said: Choices as JSON. The id of the set that it became. Raises DataError where it cannot be learned from, and
    what check raises."""
    file = came.files[0] if len(came.files) == 1 and not part.rows else _as_lines(part, came.files, check)
    origin = Origin(origin_name=str(part).removeprefix("datasets/"), revision=came.commit, licence=came.licence)
    return store.import_file(file, name_of(part), Choices.model_validate(said), lambda rows=0: check(), origin).id


def name_of(part: PartName) -> str:
    """ "pirate-talk:en:train", for the screen."""
    config = "" if part.config == "default" else f":{part.config}"
    return f"{part.repo.partition('/')[2]}{config}:{part.split}" + (f"[:{part.rows}]" if part.rows else "")


def here(store: DatasetStore, name: SetName) -> DatasetInfo | None:
    """The newest set of ours that is what was named; None where none is."""
    for info in store.list():
        part = PartName.parse(f"datasets/{info.origin_name}") if info.origin_name else None
        if part and part.repo == name.repo and set(name.named) <= {part.config, part.split}:
            return info
    return None


def _as_lines(part: PartName, came: tuple[Path, ...], check: Callable[[], None]) -> Path:
    """The rows of all files, or the first ones, as one file of lines. Raises DataError."""
    target, written = came[0].with_name("rows.jsonl"), 0
    aside, columns = target.with_name(f".{target.name}"), None
    with open(aside, "w", encoding="utf-8", newline="\n") as file:
        for path, item in ((each, item) for each in came for item in read_rows(each)):
            check()
            if not isinstance(item, Row):
                if item.severity == "error":  # a file of lines could not say what was wrong with it
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
