"""Claims about the list of downloads, against a hub of our own; the work on threads of this process
(tests/kit/fetching)."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.utils import WeakFileLock

from core.errors import ModelError, RunError, StopRequested
from core.hub import cached, download, hub_errors, partial_file
from core.hub.downloads import Download, Downloads, nearest
from core.models.library import Models
from core.workspace.folder import Workspace
from tests.kit.fetching import fetch_here, here_holds_its_file, incomplete
from tests.kit.hub import CHUNK, FakeHub, tiny_model
from tests.kit.waits import wait_until

REPO, OTHER = "owner/model", "owner/other"
WEIGHTS = "model.safetensors"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fetch_here(monkeypatch)
    monkeypatch.setattr(download, "WAITS_S", (0.01, 0.01))
    monkeypatch.setattr(cached.constants, "HF_HUB_CACHE", str(cache))
    with FakeHub({name: tiny_model() for name in (REPO, OTHER, "owner/third", "owner/fourth")}) as server:
        # Not the library's own constant: hf_hub_url has a template of the real address from its import.
        monkeypatch.setattr(
            hub_errors, "constants", SimpleNamespace(**vars(hub_errors.constants) | {"ENDPOINT": server.url})
        )
        yield server


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "ws")


@pytest.fixture
def app(space: Workspace) -> Iterator[Downloads]:
    """As an app has it: what waits is begun."""
    downloads = Downloads(space)
    downloads.begin()
    yield downloads
    downloads.close()


def state(downloads: Downloads, repo: str = REPO) -> str | None:
    row = downloads.row(repo)
    return row.state if row else None


def until(downloads: Downloads, wanted: str | None, repo: str = REPO) -> Download | None:
    wait_until(lambda: state(downloads, repo) == wanted)
    return downloads.row(repo)


def idle(downloads: Downloads) -> None:
    """Until no thread works: what was paused or cancelled has ended."""
    wait_until(lambda: not any(thread.name == "download" for thread in threading.enumerate()))


def test_what_is_asked_for_is_downloaded_beside_the_page_and_told(hub: FakeHub, app: Downloads) -> None:
    assert app.start(REPO).state in ("waiting", "running")
    row = until(app, "done")
    assert row is not None and row.done == row.total == sum(map(len, hub.repos[REPO].values()))
    assert cached.installed() == [REPO]


def test_a_paused_download_goes_on_where_it_was(hub: FakeHub, app: Downloads, cache: Path) -> None:
    hub.stall_after = 5 * CHUNK
    app.start(REPO)
    wait_until(lambda: (row := app.row(REPO)) is not None and row.total > 0 and incomplete(cache) == 5 * CHUNK)
    app.pause(REPO)
    idle(app)
    row = app.row(REPO)
    assert row is not None and row.state == "paused" and row.total == 262_190 and row.seconds_left is None
    hub.release.set()
    hub.stall_after = None
    hub.requests.clear()
    app.resume(REPO)
    until(app, "done")
    assert [asked.split()[-1] for asked in hub.file_requests(WEIGHTS)] == [f"bytes={5 * CHUNK}-"]


def test_the_next_app_goes_on_with_what_ran_and_leaves_alone_what_was_paused(
    hub: FakeHub, space: Workspace, cache: Path
) -> None:
    hub.stall_after = 5 * CHUNK
    first = Downloads(space)
    first.begin()
    first.start(REPO)
    first.start(OTHER)
    wait_until(lambda: hub.stalled.is_set() and incomplete(cache) == 5 * CHUNK)
    first.pause(OTHER)
    first.close()
    assert {row.repo: row.state for row in Downloads(space).rows()} == {REPO: "waiting", OTHER: "paused"}
    hub.release.set()
    hub.stall_after = None
    second = Downloads(space)
    second.begin()
    try:
        until(second, "done")
        assert state(second, OTHER) == "paused"
    finally:
        second.close()


def test_three_run_at_once_and_the_fourth_waits(hub: FakeHub, app: Downloads) -> None:
    hub.stall_after = CHUNK
    for repo in hub.repos:
        app.start(repo)
    wait_until(lambda: len(hub.file_requests(WEIGHTS)) == 3)
    wait_until(lambda: [row.state for row in app.rows()].count("running") == 3)
    assert [row.state for row in app.rows()] == ["running", "running", "running", "waiting"]
    hub.release.set()
    wait_until(lambda: {row.state for row in app.rows()} == {"done"})


def test_two_downloads_of_one_model_are_one(hub: FakeHub, app: Downloads, cache: Path) -> None:
    hub.stall_after = CHUNK
    first = app.start(REPO)
    wait_until(hub.stalled.is_set)
    assert app.start(REPO).requested == first.requested and len(app.rows()) == 1
    # Nor for a run, which downloads for itself: it waits for the model's lock.
    folder = download.fetch(REPO, None, lambda progress: None, hub.release.set)
    assert (folder / WEIGHTS).read_bytes() == hub.repos[REPO][WEIGHTS]
    assert len(hub.file_requests(WEIGHTS)) == 1
    until(app, "done")


def test_a_run_goes_on_by_itself_after_a_broken_line_and_stops_while_it_waits(
    hub: FakeHub, space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.drop_after, hub.drops_left = 0, 30
    folder = Models(space).download(REPO, None, lambda progress: None, lambda: None, lambda folder: None)
    assert (folder / WEIGHTS).read_bytes() == hub.repos[REPO][WEIGHTS] and hub.drops_left == 0
    monkeypatch.setattr(download, "WAITS_S", (600,))
    hub.drops_left, waits = 10**6, []

    def check() -> None:
        if waits:
            raise StopRequested

    def fetch(noted: download.Report) -> Path:
        return download.fetch(OTHER, None, noted, lambda: None)

    with pytest.raises(StopRequested):
        download.patiently(fetch, lambda progress: None, check, waits.append)
    assert waits[0].key == "hub.interrupted"


@here_holds_its_file
def test_a_cancelled_download_leaves_nothing_of_what_it_brought(hub: FakeHub, app: Downloads, cache: Path) -> None:
    hub.stall_after = 5 * CHUNK
    app.start(REPO)
    wait_until(lambda: incomplete(cache) == 5 * CHUNK)
    app.cancel(REPO)
    assert app.row(REPO) is None
    idle(app)
    assert not (cache / "models--owner--model").exists()


@here_holds_its_file
def test_a_cancelled_download_leaves_what_another_tool_had(hub: FakeHub, app: Downloads, cache: Path) -> None:
    theirs = cache / "models--owner--model" / "blobs" / "theirs"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    hub.stall_after = 5 * CHUNK
    app.start(REPO)
    wait_until(lambda: incomplete(cache) == 5 * CHUNK)
    app.cancel(REPO)
    idle(app)
    assert theirs.read_bytes() == b"theirs" and incomplete(cache) == 0


@here_holds_its_file
def test_a_cancelled_download_leaves_what_another_process_is_downloading(
    hub: FakeHub, app: Downloads, cache: Path
) -> None:
    """Seen: cancelling one that waited for a run's download of the same model deleted the files of that."""
    held = cached.CachedRepo(REPO, cache)
    theirs = held.folder / "blobs" / "theirs.incomplete"
    for file in (theirs, held.lock):
        file.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    hub.stall_after = CHUNK
    with WeakFileLock(held.lock):
        app.start(REPO)
        app.cancel(REPO)
        idle(app)
    assert theirs.read_bytes() == b"theirs"


