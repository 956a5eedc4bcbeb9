"""Details of one dataset on the Hub before a download: its parts with rows and sizes, its licence, its gate, its first
rows.

The library `datasets` reads them in a process of their own (core.hub.sets.look_worker), which is ended when nobody
waits any more.
"""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from core import files
from core.errors import DataError
from core.hub.answers import HubRequest, host_of
from core.hub.downloads import nearest
from core.hub.sets import search
from core.hub.sets.name import PAGES, SetName
from core.messages import Message
from core.system.lines import Child
from core.values import Frozen

WORKER = "core.hub.sets.look_worker"
LOOK_S = 30.0  # for a start of the process, and for what it asks


class AboutPart(Frozen):
    """rows, unpacked_bytes: None where nobody tells. bytes: to be downloaded."""

    config: str
    split: str
    kind: str
    files: int
    bytes: int
    rows: int | None = None
    unpacked_bytes: int | None = None


class SetHead(Frozen):
    """The first rows of a part: {column: value}. left_out: columns of pictures or sound."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    left_out: tuple[str, ...] = ()


class AboutSet(Frozen):
    """chosen: the part that was named. head: its first rows, or why there are none. parts: empty where a gate hides
    them."""

    repo: str
    page: str
    commit: str
    licence: str = ""
    gated: bool = False
    likes: int | None = None
    downloads: int | None = None
    languages: tuple[str, ...] = ()
    parts: tuple[AboutPart, ...] = ()
    chosen: AboutPart | None = None
    head: SetHead | Message | None = None

    @property
    def part(self) -> AboutPart:
        """The chosen one. Raises DataError where a gate hides what there is."""
        if self.chosen is None:
            assert isinstance(self.head, Message)
            raise DataError(self.head)
        return self.chosen


def part_of(parts: Sequence[AboutPart], repo: str, named: tuple[str, ...]) -> AboutPart:
    """The one that was named: by configuration and split, by either, or the first. Raises DataError that names what
    there is."""
    fit = [part for part in parts if named in ((), (part.config, part.split), (part.config,), (part.split,))]
    if fit:
        return next((part for part in fit if part.config == fit[0].config and part.split == "train"), fit[0])
    there = [f"{part.config}:{part.split}" for part in parts]
    shown = [*there[:30], *(["…"] if len(there) > 30 else [])]
    raise DataError("hub_set.no_such_part", repo=repo, found=":".join(named)[:100], there=shown)


def about(name: SetName, with_rows: bool = False) -> AboutSet:
    """The details of a dataset, and with_rows the first rows of the part that is named, within LOOK_S. Raises
    DataError."""
    if constants.HF_HUB_OFFLINE:
        raise DataError("hub_set.offline_mode", repo=name.repo)
    request = HubRequest.of(name.repo, pages=PAGES)
    slow = DataError("hub_set.slow", repo=name.repo, host=host_of(request.endpoint))
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    child, end, found = Child(WORKER), time.monotonic() + LOOK_S, None
    child.listen(heard.put, lambda code: heard.put({"ended": code}))
    folder = Path(tempfile.mkdtemp(prefix="lora-garage-look-"))
    child.say(repo=name.repo, named=name.named, with_rows=with_rows, folder=str(folder))
    try:
        while True:
            try:
                said = heard.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                said = {"refused": slow.message.model_dump()}
            if "refused" in said and found is None:
                raise _near(DataError(Message.model_validate(said["refused"])), name.repo)
            if "refused" in said and found is not None:
                return found.model_copy(update={"head": Message.model_validate(said["refused"])})
            if "ended" in said:
                raise DataError("hub_set.look_ended", repo=name.repo, code=said["ended"])
            found = AboutSet.model_validate(said["about"])
            if found.head is not None or not with_rows:
                return found
    finally:
        child.end(0)
        files.remove_tree(folder, files.MOMENT_S)


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
