"""The process that looks at one dataset on the Hub: `python -m core.hub.sets.look_worker`.

In lines (core.system.lines). In: {repo, named, with_rows, folder}; folder: for what it
fetches, which whoever asks deletes. Out: {about: AboutSet} as soon as that is known, once more with its
first rows where they were asked for, or {refused: Message} in place of either.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from queue import Queue
from typing import Any

from huggingface_hub.errors import GatedRepoError, HTTPError
from huggingface_hub.hf_api import DatasetInfo

from core.errors import DataError, GarageError
from core.hub import listing
from core.hub.answers import HubRequest, NotAHub
from core.hub.listing import Listing
from core.hub.sets import library
from core.hub.sets.about import AboutSet, SetHead, part_of
from core.hub.sets.library import Part
from core.hub.sets.name import PAGES
from core.hub.sets.said import refusal
from core.hub.sets.search import licence_of
from core.system.lines import ToParent
from core.system.processes import leave

MOST_ROWS = 10


def look(repo: str, named: tuple[str, ...], with_rows: bool, say: Callable[..., None]) -> None:
    asked = HubRequest.of(repo, pages=PAGES)
    try:
        found = listing.ask(repo, asked.revision, asked.endpoint, "dataset")
        about = _about(found, asked)
        try:
            parts = library.parts_of(found)
        except GatedRepoError as error:
            return say(about=about.model_copy(update={"head": refusal(error, asked).message}).model_dump(mode="json"))
        told = tuple(part.about for part in parts)
        chosen = part_of(told, repo, named)
        about = about.model_copy(update={"parts": told, "chosen": chosen})
        say(about=about.model_dump(mode="json"))
        if with_rows:
            say(
                about=about.model_copy(update={"head": _head(found, parts[told.index(chosen)])}).model_dump(mode="json")
            )
    except GarageError as error:
        say(refused=error.message.model_dump())
    except (NotAHub, HTTPError, OSError) as error:
        say(refused=refusal(error, asked).message.model_dump())


def _about(found: Listing, asked: HubRequest) -> AboutSet:
    info = found.info
    assert isinstance(info, DatasetInfo)
    languages = (str(tag).removeprefix("language:") for tag in info.tags or [] if str(tag).startswith("language:"))
    return AboutSet(
        repo=asked.repo, page=f"{asked.endpoint}/{PAGES}{asked.repo}", commit=found.commit, licence=licence_of(info),
        gated=bool(info.gated), likes=info.likes, downloads=info.downloads, languages=tuple(languages),
    )  # fmt: skip


def _head(found: Listing, part: Part) -> SetHead:
    stream = library.stream(part, found)
    media = library.media(stream.features)
    if stream.features and len(media) == len(stream.features):
        raise DataError("hub_set.no_text", repo=found.repo_id, columns=media[:10])
    with library.refusing(found.repo_id, part.files[0].name):
        rows = tuple(islice(library.rows_of(stream), MOST_ROWS))
    return SetHead(columns=tuple(dict.fromkeys(name for row in rows for name in row)), rows=rows, left_out=tuple(media))


def main() -> None:
    heard: Queue[dict[str, Any]] = Queue()
    parent = ToParent()
    parent.listen(heard.put, lambda: os._exit(1))
    asked = heard.get()
    library.settle(Path(asked["folder"]))
    look(asked["repo"], tuple(asked["named"]), asked["with_rows"], parent.say)
    leave(0)


if __name__ == "__main__":
    main()
