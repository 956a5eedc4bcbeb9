"""The process that reads one dataset's details on the Hub: `python -m core.hub.sets.look_worker`.

It exchanges lines (core.system.lines). In: {repo, named, with_rows, folder}; folder: for its downloads, which the
parent deletes. Out: {about: AboutSet} as soon as it is known, once more with its first rows if requested, or {refused:
Message} in place of either.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from queue import Queue

from huggingface_hub.errors import GatedRepoError, HTTPError
from huggingface_hub.hf_api import DatasetInfo

from core.errors import DataError, GarageError
from core.files import JsonObject
from core.hub import listing
from core.hub.hub_errors import HubRequest, NotAHub
from core.hub.listing import Listing
from core.hub.sets import library
from core.hub.sets.about import AboutSet, SetHead, select_part
from core.hub.sets.library import Part
from core.hub.sets.name import PAGES
from core.hub.sets.search import licence_of
from core.hub.sets.set_errors import dataset_error
from core.system.lines import ToParent
from core.system.processes import exit_now

MAX_ROWS = 10


def look(repo: str, named: tuple[str, ...], with_rows: bool, say: Callable[..., None]) -> None:
    """Send what is known of a dataset, more each time: its page and parts, and with_rows the first rows; for a gated
    one its page and the reason, for an error of the hub or the files a refusal. Raises ModelError for an invalid
    name."""
    request = HubRequest.create(repo, pages=PAGES)
    try:
        repository = listing.fetch_listing(repo, request.revision, request.endpoint, "dataset")
        about = _about(repository, request)
        try:
            parts = library.parts_of(repository)
        except GatedRepoError as error:
            return say(
                about=about.model_copy(update={"head": dataset_error(error, request).message}).model_dump(mode="json")
            )
        descriptions = tuple(part.about for part in parts)
        chosen = select_part(descriptions, repo, named)
        about = about.model_copy(update={"parts": descriptions, "chosen": chosen})
        say(about=about.model_dump(mode="json"))
        if with_rows:
            say(
                about=about.model_copy(
                    update={"head": _head(repository, parts[descriptions.index(chosen)])}
                ).model_dump(mode="json")
            )
    except GarageError as error:
        say(refused=error.message.model_dump())
    except (NotAHub, HTTPError, OSError) as error:
        say(refused=dataset_error(error, request).message.model_dump())


def _about(repository: Listing, request: HubRequest) -> AboutSet:
    """Return what the hub's record says of a dataset, without its parts."""
    info = repository.info
    assert isinstance(info, DatasetInfo)
    languages = (str(tag).removeprefix("language:") for tag in info.tags or [] if str(tag).startswith("language:"))
    return AboutSet(
        repo=request.repo, page=f"{request.endpoint}/{PAGES}{request.repo}", commit=repository.commit,
        licence=licence_of(info), gated=bool(info.gated), likes=info.likes, downloads=info.downloads,
        languages=tuple(languages),
    )  # fmt: skip


def _head(repository: Listing, part: Part) -> SetHead:
    """Return the first rows (at most MAX_ROWS) as read through the library, and the media columns left out. Raises
    DataError if every column is media."""
    stream = library.stream(part, repository)
    media = library.media(stream.features)
    if stream.features and len(media) == len(stream.features):
        raise DataError("hub_set.no_text", repo=repository.repo_id, columns=media[:10])
    with library.refusing(repository.repo_id, part.files[0].name):
        rows = tuple(islice(library.rows_of(stream), MAX_ROWS))
    return SetHead(columns=tuple(dict.fromkeys(name for row in rows for name in row)), rows=rows, left_out=tuple(media))


def main() -> None:
    """Carry out the order that the parent sends, and end the process, also once the parent has gone."""
    messages: Queue[JsonObject] = Queue()
    parent = ToParent()
    parent.listen(messages.put, lambda: os._exit(1))
    order = messages.get()
    library.configure(Path(order["folder"]))
    look(order["repo"], tuple(order["named"]), order["with_rows"], parent.send)
    exit_now(0)


if __name__ == "__main__":
    main()
