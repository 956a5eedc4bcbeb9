"""Searches datasets on the hub in one request: rows, size, licence, gate and likes of each, as far as the hub knows
them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from huggingface_hub.hf_api import DatasetInfo

from core.errors import DataError, ModelError
from core.hub.cached import REPO_ID
from core.hub.card import licences
from core.hub.hub_errors import Search
from core.hub.search import FAILURES, MOST, as_hub_error, rows_of
from core.hub.sets.set_errors import dataset_message, dataset_search_error
from core.messages import Message, msg

if TYPE_CHECKING:
    from huggingface_hub import RepoCardData


EXPAND = ["likes", "downloads", "gated", "tags", "cardData", "lastModified", "mainSize"]
_MEDIA = ("image", "audio", "video", "3d", "document", "geospatial")
_SIZE = re.compile(r"size_categories:(?:n([<>])(\w+)|(\w+)<n<(\w+))")


@dataclass(frozen=True)
class FoundSet:
    """A dataset as the hub describes it. None, "" or (): unknown.

    rows: of all its parts, as its card counts them. about_rows: the range in its tag, "10K-100K". bytes: of its
    repository.
    """

    id: str
    rows: int | None = None
    about_rows: str = ""
    bytes: int | None = None
    likes: int | None = None
    downloads: int | None = None
    gated: bool = False
    licence: str = ""
    languages: tuple[str, ...] = ()
    modified: str = ""
    why_not: Message | None = None


def search(words: str, most: int = MOST, endpoint: str | None = None) -> list[FoundSet]:
    """Return the datasets that the hub finds for words, at most `most`, the most downloaded first. Raises DataError
    with one sentence."""
    request = Search.create(words, endpoint)
    try:
        matches = [_parse_row(DatasetInfo(**row)) for row in rows_of("datasets", request.words, EXPAND, most, endpoint)]
    except ModelError as error:
        raise DataError(dataset_message(error.message)) from None
    except FAILURES as error:
        raise dataset_search_error(as_hub_error(error), request) from None
    return [row for row in matches if REPO_ID.fullmatch(row.id)]


def _parse_row(row: DatasetInfo) -> FoundSet:
    """Return a row of the hub as a found dataset, with the reason if its tags say that it cannot be trained."""
    tags = [str(tag) for tag in row.tags or []]
    return FoundSet(
        id=row.id,
        rows=_rows_of_card(row.card_data),
        about_rows=next(
            (f"{n[1]}{n[2]}" if n[1] else f"{n[3]}-{n[4]}" for tag in tags if (n := _SIZE.fullmatch(tag))), ""
        ),
        bytes=row.main_size,
        likes=row.likes,
        downloads=row.downloads,
        gated=bool(row.gated),
        licence=licence_of(row),
        languages=tuple(tag.removeprefix("language:") for tag in tags if tag.startswith("language:")),
        modified=row.last_modified.date().isoformat() if row.last_modified else "",
        why_not=_why_not(tags),
    )


def licence_of(row: DatasetInfo) -> str:
    """The licence as its card names it, "apache-2.0" or a licence_name; several with commas; "" if unknown."""
    tagged = [str(tag).removeprefix("license:") for tag in row.tags or [] if str(tag).startswith("license:")]
    return ", ".join(licences(row.card_data) or tagged)[:100]


def _rows_of_card(card: RepoCardData | None) -> int | None:
    """Return the number of rows in all splits of all configurations, as `datasets` writes them into the card; None
    unless all are there."""
    info = card.get("dataset_info") if card else None
    configs = info if isinstance(info, list) else [info] if info else []
    listed = [config.get("splits") for config in configs if isinstance(config, dict)]
    splits = [split for splits in listed if isinstance(splits, list) for split in splits]
    numbers = [split.get("num_examples") for split in splits if isinstance(split, dict)]
    counts = [count for count in numbers if isinstance(count, int)]
    return sum(counts) if counts and len(counts) == len(numbers) else None


def _why_not(tags: list[str]) -> Message | None:
    """Return why a dataset cannot be used, by its tags alone (media without text), else None; the files, which are
    checked before a download, decide."""
    kinds = [tag.removeprefix("modality:") for tag in tags if tag.startswith("modality:")]
    media = [kind for kind in kinds if kind in _MEDIA]
    return msg("hub_set.search_media", kinds=media) if media and "text" not in kinds else None
