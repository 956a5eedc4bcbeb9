"""Details of one dataset on the Hub before a download: its parts with rows and sizes, its licence, its gate, its first
rows.

The `datasets` library reads them in a process of their own (core.hub.sets.look_worker), which is ended when nobody
waits for it any more.
"""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants

from core import files
from core.errors import DataError
from core.files import JsonObject
from core.hub.downloads import nearest
from core.hub.hub_errors import HubRequest, host_of
from core.hub.sets import search
from core.hub.sets.name import PAGES, SetName
from core.messages import Message
from core.system.lines import Child
from core.values import Frozen

WORKER = "core.hub.sets.look_worker"
LOOK_S = 30.0  # for the start of the process and its requests


class AboutPart(Frozen):
    """A part of a dataset. rows, unpacked_bytes: None if unknown. bytes: of the download."""

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
    rows: tuple[JsonObject, ...]
    left_out: tuple[str, ...] = ()


class AboutSet(Frozen):
    """Details of a dataset. chosen: the named part. head: its first rows, or why there are none. parts: empty if a gate
    hides them."""

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
        """The chosen part. Raises DataError if a gate hides the parts."""
        if self.chosen is None:
            assert isinstance(self.head, Message)
            raise DataError(self.head)
        return self.chosen


def select_part(parts: Sequence[AboutPart], repo: str, named: tuple[str, ...]) -> AboutPart:
    """Return the part that is named by a configuration, a split or both; without a name, of the first configuration. If
    several splits of the configuration match, it is its train split, else the first. Raises DataError that lists the
    existing parts if none matches."""
    matches = [part for part in parts if named in ((), (part.config, part.split), (part.config,), (part.split,))]
    if matches:
        return next(
            (part for part in matches if part.config == matches[0].config and part.split == "train"), matches[0]
        )
    existing = [f"{part.config}:{part.split}" for part in parts]
    listed = [*existing[:30], *(["…"] if len(existing) > 30 else [])]
    raise DataError("hub_set.no_such_part", repo=repo, found=":".join(named)[:100], there=listed)


def about(name: SetName, with_rows: bool = False) -> AboutSet:
    """Return the details of a dataset, and with_rows the first rows of its named part, or why there are none. A worker
    that is killed at the end has LOOK_S for it. Raises DataError, with similar names for a missing one."""
    if constants.HF_HUB_OFFLINE:
        raise DataError("hub_set.offline_mode", repo=name.repo)
    request = HubRequest.create(name.repo, pages=PAGES)
    slow = DataError("hub_set.slow", repo=name.repo, host=host_of(request.endpoint))
    messages: queue.Queue[JsonObject] = queue.Queue()
    child, deadline, details = Child(WORKER), time.monotonic() + LOOK_S, None
    child.listen(messages.put, lambda code: messages.put({"ended": code}))
    folder = Path(tempfile.mkdtemp(prefix="lora-garage-look-"))
    child.send(repo=name.repo, named=name.named, with_rows=with_rows, folder=str(folder))
    try:
        while True:
            try:
                message = messages.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                message = {"refused": slow.message.model_dump()}
            if "refused" in message and details is None:
                raise _with_suggestions(DataError(Message.model_validate(message["refused"])), name.repo)
            if "refused" in message and details is not None:
                return details.model_copy(update={"head": Message.model_validate(message["refused"])})
            if "ended" in message:
                raise DataError("hub_set.look_ended", repo=name.repo, code=str(message["ended"]))
            details = AboutSet.model_validate(message["about"])
            if details.head is not None or not with_rows:
                return details
    finally:
        child.end(0)
        files.remove_tree(folder, files.MOMENT_S)


def _with_suggestions(error: DataError, repo: str) -> DataError:
    """Return the error; if the hub lacks that dataset, with the names of similar ones, which are searched for."""
    if error.message.key != "hub_set.missing":
        return error
    owner, _, last = repo.partition("/")
    ids: list[str] = []
    for words in (last, *[word for word in last.replace("_", "-").split("-") if len(word) > 3][:1]):
        try:
            ids += [row.id for row in search.search(words, 20)]
        except DataError:
            break
        if near := nearest(repo, ids):
            return DataError("hub_set.missing_near", missing=error.message, near=near)
    return error
