"""What the datasets server (the viewer on the hub's pages) says of a dataset: rows and sizes by part, and the first rows.

It stands beside huggingface.co alone; a mirror has none, and a hub of one's own may name one in HF_DATASETS_SERVER. Nothing depends on it:
where it is silent, off, or not ready, sizes are those of the files and rows are read from the head of a file (core.data.hub_sets).
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError

from core.hub import peek
from core.hub.answers import NotAHub

SERVER = "HF_DATASETS_SERVER"
LARGEST_ANSWER = 8 << 20  # bytes; first rows are cut at 1 MB by the server
_MEDIA = ("Image", "Audio", "Video", "Pdf", "Nifti", "Mesh")


class NoViewer(Exception):
    """There is none for this set, or it has nothing ready."""


@dataclass(frozen=True)
class Size:
    """rows: of the part; memory: bytes of it unpacked. None: not told. is_partial: it has only looked at a part of it."""

    rows: int | None
    memory: int | None
    is_partial: bool


@dataclass(frozen=True)
class FirstRows:
    """rows: {column: value}. cut: the columns of each whose cells the server shortened. media: columns that hold no text but pictures or sound."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    cut: tuple[frozenset[str], ...]
    media: tuple[str, ...] = ()


def address() -> str | None:
    """None where no server stands beside the hub that is asked."""
    told = os.environ.get(SERVER)
    if told:
        return told.rstrip("/")
    return constants.DATASETS_SERVER_ENDPOINT if constants.ENDPOINT == constants._HF_DEFAULT_ENDPOINT else None


def sizes(repo: str) -> dict[tuple[str, str], Size]:
    """By configuration and split, in the set's order. Raises NoViewer."""
    told = _asked("size", dataset=repo)
    is_partial = told.get("partial") is True
    splits = told.get("size", {}).get("splits") if isinstance(told.get("size"), dict) else None
    found = {}
    for split in splits if isinstance(splits, list) else ():
        if isinstance(split, dict) and isinstance(split.get("config"), str) and isinstance(split.get("split"), str):
            rows = _number(split.get("estimated_num_rows")) or _number(split.get("num_rows"))
            found[split["config"], split["split"]] = Size(rows, _number(split.get("num_bytes_memory")), is_partial)
    return found


def first_rows(repo: str, config: str, split: str) -> FirstRows:
    """Raises NoViewer."""
    told = _asked("first-rows", dataset=repo, config=config, split=split)
    rows, features = told.get("rows"), told.get("features")
    if not isinstance(rows, list) or not isinstance(features, list):
        raise NoViewer
    named = [each for each in features if isinstance(each, dict) and isinstance(each.get("name"), str)]
    kept = [each for each in rows if isinstance(each, dict) and isinstance(each.get("row"), dict)]
    return FirstRows(
        columns=tuple(each["name"] for each in named),
        rows=tuple(each["row"] for each in kept),
        cut=tuple(frozenset(str(name) for name in each.get("truncated_cells") or ()) for each in kept),
        media=tuple(each["name"] for each in named if isinstance(each.get("type"), dict) and each["type"].get("_type") in _MEDIA),
    )


def _asked(what: str, **of: str) -> dict[str, Any]:
    server = address()
    if server is None:
        raise NoViewer
    try:
        told = json.loads(peek.answer_with_or_without_token(f"{server}/{what}?{urlencode(of)}", LARGEST_ANSWER))
    except (HTTPError, NotAHub, OSError, ValueError, RecursionError):
        raise NoViewer from None
    if not isinstance(told, dict):
        raise NoViewer
    return told


def _number(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
