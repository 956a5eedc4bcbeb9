"""Claims about core.hub, against a hub of our own on 127.0.0.1. No test leaves this machine."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import socket
import threading
import time
import traceback
from collections import namedtuple
from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import ModelError, StopRequested
from core.hub import cached, download, partial_file, peek, transfer
from core.progress import Progress
from tests.kit.fetching import fetch_here, incomplete
from tests.kit.hub import CHUNK, FakeHub, commit_of, tiny_model
from tests.kit.ports import free_port
from tests.kit.waits import wait_until
from tests.unit.hub.conftest import SECRET

REPO = "owner/model"


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    fetch_here(monkeypatch)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def ignore(*_: object) -> None: ...


def get(server: FakeHub | str, cache: Path, revision: str | None = None, report=ignore, check=ignore) -> Path:
    url = server if isinstance(server, str) else server.url
    return download.fetch(REPO, revision, report, check, endpoint=url, cache_dir=cache)


def refusal(server: FakeHub | str, cache: Path, revision: str | None = None) -> ModelError:
    with pytest.raises(ModelError) as caught:
        get(server, cache, revision)
    assert "{" not in str(caught.value), "a placeholder got no value"
    assert "\n" not in str(caught.value)
    return caught.value


def stop_when(event: threading.Event, cache=None, least: int = 0):
    """least: bytes that must have come into the cache by then."""

    def check() -> None:
        if event.is_set() and (not least or incomplete(cache) >= least):
            raise StopRequested

    return check


def partials(cache: Path) -> list[Path]:
    return list(cache.rglob("*.incomplete"))


# --- a download that goes well


def test_every_needed_file_arrives_byte_identical_and_nothing_else_does(cache):
    expected = tiny_model() | {"chat_template.jinja": b"{{ m }}", "vocab.json": b"{}", "LICENSE.txt": b"MIT"}
    unwanted = ("pytorch_model.bin", "modeling.py", "LICENSE.py", "consolidated.safetensors", "original/model.pth")
    unwanted += ("onnx/model.onnx", "model-Q4.gguf", "training_args.bin", "original/model.safetensors")
    files = expected | dict.fromkeys(unwanted, b"unwanted")
    with FakeHub({REPO: files}) as server:
        folder = get(server, cache)
        assert {asked.split("/")[-1] for asked in server.file_requests()} <= expected.keys()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
    assert folder.name == commit_of(files)
    assert not partials(cache)


def test_a_sharded_model_brings_its_index_and_exactly_the_shards_it_names(cache):
    files = tiny_model(shards=3) | {"model-00009-of-00009.safetensors": b"stray", "consolidated.safetensors": b"again"}
    with FakeHub({REPO: files}) as server:
        folder = get(server, cache)
    names = {path.name for path in folder.glob("*.safetensors*")}
    assert names == {"model.safetensors.index.json", *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3))}


def test_progress_never_falls_and_reaches_the_total_of_all_needed_files(cache):
    files = tiny_model(shards=2)
    reports: list[Progress] = []
    with FakeHub({REPO: files}) as server:
        server.stall_after = 4 * CHUNK

        def report(progress: Progress) -> None:
            reports.append(progress)
            if progress.done:  # the first may come before the first byte
                server.release.set()

        get(server, cache, report=report)
    total = sum(map(len, files.values()))
    assert {(p.total, p.unit) for p in reports} == {(total, "bytes")}
    assert reports[-1].done == total
    assert any(0 < p.done < total for p in reports)
    assert [p.done for p in reports] == sorted(p.done for p in reports)


def test_huggingface_hub_and_transformers_find_the_snapshot_offline(cache):
    from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache

    with FakeHub({REPO: tiny_model()}) as server:
        folder = get(server, cache)
    assert try_to_load_from_cache(REPO, "config.json", cache_dir=cache) == str(folder / "config.json")
    assert snapshot_download(REPO, cache_dir=cache, local_files_only=True) == str(folder)
    info = scan_cache_dir(cache)
    assert not info.warnings and [repo.repo_id for repo in info.repos] == [REPO]


def test_without_symlinks_the_files_themselves_lie_in_the_snapshot(cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_SYMLINKS", True)
    with FakeHub({REPO: tiny_model()}) as server:
        folder = get(server, cache)
        assert not any(path.is_symlink() for path in folder.iterdir())
        before = len(server.requests)
        assert get(server, cache) == folder
        assert len(server.requests) == before


def test_weights_come_from_a_redirect_that_never_sees_the_token(cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    files = tiny_model()
    with FakeHub({REPO: files}) as server, FakeHub({REPO: files}) as cdn:
        server.cdn = f"http://localhost:{cdn.port}"
        folder = get(server, cache)
        assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert set(server.tokens) == {f"Bearer {SECRET}"}
        assert cdn.tokens == [None]


# --- already here


def test_the_second_fetch_asks_nothing_and_works_with_the_hub_gone(cache):
    with FakeHub({REPO: tiny_model(shards=2)}) as server:
        folder = get(server, cache)
        before = len(server.requests)
        assert get(server, cache) == folder
        assert get(server, cache, revision=folder.name) == folder
        assert len(server.requests) == before
    assert get(server.url, cache) == folder


def test_a_branch_that_moved_on_does_not_change_a_complete_model(cache):
    with FakeHub({REPO: tiny_model()}) as server:
        folder = get(server, cache)
        server.repos[REPO] = tiny_model(weights=b"other")
        assert get(server, cache) == folder
        newer = get(server, cache, revision=commit_of(server.repos[REPO]))
        assert newer != folder and (newer / "model.safetensors").read_bytes() == b"other"


def test_another_tools_snapshot_is_completed_online_and_used_as_it_is_offline(cache):
    """A loader that took only weights and tokenizer leaves no chat template: training would use another template."""
    files = tiny_model() | {"chat_template.jinja": b"{{ messages }}"}
    with FakeHub({REPO: files}) as server:
        folder = get(server, cache)
        (folder / "chat_template.jinja").unlink()
        for listing in cache.glob("*/trees/*.json"):
            listing.unlink()
        _forget_listings()
        assert get(f"http://127.0.0.1:{free_port()}", cache) == folder
        server.repos[REPO] = files | {"README.md": b"newer"}
        assert not (folder / "chat_template.jinja").exists()
        server.repos[REPO] = files
        assert get(server, cache) == folder
        assert (folder / "chat_template.jinja").read_bytes() == b"{{ messages }}"
        assert len(server.file_requests("model.safetensors")) == 1


def test_the_files_of_a_processor_come_too_and_a_snapshot_of_before_is_whole_without_them(cache):
    """They were left behind: what was merged into a model that sees had no processor to be asked with."""
    with FakeHub({REPO: tiny_model() | {"preprocessor_config.json": b"{}"}}) as server:
        folder = get(server, cache)
        assert (folder / "preprocessor_config.json").read_bytes() == b"{}"
        (folder / "preprocessor_config.json").unlink()
        _forget_listings()
        assert (
            get(f"http://127.0.0.1:{free_port()}", cache) == folder
            and not (folder / "preprocessor_config.json").exists()
        )


def _forget_listings() -> None:
    from huggingface_hub import _tree_cache

    _tree_cache._IN_MEMORY_TREE_CACHE.clear()


def test_a_missing_shard_is_noticed_and_only_it_is_fetched(cache):
    with FakeHub({REPO: tiny_model(shards=3)}) as server:
        folder = get(server, cache)
        lost = folder / "model-00002-of-00003.safetensors"
        lost.resolve().unlink()
        server.requests.clear()
        assert get(server, cache) == folder
        assert [asked.split("/")[-1] for asked in server.file_requests()] == [lost.name]


def test_a_file_cut_short_by_a_crash_is_fetched_again(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        folder = get(server, cache)
        (folder / "model.safetensors").resolve().write_bytes(b"")
        get(server, cache)
        assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_installed_lists_complete_safetensors_models_only(cache):
    assert cached.installed(cache) == []
    others = {"a/whole": tiny_model(), "b/sharded": tiny_model(shards=2), "c/lost": tiny_model(shards=2)}
    with FakeHub(others) as server:
        folders = {
            repo: download.fetch(repo, None, ignore, ignore, endpoint=server.url, cache_dir=cache) for repo in others
        }
    (folders["c/lost"] / "model-00001-of-00002.safetensors").unlink()
    (cache / "models--gpt2" / "snapshots").mkdir(parents=True)
    (cache / "datasets--d--e").mkdir()
    assert cached.installed(cache) == ["a/whole", "b/sharded"]


# --- stopping, breaking off, going on


def test_a_stopped_download_goes_on_where_it_was_and_is_byte_identical(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.stall_after = 5 * CHUNK
        with pytest.raises(StopRequested):
            get(server, cache, check=stop_when(server.stalled, cache, 1))
        server.release.set()
        size_here = incomplete(cache)
        assert 0 < size_here <= 5 * CHUNK
        server.stall_after = None
        server.requests.clear()
        folder = get(server, cache)
        assert [asked.split()[-1] for asked in server.file_requests("model.safetensors")] == [f"bytes={size_here}-"]
        assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_stop_before_the_hub_has_answered_at_all(cache):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()

        def check() -> None:
            raise StopRequested

        with pytest.raises(StopRequested):
            get(f"http://127.0.0.1:{silent.getsockname()[1]}", cache, check=check)
        assert time.monotonic() - started < 2


def test_a_connection_that_drops_is_taken_up_again_in_the_same_call(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.drop_after, server.drops_left = 3 * CHUNK, 2
        folder = get(server, cache)
        assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert len(server.file_requests("model.safetensors")) == 3


def test_a_server_that_ignores_ranges_does_not_double_the_file(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.drop_after, server.drops_left, server.ignores_ranges = 3 * CHUNK, 1, True
        folder = get(server, cache)
        assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_line_that_stays_broken_is_reported_with_both_numbers_and_the_next_call_goes_on(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.drop_after, server.drops_left = 0, 10**6
        error = refusal(server, cache)
        assert error.message.key == "hub.interrupted"
        assert "of 262.2 kB" in str(error.message)
        server.drop_after = None
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_partial_file_of_wrong_bytes_is_caught_by_its_sha256_and_thrown_away(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.corrupt = True
        assert refusal(server, cache).message.key == "hub.damaged"
        server.corrupt = False
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_partial_file_longer_than_the_weights_is_started_anew(cache):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.stall_after = CHUNK
        with pytest.raises(StopRequested):
            get(server, cache, check=stop_when(server.stalled, cache, 1))
        server.release.set()
        server.stall_after = None
        max(partials(cache), key=lambda path: path.stat().st_size).write_bytes(bytes(300_000))
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]


@pytest.mark.parametrize("content", [b"short", bytes(300_000)], ids=["shorter", "longer"])
@pytest.mark.parametrize("told", [True, False], ids=["said beforehand", "seen on the way"])
def test_another_file_than_the_hub_named_is_refused_and_thrown_away(cache, monkeypatch, content, told):
    files = tiny_model()
    if not told:  # a mirror that tells no size
        monkeypatch.setattr(transfer.Transfer, "_head", lambda self, found, file: None)
    with FakeHub({REPO: files}) as server:
        server.instead = content
        error = refusal(server, cache)
        assert error.message.key == "hub.other_file" and "model.safetensors" in str(error) and "262.2 kB" in str(error)
        weights = hashlib.sha256(files["model.safetensors"]).hexdigest()
        assert cached.installed(cache) == [] and not any(
            path.stat().st_size for path in partials(cache) if path.name.startswith(weights)
        )
        if told:
            assert server.file_requests("model.safetensors") == []
        server.instead = None
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_server_that_never_ends_fills_no_disk(tmp_path):
    with partial_file.PartialFile(tmp_path / "blob.incomplete", 10, ignore) as partial:
        partial.write(b"12345")
        with pytest.raises(partial_file.TooLong):
            partial.write(b"678901")
        assert (tmp_path / "blob.incomplete").read_bytes() == b"12345"


def test_several_files_are_on_their_way_at_once(cache):
    files = tiny_model(shards=3)
    with FakeHub({REPO: files}) as server:
        server.stall_after = CHUNK
        growing_now: list[int] = []

        def check() -> None:
            with suppress(FileNotFoundError):  # one has arrived, and its name with it
                growing_now.append(sum(path.stat().st_size == CHUNK for path in partials(cache)))
                if growing_now[-1] == 3:
                    server.release.set()

        folder = get(server, cache, check=check)
    assert 3 in growing_now and {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_file_that_another_tool_fetches_just_now_is_waited_for_and_not_fetched_twice(cache):
    from huggingface_hub.utils import WeakFileLock

    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.stall_after = CHUNK
        with pytest.raises(StopRequested):
            get(server, cache, check=stop_when(server.stalled, cache, 1))
        server.release.set()
        server.stall_after = None
        # Here the transfer that was left is a thread, not a process that is killed: http_get may ask once more.
        wait_until(lambda: not any(thread.name.startswith("hub-file") for thread in threading.enumerate()), 60)
        blob = cached.CachedRepo(REPO, cache).folder / "blobs" / hashlib.sha256(files["model.safetensors"]).hexdigest()
        assert partial_file.path_of(blob) in partials(cache)
        server.requests.clear()
        with WeakFileLock(cached.CachedRepo(REPO, cache).lock_of(blob.name)):
            blob.write_bytes(files["model.safetensors"])  # as huggingface_hub would, under this lock
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert server.file_requests("model.safetensors") == []


# --- the hub's own storage


@pytest.fixture
def store(tmp_path):
    """A store of hf_xet's own on this disk, with the weights of tiny_model in it: (address, hash)."""
    hf_xet = pytest.importorskip("hf_xet")
    weights, address = tmp_path / "weights", f"local://{tmp_path / 'store'}"
    weights.write_bytes(tiny_model()["model.safetensors"])
    with hf_xet.XetSession().new_upload_commit(endpoint=address) as commit:
        upload = commit.start_upload_file(str(weights))
    return address, upload.result().xet_info.hash


