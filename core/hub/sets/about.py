"""Details of one hub dataset before a download: its parts with rows and sizes, its licence, its gate.

Three requests at once, each within about peek.PEEK_S: the repository, the hub's Parquet of it, the datasets server's sizes.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.hf_api import DatasetInfo

from core.errors import DataError
from core.hub import peek
from core.hub.answers import HubRequest, NotAHub
from core.hub.downloads import nearest
from core.hub.listing import Listing
from core.hub.sets import search, viewer
from core.hub.sets.name import PAGES, SetName
from core.hub.sets.parts import CONVERTED, Part, part_of, parts_of
from core.hub.sets.said import refusal
from core.hub.sets.search import licence_of
from core.hub.sets.viewer import NoViewer, Size

LARGEST_LISTING = 32 << 20  # bytes; a file is some 300, and sets of 50,000 files exist


@dataclass(frozen=True)
class AboutPart:
    """rows, memory: None where nobody tells; at_least: the hub has counted only its beginning."""

    part: Part
    rows: int | None = None
    memory: int | None = None
    at_least: bool = False


@dataclass(frozen=True)
class AboutSet:
    repo: str
    page: str
    commit: str
    parts: tuple[AboutPart, ...]
    licence: str = ""
    gated: bool = False
    likes: int | None = None
    downloads: int | None = None
    languages: tuple[str, ...] = ()

    def part(self, named: tuple[str, ...]) -> AboutPart:
        """Raises DataError for one that there is not."""
        found = part_of([each.part for each in self.parts], self.repo, named)
        return next(each for each in self.parts if each.part is found)


def about(name: SetName) -> AboutSet:
    """Raises DataError with one sentence."""
    repo, asked = name.repo, request(name.repo)
    endpoint = asked.endpoint
    if constants.HF_HUB_OFFLINE:
        raise DataError("hub_set.offline_mode", repo=repo)
    with ThreadPoolExecutor(3, thread_name_prefix="hub-set") as pool:
        own, converted, sizes = (
            pool.submit(_listed, repo, "", endpoint), pool.submit(_converted, repo, endpoint), pool.submit(_sizes, repo)
        )  # fmt: skip
    try:
        listing, in_parquet = own.result(), converted.result()
    except (NotAHub, HTTPError, OSError) as error:
        raise _near(refusal(error, asked), repo) from None
    parts = parts_of(listing, in_parquet)
    info = listing.info
    assert isinstance(info, DatasetInfo)
    return AboutSet(
        repo=repo,
        page=f"{endpoint}/{PAGES}{repo}",
        commit=listing.commit,
        parts=tuple(_in_order(parts, sizes.result())),
        licence=licence_of(info),
        gated=bool(info.gated),
        likes=info.likes,
        downloads=info.downloads,
        languages=tuple(str(tag).removeprefix("language:") for tag in info.tags or [] if str(tag).startswith("language:")),
    )


def request(repo: str) -> HubRequest:
    """What the sentences of a refusal are told."""
    return HubRequest.of(repo, pages=PAGES)


def _in_order(parts: list[Part], sizes: dict[tuple[str, str], Size]) -> list[AboutPart]:
    """As the viewer has them, which is the order that the card names, else as the files stand."""
    order = {key: place for place, key in enumerate(sizes)}
    found = []
    for part in sorted(parts, key=lambda part: order.get((part.config, part.split), len(order))):
        size = sizes.get((part.config, part.split)) or Size(None, None, False)
        found.append(AboutPart(part, size.rows, size.memory, size.is_partial or part.is_partial))
    return found


def _listed(repo: str, revision: str, endpoint: str) -> Listing:
    """Raises NotAHub, HTTPError, OSError."""
    of = f"/revision/{quote(revision, safe='')}" if revision else ""
    answer = peek.answer_with_or_without_token(f"{endpoint}/api/datasets/{repo}{of}?blobs=true", LARGEST_LISTING)
    try:
        return Listing(repo, DatasetInfo(**json.loads(answer)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # not JSON, or JSON of another kind
        raise NotAHub from None


def _converted(repo: str, endpoint: str) -> Listing | None:
    """None where the hub has not converted it: it is private, new, too large, or its viewer is off."""
    try:
        return _listed(repo, CONVERTED, endpoint)
    except (NotAHub, HTTPError, OSError):
        return None


def _sizes(repo: str) -> dict[tuple[str, str], Size]:
    try:
        return viewer.sizes(repo)
    except NoViewer:
        return {}


def _near(error: DataError, repo: str) -> DataError:
    """Of a name that the hub does not have: which it may have been."""
    if error.message.key != "hub_set.missing":
        return error
    owner, _, last = repo.partition("/")
    ids: list[str] = []
    for words in (last, *[word for word in last.replace("_", "-").split("-") if len(word) > 3][:1]):
        try:
            ids += [found.id for found in search.search(words, 20)]
        except DataError:
            break
        if near := nearest(repo, ids):
            return DataError("hub_set.missing_near", missing=error.message, near=near)
    return error
