"""Downloads a hub model into the ordinary Hugging Face cache, in a process that is killed to stop it.

No token is needed for open models; one that `huggingface_hub` finds (HF_TOKEN, `hf auth login`) is used and never
shown, logged or written. Which files and how: core.hub.listing, core.hub.transfer. The process: core.hub.fetch_worker.
"""

from __future__ import annotations

import logging
import queue
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from core.errors import GarageError, ModelError
from core.files import JsonObject
from core.hub.cached import CachedRepo, cache_folder
from core.hub.hub_errors import HubRequest, format_size
from core.messages import Message
from core.progress import Progress
from core.system.lines import Child

Report = Callable[[Progress], None]
Check = Callable[[], None]
CheckDisk = Callable[[int, int], None]
WORKER = "core.hub.fetch_worker"
DISK_MARGIN = 1.1
POLL_S = 0.2  # between two calls of the caller's check
# Seconds before each retry: a router takes two minutes to restart, a provider's maintenance an hour.
WAITS_S = (5, 15, 60, 120, 300, 600, 600, 600, 600)
LONGEST_WAIT_S = 3600
_BROKEN = ("interrupted", "no_network", "server_trouble", "rate_limit", "rate_limit_until", "not_a_hub")
BROKEN = {f"hub.{kind}" for kind in _BROKEN} | {"hub_set.no_network", "hub_set.not_a_hub"}
Result = TypeVar("Result")


def fetch(
    repo_id: str,
    revision: str | None,
    report: Report,
    check: Check,
    endpoint: str | None = None,
    cache_dir: str | Path | None = None,
    accept: Callable[[Path], None] = lambda folder: None,
    check_disk: CheckDisk | None = None,
) -> Path:
    """Download missing files of a model and return its snapshot folder.

    revision: branch, tag or commit; None is `main`. A complete branch is not checked for updates, so that its model
    does not change unnoticed; name a commit to update. A snapshot of another tool, which lacks the listing that proves
    it complete, is completed; if that fails with a ModelError, it is returned as it is.

    report: called with the bytes over all needed files at most 5 times a second, in the caller's thread. check: called
    as often; an exception that it raises (StopRequested) ends the download within a second and is passed on. endpoint:
    HF_ENDPOINT, else huggingface.co. cache_dir: HF_HUB_CACHE. accept: called with the folder as soon as it holds
    config.json, before any large file; its exception is passed on. check_disk: called with the missing bytes and those
    of all files before the weights; its exception is passed on; None checks the free disk space without regard to other
    downloads. Raises ModelError with one sentence for every other error that the user can act on.
    """
    request = HubRequest.create(repo_id, revision, endpoint)
    revision = request.revision
    cached = CachedRepo(repo_id, cache_folder(cache_dir))
    snapshot = cached.snapshot(revision)
    if snapshot is not None and cached.is_complete(snapshot):
        accept(snapshot)
        return snapshot
    # Another tool's snapshot that looks usable but has no listing to prove it: complete that very commit, and use it
    # as it is if the hub cannot be reached.
    resolved = revision if snapshot is None else snapshot.name
    order = {
        "repo": repo_id,
        "revision": revision,
        "resolved": resolved,
        "endpoint": request.endpoint,
        "cache": str(cached.cache),
    }
    check_disk = check_disk or (lambda missing, total: refuse_full_disk(cached, missing, 0))
    try:
        return Path(run_worker(order, report, check, accept, check_disk)["folder"])
    except ModelError:
        if snapshot is None:
            raise
        accept(snapshot)
        return snapshot


def fetch_adapter(
    repo_id: str,
    revision: str | None,
    cache: Path,
    report: Report,
    check: Check,
    accept: Callable[[Path], None],
) -> Path:
    """Download an adapter's files into cache, a folder of its own, and return their folder. report, check: as of
    `fetch`. accept: called with the folder once it holds adapter_config.json. Raises as `fetch`."""
    request, cached = HubRequest.create(repo_id, revision), CachedRepo(repo_id, cache)
    order = {"repo": repo_id, "revision": request.revision, "resolved": request.revision, "endpoint": request.endpoint,
             "cache": str(cache), "adapter": True}  # fmt: skip
    cached.folder.mkdir(parents=True, exist_ok=True)
    result = run_worker(order, report, check, accept, lambda missing, _: refuse_full_disk(cached, missing, 0))
    return Path(result["folder"])