def test_weights_come_from_xet_and_not_over_http_where_the_hub_has_them_there(cache, store):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.xet_at, server.xet["model.safetensors"] = store
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert server.file_requests("model.safetensors") == []


def test_what_came_over_http_is_gone_on_with_from_xet(cache, store):
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.stall_after = 5 * CHUNK
        with pytest.raises(StopRequested):
            get(server, cache, check=stop_when(server.stalled, cache, 5 * CHUNK))
        server.release.set()
        server.stall_after, (server.xet_at, server.xet["model.safetensors"]) = None, store
        server.requests.clear()
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert server.file_requests("model.safetensors") == []


def test_a_store_that_gives_nothing_costs_no_download(cache, store):
    """Behind a mirror or a firewall the hub's storage may not be reached: huggingface_hub would end here."""
    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        server.xet_at, server.xet["model.safetensors"] = store[0], "0" * 64
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert len(server.file_requests("model.safetensors")) == 1


# --- refused before any weight


@pytest.mark.parametrize(
    ("key", "files"),
    [
        ("hub.only_pickles", {"config.json": b"{}", "pytorch_model.bin": b"p", "tokenizer.json": b"{}"}),
        ("hub.only_gguf", {"model-Q4_K_M.gguf": b"GGUF", "config.json": b"{}"}),
        ("hub.adapter", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a"}),
        ("hub.other_weights", {"params.json": b"{}", "consolidated.safetensors": b"c", "tokenizer.model": b"t"}),
        ("hub.no_weights", {"README.md": b"soon"}),
        ("hub.no_config", {"model.safetensors": b"w", "tokenizer.json": b"{}"}),
        ("hub.no_tokenizer", {"model.safetensors": b"w", "config.json": b"{}"}),
    ],
)
def test_a_repository_without_usable_weights_is_refused_unasked_for_any_file(cache, key, files):
    with FakeHub({REPO: files}) as server:
        error = refusal(server, cache)
        assert error.message.key == key and REPO in str(error)
        assert server.file_requests() == []


@pytest.mark.parametrize(
    ("key", "files"),
    [
        ("hub.only_gguf_of", {"model-Q4_K_M.gguf": b"GGUF"}),
        ("hub.adapter_of", {"adapter_config.json": b"{}", "adapter_model.safetensors": b"a"}),
    ],
)
def test_what_was_made_from_another_model_names_it_before_and_at_the_download(cache, key, files):
    """A page of the form said that there is no config.json, and left it to the person to find out why."""
    with FakeHub({REPO: files}) as server:
        server.rows = [{"id": REPO, "tags": ["base_model:Qwen/Qwen3-4B"]}]
        assert refusal(server, cache).message.params["base"] == "Qwen/Qwen3-4B"
        with pytest.raises(ModelError) as caught:
            peek.fetch_config(REPO, None, server.url, cache)
        assert caught.value.message.key == key and "Qwen/Qwen3-4B" in caught.value.message.render("zh")


@pytest.mark.parametrize("shard", ["missing.safetensors", "../../../evil.safetensors", "pytorch_model.bin"])
def test_an_index_that_names_what_is_not_a_shard_here_is_refused(cache, shard):
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    files = tiny_model(shards=1) | {"model.safetensors.index.json": index, "pytorch_model.bin": b"p"}
    with FakeHub({REPO: files}) as server:
        error = refusal(server, cache)
        assert error.message.key == "hub.missing_shard" and shard in str(error)
        assert not server.file_requests(".safetensors") and not server.file_requests(".bin")


def test_too_little_disk_is_said_with_both_numbers_before_the_weights(cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 100_000, 100_000))
    with FakeHub({REPO: tiny_model()}) as server:
        error = refusal(server, cache)
        assert error.message.key == "hub.disk_full"
        assert "needs 288.4 kB" in str(error.message)  # 1.1 * (262,144 weights + 36 around them)
        assert "only 100.0 kB are free" in str(error.message)
        assert [asked.rsplit("/", 1)[-1] for asked in server.file_requests()] == [
            "config.json"
        ]  # what the model needs is asked first