def test_what_is_done_leaves_the_list_but_not_the_disk(hub: FakeHub, app: Downloads) -> None:
    app.start(REPO)
    until(app, "done")
    app.cancel(REPO)
    assert app.rows() == [] and cached.installed() == [REPO]


def test_a_broken_line_is_tried_again_by_itself(hub: FakeHub, app: Downloads) -> None:
    hub.drop_after, hub.drops_left = 0, 30  # more often than the transfer itself asks without a new byte
    app.start(REPO)
    until(app, "done")
    assert hub.drops_left == 0


def test_a_line_that_never_comes_back_ends_with_its_sentence_and_a_person_goes_on(hub: FakeHub, app: Downloads) -> None:
    hub.drop_after, hub.drops_left = 0, 10**6
    app.start(REPO)
    row = until(app, "failed")
    assert row is not None and row.message is not None and row.message.key == "hub.interrupted"
    hub.drops_left = 0
    app.resume(REPO)
    until(app, "done")


@pytest.mark.parametrize(
    ("knob", "value", "key"),
    [
        ("status", 429, "hub.rate_limit"),
        ("status", 500, "hub.server_trouble"),
        ("body", b"<html>sign in</html>", "hub.not_a_hub"),
        ("gated", True, "hub.gated"),
        ("instead", b"other", "hub.other_file"),
        ("corrupt", True, "hub.damaged"),
    ],
)
def test_a_failure_that_brought_nothing_is_one_sentence_at_once(
    hub: FakeHub, app: Downloads, knob: str, value: object, key: str
) -> None:
    setattr(hub, knob, value)
    app.start(REPO)
    row = until(app, "failed")
    assert row is not None and row.message is not None and row.message.key == key
    assert "{" not in row.message.render("zh")
    assert sum("/api/models/" in asked for asked in hub.requests) == 1


