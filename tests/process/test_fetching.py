"""The process that fetches a model is killed: by a stop, from outside, with its parent. What it had is gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from types import SimpleNamespace

import psutil
import pytest

from core.errors import DataError, ModelError, StopRequested
from core.hub import cached, download, hub_errors
from core.hub.sets import fetching
from core.hub.sets.name import PartName
from core.progress import Progress
from core.system.lines import Child
from tests.kit import hub_sets
from tests.kit.fetching import incomplete
from tests.kit.hub import FakeHub, tiny_model
from tests.kit.waits import wait_until

REPO = "owner/model"
WEIGHTS = bytes(range(256)) * (16 << 10)  # 4 MiB, so that a step of the worker's is a part of it
STALL = 2 << 20


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Its weights stop flowing in their middle."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with FakeHub({REPO: tiny_model(b"\x02" + bytes(7) + b"{}" + WEIGHTS)}) as server:
        server.stall_after = STALL
        yield server


def workers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if is_worker(each)]


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it has ended meanwhile
        return download.WORKER in process.cmdline()
    return False


def assert_goes_on(hub: FakeHub, cache: Path) -> None:
    """Nothing of what had come is asked for again, though the hub still holds the old connection."""
    came = incomplete(cache)
    assert STALL - (256 << 10) <= came <= STALL and cached.installed(cache) == []
    hub.stall_after = None
    hub.requests.clear()
    folder = download.fetch(REPO, None, lambda progress: None, lambda: None, endpoint=hub.url, cache_dir=cache)
    assert [asked.split()[-1] for asked in hub.file_requests("model.safetensors")] == [f"bytes={came}-"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == hub.repos[REPO]
    assert not list(cache.rglob("*.incomplete"))


def test_a_stop_kills_the_process_on_a_silent_server_and_the_next_download_goes_on(
    hub: FakeHub, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    processes: list[psutil.Process] = []

    def check() -> None:
        if hub.stalled.is_set() and incomplete(cache) >= STALL - (256 << 10):
            processes.extend(workers())
            raise StopRequested

    with pytest.raises(StopRequested):
        download.fetch(REPO, None, lambda progress: None, check, endpoint=hub.url, cache_dir=cache)
    assert processes and not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)
    assert_goes_on(hub, cache)


def test_a_process_that_is_killed_is_said_and_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    errors: list[ModelError] = []

    def work() -> None:
        with pytest.raises(ModelError) as caught:
            download.fetch(REPO, None, lambda progress: None, lambda: None, endpoint=hub.url, cache_dir=cache)
        errors.append(caught.value)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: hub.stalled.is_set() and incomplete(cache) >= STALL - (256 << 10))
    for each in workers():
        with suppress(psutil.NoSuchProcess):  # on Windows a venv's python.exe takes the one that it started with it
            each.kill()
    thread.join(30)
    assert [error.message.key for error in errors] == ["hub.ended"]
    assert_goes_on(hub, cache)


def test_it_ends_with_whoever_started_it_and_frees_the_model(hub: FakeHub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    child, ended = Child(download.WORKER), Queue[int]()
    lines = Queue[dict]()
    child.listen(lines.put, ended.put)
    child.send(repo=REPO, revision="main", resolved="main", endpoint=hub.url, cache=str(cache))
    for question in ("config", "missing"):
        assert question in lines.get(timeout=30)
        child.send(go=True)
    wait_until(lambda: hub.stalled.is_set() and incomplete(cache) >= STALL - (256 << 10))
    child.close()  # what the system does to the pipe of a parent that was killed
    assert ended.get(timeout=30) == 1
    assert_goes_on(hub, cache)


def test_a_part_of_a_data_set_goes_on_after_its_process_was_killed_and_its_first_rows_need_no_more(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": f"{i}?", "answer": random.Random(i).randbytes(1_000).hex()} for i in range(2_500)]
    hub_sets.put_parts(hub, "owner/set", {"default/train": [rows]}, group=500)
    monkeypatch.setattr(hub_errors, "constants", SimpleNamespace(**vars(hub_errors.constants) | {"ENDPOINT": hub.url}))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    part, here, killed = PartName("owner/set", "default", "train"), tmp_path / "entry", []

    def check() -> None:
        if not killed and hub.stalled.is_set() and incomplete(here) >= STALL - (256 << 10):
            killed.extend(workers())
            for each in killed:
                with suppress(psutil.NoSuchProcess):
                    each.kill()

    with pytest.raises(DataError) as caught:
        fetching.fetch(part, here, lambda progress: None, check, lambda missing, total: None)
    assert killed and caught.value.message.key == "hub.ended"
    came, hub.stall_after = incomplete(here), None
    hub.requests.clear()
    fetched = fetching.fetch(part, here, lambda progress: None, lambda: None, lambda missing, total: None)
    assert [asked.split()[-1] for asked in hub.file_requests(".parquet") if "bytes" in asked] == [f"bytes={came}-"]
    assert [json.loads(line) for line in fetched.files[0].open("rb")] == rows

    reports: list[Progress] = []
    first = fetching.fetch(
        PartName("owner/set", "default", "train", 700),
        tmp_path / "first",
        reports.append,
        lambda: None,
        lambda missing, total: None,
    )
    assert [json.loads(line) for line in first.files[0].open("rb")] == rows[:700]
    assert (reports[-1].done, reports[-1].total, reports[-1].unit) == (700, 700, "rows")


def hears_ctrl_c() -> None:
    """As in a terminal: a shell that starts the tests in the background has its children ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.spawn
@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a console, not to a process")
def test_ctrl_c_pauses_the_command_and_the_next_download_goes_on(hub: FakeHub, tmp_path: Path) -> None:
    cache, space = tmp_path / "cache", tmp_path / "ws"
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache),
        "HF_HOME": str(tmp_path),
        "LORA_GARAGE_HOME": str(space),
    }
    command = [sys.executable, "-m", "core.commands", "models", "download", REPO]
    process = subprocess.Popen(
        command, env=os.environ | environment, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=hears_ctrl_c
    )
    wait_until(lambda: hub.stalled.is_set() and incomplete(cache) >= STALL - (256 << 10), 60)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 4 and b"run the same command" in error
    assert_goes_on(hub, cache)