def test_what_is_already_here_needs_no_disk(cache, monkeypatch):
    with FakeHub({REPO: tiny_model()}) as server:
        server.stall_after = 15 * CHUNK
        with pytest.raises(StopRequested):
            get(server, cache, check=stop_when(server.stalled, cache, 10 * CHUNK))
        server.release.set()
        server.stall_after = None
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 200_000, 200_000))
        get(server, cache)


def test_a_disk_that_fills_at_ninety_percent_is_said_keeps_what_came_and_goes_on_from_there(cache, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    write, size = partial_file.PartialFile.write, 2 << 17  # of the weights

    def until_full(self, chunk: bytes) -> int:
        if self.size >= 0.9 * size:
            raise full
        return write(self, chunk)

    files = tiny_model()
    with FakeHub({REPO: files}) as server:
        monkeypatch.setattr(partial_file.PartialFile, "write", until_full)
        error = refusal(server, cache)
        assert error.message.key == "hub.disk_full_midway" and "262.2 kB" in str(error)
        size_here = incomplete(cache)
        assert size_here >= 0.9 * size and cached.installed(cache) == []
        monkeypatch.setattr(partial_file.PartialFile, "write", write)
        server.requests.clear()
        assert (get(server, cache) / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert [asked.split()[-1] for asked in server.file_requests("model.safetensors")] == [f"bytes={size_here}-"]


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with FakeHub({REPO: tiny_model()}) as server:
        assert refusal(server, blocked / "cache").message.key == "hub.cannot_write"


# --- what a hub may answer


def test_a_gated_model_names_its_licence_page_and_how_to_log_in(cache):
    with FakeHub({REPO: tiny_model()}) as server:
        server.gated = True
        error = refusal(server, cache)
        assert error.message.key == "hub.gated"
        assert f"{server.url}/{REPO}" in str(error) and "hf auth login" in str(error) and "HF_TOKEN" in str(error)
        assert server.file_requests(".safetensors") == []


def test_a_gated_model_with_a_token_says_that_the_token_is_not_accepted_yet(cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with FakeHub({REPO: tiny_model()}) as server:
        server.gated = True
        assert refusal(server, cache).message.key == "hub.gated_token"


def test_a_stale_token_does_not_lock_out_open_models(cache, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with FakeHub({REPO: tiny_model()}) as server:
        server.bad_tokens = True
        assert get(server, cache).is_dir()
        server.status = 401
        assert refusal(server, cache, revision="v2").message.key == "hub.bad_token"


@pytest.mark.parametrize(
    ("status", "headers", "key"),
    [
        (429, {}, "hub.rate_limit"),
        (429, {"Retry-After": "120"}, "hub.rate_limit_until"),
        (429, {"ratelimit": '"api";r=0;t=55'}, "hub.rate_limit_until"),
        (500, {}, "hub.server_trouble"),
        (503, {}, "hub.server_trouble"),
        (401, {}, "hub.gated"),
        (403, {}, "hub.gated"),
        (404, {}, "hub.missing"),
        (418, {}, "hub.refused"),
    ],
)
@pytest.mark.parametrize("where", ["status", "file_status"])
def test_a_status_becomes_a_sentence_from_the_listing_and_from_a_file(cache, where, status, headers, key):
    with FakeHub({REPO: tiny_model()}) as server:
        setattr(server, where, status)
        server.headers = headers
        error = refusal(server, cache)
        assert error.message.key == key
        seconds = {"Retry-After": 120, "ratelimit": 55}
        assert error.message.params.get("seconds") == next((seconds[name] for name in headers), None)


def test_a_missing_model_is_said(cache):
    with FakeHub({}) as server:
        server_says_missing = refusal(server, cache)
    assert server_says_missing.message.key == "hub.missing" and REPO in str(server_says_missing)


def test_a_missing_revision_is_said(cache):
    with FakeHub({REPO: tiny_model()}) as server:
        error = refusal(server, cache, revision="v9")
    assert error.message.key == "hub.no_revision" and "v9" in str(error)


def test_a_page_that_is_no_hub_is_said(cache):
    with FakeHub({REPO: tiny_model()}) as server:
        for body in (b"<html>Please sign in</html>", b"[]", b"{}", b'{"id": "owner/model", "sha": "../.."}'):
            server.body = body
            assert refusal(server, cache).message.key == "hub.not_a_hub"


def test_no_network_is_said(cache):
    error = refusal(f"http://user:{SECRET}@127.0.0.1:{free_port()}", cache)
    assert error.message.key == "hub.no_network" and SECRET not in str(error)


def test_offline_mode_is_said_and_serves_what_is_here(cache, monkeypatch):
    with FakeHub({REPO: tiny_model()}) as server:
        folder = get(server, cache)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        server.requests.clear()
        assert get(server, cache) == folder
        assert refusal(server, cache, revision="v2").message.key == "hub.offline_mode"
        assert server.requests == []


@pytest.mark.parametrize(
    "found",
    ["model", "a/b/c", "../b", "a/..", "a/b..c", "https://hf.co/a/b", "a/b.git", "a/-b", "a b/c", "a/b\n", ""],
)
def test_what_is_no_hub_name_is_refused_without_a_request(cache, found):
    with pytest.raises(ModelError) as caught:
        download.fetch(found, None, ignore, ignore, endpoint="http://127.0.0.1:9", cache_dir=cache)
    assert caught.value.message.key == "hub.bad_id"


@pytest.mark.parametrize("found", ["Qwen/Qwen3-0.6B", "HuggingFaceTB/SmolLM2-135M-Instruct", "a/b", "0x/_x"])
def test_ordinary_names_are_hub_names(found):
    assert cached.REPO_ID.fullmatch(found)


@pytest.mark.parametrize("revision", ["../main", "a..b", "/etc", "a//b", "-x", "a b", "refs/.hidden", "main/"])
def test_a_revision_never_leaves_its_folder(cache, revision):
    assert refusal("http://127.0.0.1:9", cache, revision).message.key == "hub.bad_revision"


def test_a_pull_request_is_a_revision():
    assert all(cached.REVISION.fullmatch(name) for name in ("main", "v1.0", "refs/pr/12", "0" * 40))


def test_the_token_is_in_no_message_no_traceback_and_no_log(cache, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    caplog.set_level(logging.DEBUG)
    with FakeHub({REPO: tiny_model()}) as server:
        for knob, value in (("gated", True), ("file_status", 401), ("file_status", 500), ("status", 401)):
            setattr(server, knob, value)
            error = refusal(server, cache)
            assert SECRET not in "".join(traceback.format_exception(error)) + repr(error.message)
        server.gated, server.status, server.file_status = False, None, None
        get(server, cache)
        assert f"Bearer {SECRET}" in server.tokens
    assert SECRET not in caplog.text
    assert not any(SECRET.encode() in path.read_bytes() for path in cache.rglob("*") if path.is_file())