def patiently(
    fetch: Callable[[Report], Result],
    report: Report,
    check: Check,
    wait: Callable[[Message | None], None] = lambda message: None,
    done: float = 0.0,
) -> Result:
    """Return the result of fetch(report), which is called again after a growing pause while its connection breaks.

    wait: called with the error's message before each pause (at most LONGEST_WAIT_S), and with None after it. done:
    bytes or rows of an earlier attempt; those that fetch reports replace it. Raises what check raises. Raises the error
    of fetch if it is no broken connection, if nothing has arrived yet at all, or if as many retries as WAITS_S has
    brought nothing new.
    """
    tries, most_done = 0, done

    def report_and_note(progress: Progress) -> None:
        """Pass the progress on to report, and keep how much is done."""
        nonlocal done
        done = progress.done
        report(progress)

    while True:
        try:
            return fetch(report_and_note)
        except GarageError as error:
            message = error.message
            tries, most_done = 0 if done > most_done else tries, max(most_done, done)
            if message.key not in BROKEN or not done or tries >= len(WAITS_S):
                raise
        wait(message)
        requested_s = message.params.get("seconds")  # by the hub, if it says so
        seconds = max(WAITS_S[tries], requested_s if isinstance(requested_s, int) else 0)
        end = time.monotonic() + min(LONGEST_WAIT_S, seconds)
        while time.monotonic() < end:
            check()
            time.sleep(min(POLL_S, seconds))
        wait(None)
        tries += 1


def run_worker(
    order: JsonObject, report: Report, check: Check, accept: Callable[[Path], None], check_disk: CheckDisk
) -> JsonObject:
    """Start the process that downloads (core.hub.fetch_worker), send it the order, and return its last message, which
    names the folder. The process is killed at the end, whatever happens.

    report: called with the progress. check: called at least every POLL_S. accept: called with the folder as soon as it
    holds config.json, before any large file. check_disk: called with the missing bytes and those of all files, before
    the weights. The process waits while accept and check_disk run; an exception of check, accept or check_disk ends the
    download and is passed on. Raises ModelError if the process refuses or dies.
    """
    messages: queue.Queue[JsonObject] = queue.Queue()
    child = Child(WORKER)
    child.listen(messages.put, lambda code: messages.put({"ended": code}))
    child.send(**order)
    try:
        while True:
            try:
                message = messages.get(timeout=POLL_S)
            except queue.Empty:
                message = {}
            check()
            if message.get("total"):
                report(Progress(done=message["done"], total=message["total"], unit=message["unit"]))
            if "config" in message:
                accept(Path(message["config"]))
                child.send(go=True)
            elif "missing" in message:
                check_disk(message["missing"], message["of"])
                child.send(go=True)
            elif "folder" in message:
                return message
            elif "refused" in message:
                raise ModelError(Message.model_validate(message["refused"]))
            elif "bug" in message:
                logging.getLogger(__name__).error(
                    "the download of a model failed: %s in %s", message["bug"], message["where"]
                )
            elif "ended" in message:
                raise ModelError("hub.ended", repo=order["repo"], code=str(message["ended"]))
    finally:
        child.end(0)


def refuse_full_disk(cached: CachedRepo, missing: int, reserved: int, margin: float = DISK_MARGIN) -> None:
    """Raise ModelError if the disk is too full. missing: bytes still to download; reserved: bytes that other downloads
    still need; margin: factor on missing."""
    needed, free = int(missing * margin), shutil.disk_usage(cached.folder.parent).free
    if missing and needed > free - reserved:
        sizes = {"needed": format_size(needed), "free": format_size(free), "folder": cached.cache}
        if needed > free:
            raise ModelError("hub.disk_full", repo=cached.repo_id, **sizes)
        raise ModelError("hub.disk_full_by_others", repo=cached.repo_id, others=format_size(reserved), **sizes)