def test_a_pause_that_the_hub_wants_is_kept(
    hub: FakeHub, app: Downloads, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """After the first byte: then it is no failure of the person's, and goes on by itself."""
    hub.stall_after = 5 * CHUNK
    app.start(REPO)
    wait_until(lambda: (row := app.row(REPO)) is not None and row.total > 0 and incomplete(cache) == 5 * CHUNK)
    app.pause(REPO)
    idle(app)
    hub.release.set()
    hub.stall_after, hub.file_status, hub.headers = None, 429, {"Retry-After": "600"}
    app.resume(REPO)
    row = until(app, "again")
    assert row is not None and row.message is not None and row.message.params["seconds"] == 600
    app.pause(REPO)
    until(app, "paused")


def test_a_disk_too_full_to_tell_of_it_ends_a_download_once_and_a_person_goes_on(
    hub: FakeHub, app: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where workspace and cache share the drive, what is told meets the same full disk: it began anew three times a
    second."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: object) -> None:
        raise full

    def fetch(*asked: Any, **how: Any) -> Path:
        disk.setattr("core.files.replace", refuse)
        return at_once(*asked, **how)

    at_once = download.fetch
    with monkeypatch.context() as disk:
        disk.setattr(partial_file.PartialFile, "write", refuse)
        disk.setattr(download, "fetch", fetch)
        app.start(REPO)
        row = until(app, "failed")
        assert row is not None and row.message is not None and row.message.key == "hub.disk_full_midway"
        assert sum(f"/api/models/{REPO}" in asked for asked in hub.requests) == 1
    app.resume(REPO)
    until(app, "done")


def test_a_workspace_that_takes_no_wish_is_a_sentence(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("core.files.replace", refuse)
    with pytest.raises(RunError) as caught:
        Downloads(space).start(REPO)
    assert caught.value.message.key == "faults.cannot_write"


def test_a_disk_that_another_download_is_about_to_fill_counts_as_full(
    hub: FakeHub, app: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two would fit alone: both ended at a full disk, hours later."""
    usage = SimpleNamespace(total=10**9, used=10**9 - 400_000, free=400_000)  # each needs 1.1 * 262,190 bytes
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    hub.stall_after = CHUNK
    app.start(REPO)
    wait_until(lambda: (row := app.row(REPO)) is not None and row.total > 0)
    app.start(OTHER)
    row = until(app, "failed", OTHER)
    assert row is not None and row.message is not None and row.message.key == "hub.disk_full_by_others"
    hub.release.set()
    until(app, "done")
    app.resume(OTHER)
    until(app, "done", OTHER)


def test_a_download_to_another_drive_takes_no_room(
    hub: FakeHub, app: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen: a model was refused for the rest of a dataset that goes to another drive."""
    usage = SimpleNamespace(total=10**9, used=10**9 - 400_000, free=400_000)  # each needs 1.1 * 262,190 bytes
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(Downloads, "_drive", lambda self, row: row.repo)
    hub.stall_after = CHUNK
    app.start(REPO)
    wait_until(lambda: (row := app.row(REPO)) is not None and row.total > 0)
    app.start(OTHER)
    wait_until(lambda: (row := app.row(OTHER)) is not None and row.total > 0)
    hub.release.set()
    until(app, "done", OTHER)


def test_of_two_that_begin_in_the_same_second_one_is_told_that_the_other_fills_the_disk(
    hub: FakeHub, space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither had told its size when the other one asked for it: both began, and both ended at a full disk."""
    usage = SimpleNamespace(total=10**9, used=10**9 - 400_000, free=400_000)  # each needs 1.1 * 262,190 bytes
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    both, at_once = threading.Barrier(2, timeout=30), download.fetch

    def fetch(*asked: Any, **how: Any) -> Path:
        both.wait()  # both were begun, and what the disk is to take is known of neither
        return at_once(*asked, **how)

    monkeypatch.setattr(download, "fetch", fetch)
    hub.stall_after = CHUNK
    app = Downloads(space)
    for repo in (REPO, OTHER):
        app.start(repo)
    app.begin()
    wait_until(lambda: "failed" in (state(app), state(app, OTHER)))
    refused, goes_on = (REPO, OTHER) if state(app) == "failed" else (OTHER, REPO)
    row = app.row(refused)
    assert row is not None and row.message is not None and row.message.key == "hub.disk_full_by_others"
    monkeypatch.setattr(download, "fetch", at_once)
    hub.release.set()
    until(app, "done", goes_on)
    app.close()


def test_a_mistake_of_ours_ends_a_download_once_and_a_person_may_try_again(
    hub: FakeHub, app: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was begun anew each 0.3 s, each time with a traceback in the log and no word on the page."""
    errors: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda said: errors.append(said.exc_value))
    with monkeypatch.context() as broken:
        broken.setattr(download, "fetch", lambda *asked, **how: {}["an error in this app"])
        app.start(REPO)
        row = until(app, "failed")
        assert row is not None and row.message is not None and row.message.key == "downloads.mistake"
    wait_until(lambda: len(errors) == 1)  # the log has it once, with its place
    app.resume(REPO)
    until(app, "done")


def test_a_file_beyond_what_a_hub_gives_over_plain_http_is_a_sentence(
    hub: FakeHub, app: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE", 100_000)  # 50 GB
    app.start(REPO)
    row = until(app, "failed")
    assert row is not None and row.message is not None and row.message.key == "hub.too_large_without_xet"
    assert row.message.params["file"] == WEIGHTS and hub.file_requests(WEIGHTS) == []


def test_what_the_config_tells_is_refused_before_the_weights(hub: FakeHub, space: Workspace) -> None:
    def accept(repo: str, folder: Path) -> None:
        raise ModelError("model.no_text", model=repo, model_type="clip", installed="5", saved="5")

    downloads = Downloads(space, accept)
    downloads.begin()
    downloads.start(REPO)
    row = until(downloads, "failed")
    assert row is not None and row.message is not None and row.message.key == "model.no_text"
    assert hub.file_requests(WEIGHTS) == []


@pytest.mark.parametrize(
    ("key", "files"),
    [
        ("hub.only_gguf", {"model-Q4.gguf": b"G", "config.json": b"{}"}),
        ("hub.adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a"}),
        ("hub.diffusion", {"model_index.json": b"{}", "unet/diffusion_pytorch_model.safetensors": b"a"}),
    ],
)
def test_a_repository_that_is_no_base_fails_before_any_file(
    hub: FakeHub, app: Downloads, key: str, files: dict[str, bytes]
) -> None:
    hub.repos[REPO] = files
    app.start(REPO)
    row = until(app, "failed")
    assert row is not None and row.message is not None and row.message.key == key and hub.file_requests() == []


def test_a_typo_names_the_nearest(hub: FakeHub, space: Workspace) -> None:
    known = ["Qwen/Qwen3-4B", "Qwen/Qwen3-8B", "google/gemma-4-E4B-it"]
    downloads = Downloads(space, known=known)
    downloads.begin()
    downloads.start("Qwen/Qwen-3-4B")
    row = until(downloads, "failed", "Qwen/Qwen-3-4B")
    assert row is not None and row.message is not None and row.message.key == "downloads.missing_near"
    assert "Qwen/Qwen3-4B" in str(row.message) and "gemma" not in str(row.message)
    assert nearest("someone/gemma-4-e4b-it", known) == ["google/gemma-4-E4B-it"] and nearest("a/b", known) == []


def test_what_is_not_in_the_list_is_said_with_what_is(hub: FakeHub, space: Workspace) -> None:
    downloads = Downloads(space)
    downloads.start(OTHER)
    for ask in (downloads.pause, downloads.resume, downloads.cancel):
        with pytest.raises(ModelError) as caught:
            ask(REPO)
        assert caught.value.message.key == "downloads.not_there" and OTHER in str(caught.value)
    with pytest.raises(ModelError):
        downloads.start("no name")


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"downloads": 5}', '{"downloads": [5, {"repo": "../..", "revision": "main", "asked": 1}]}'],
)
def test_a_file_that_says_nothing_of_use_is_no_row_and_stops_nobody(
    hub: FakeHub, space: Workspace, content: str
) -> None:
    (space.root / "downloads.json").write_text(content)
    downloads = Downloads(space)
    assert downloads.rows() == []
    downloads.begin()
    downloads.start(REPO)
    until(downloads, "done")
