"""A hub model as a folder of the ordinary Hugging Face cache, fetched by a process that is killed to stop it.

No token is needed for open models; one that `huggingface_hub` finds (HF_TOKEN, `hf auth login`) is used and never
shown, logged or written. What is fetched and how: core.hub.listing, core.hub.transfer. The process:
core.hub.fetch_worker.
"""

from __future__ import annotations

import logging
import queue
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.hub.answers import HubRequest, in_words
from core.hub.cached import CachedRepo, cache_folder
from core.messages import Message
from core.progress import Progress
from core.system.lines import Child

Report = Callable[[Progress], None]
Check = Callable[[], None]
Room = Callable[[int, int], None]
WORKER = "core.hub.fetch_worker"
DISK_MARGIN = 1.1
POLL_S = 0.2  # how often the caller is asked


def fetch(
    repo_id: str,
    revision: str | None,
    report: Report,
    check: Check,
    endpoint: str | None = None,
    cache_dir: str | Path | None = None,
    accept: Callable[[Path], None] = lambda folder: None,
    room: Room | None = None,
) -> Path:
    """The snapshot folder of a model, downloaded as far as it is not here yet.

    revision: branch, tag or commit; None is `main`. A branch that is complete here is not asked for again, so its
    model does not change under the person; name a commit to move on. report: at most 5 times a second, on the
    caller's thread, bytes over all needed files. check: as often; what it raises (StopRequested) ends the download
    within a second and is passed on. endpoint: HF_ENDPOINT, else huggingface.co. cache_dir: HF_HUB_CACHE.
    accept: called with the folder as soon as config.json lies in it, before anything large; what it raises is passed
    on.
    room: called with the bytes that are missing and those of all files, before the weights; what it raises is passed
    on. None: whether the disk has room, as if nothing else were on its way.
    Raises ModelError with one sentence for everything a person can act on.
    """
    request = HubRequest.of(repo_id, revision, endpoint)
    revision = request.revision
    cached = CachedRepo(repo_id, cache_folder(cache_dir))
    local = cached.snapshot(revision)
    if local is not None and cached.is_whole(local):
        accept(local)
        return local
    # Another tool's snapshot that looks usable but has no listing to prove it: fill what is missing, of that very
    # commit, and use it as it is where the hub cannot be reached.
    wanted = revision if local is None else local.name
    asked = {
        "repo": repo_id,
        "revision": revision,
        "wanted": wanted,
        "endpoint": request.endpoint,
        "cache": str(cached.cache),
    }
    room = room or (lambda missing, total: refuse_full_disk(cached, missing, 0))
    try:
        return Path(talk(asked, report, check, accept, room)["folder"])
    except ModelError:
        if local is None:
            raise
        accept(local)
        return local


def talk(
    asked: dict[str, Any], report: Report, check: Check, accept: Callable[[Path], None], room: Room
) -> dict[str, Any]:
    """With a worker that does what is asked, until it says what came of it. Raises ModelError, and what check, accept
    and room raise."""
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    child = Child(WORKER)
    child.listen(heard.put, lambda code: heard.put({"ended": code}))
    child.say(**asked)
    try:
        while True:
            try:
                said = heard.get(timeout=POLL_S)
            except queue.Empty:
                said = {}
            check()
            if said.get("total"):
                report(Progress(done=said["done"], total=said["total"], unit=said["unit"]))
            if "config" in said:
                accept(Path(said["config"]))
                child.say(go=True)
            elif "missing" in said:
                room(said["missing"], said["of"])
                child.say(go=True)
            elif "folder" in said:
                return said
            elif "refused" in said:
                raise ModelError(Message.model_validate(said["refused"]))
            elif "bug" in said:
                logging.getLogger(__name__).error(
                    "the download of a model failed: %s in %s", said["bug"], said["where"]
                )
            elif "ended" in said:
                raise ModelError("hub.ended", repo=asked["repo"], code=said["ended"])
    finally:
        child.end(0)


def refuse_full_disk(cached: CachedRepo, missing: int, spoken_for: int, margin: float = DISK_MARGIN) -> None:
    """missing: bytes that still have to come; spoken_for: that others do which have their room. Raises ModelError."""
    needed, free = int(missing * margin), shutil.disk_usage(cached.folder.parent).free
    if missing and needed > free - spoken_for:
        said = {"needed": in_words(needed), "free": in_words(free), "folder": cached.cache}
        if needed > free:
            raise ModelError("hub.disk_full", repo=cached.repo_id, **said)
        raise ModelError("hub.disk_full_by_others", repo=cached.repo_id, others=in_words(spoken_for), **said)
