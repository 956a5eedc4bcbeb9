"""Real llama.cpp under faults: killed and cancelled while its quantiser and its runtime work, and a disk that it fills
up. Long forms: in the gate a script is in its place (test_chat_export.py)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core.export.exports import Exports
from core.export.llamacpp.tools import Tools
from core.messages import msg
from core.workspace import lease
from tests.faults.forking import Forker
from tests.faults.table import FaultTable
from tests.faults.test_chat_export import LOAD_S, Exporting, Place, place, run_instead
from tests.kit.files import tools_of_cache
from tests.kit.waits import wait_until
from tests.process.conftest import tools

__all__ = ["place", "tools"]  # fixtures
pytestmark = [
    pytest.mark.slow,
    pytest.mark.full,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks workers: POSIX only"),
]


@pytest.fixture
def equipped(tools: Tools, place: Place) -> Place:
    if not (place.workspace.root / "tools").exists():
        tools_of_cache(place.workspace.root)
    return place


def standing(doing: str, nth: int, pid: Path) -> str:
    """For run_instead: the nth of llama.cpp's processes of this module is tests/faults/standing."""
    return (
        f"import core.export.llamacpp.child as child\nreal, asked = child.ask, []\n"
        f"def ask(module, request, *rest):\n"
        f" asked.append(module.rpartition('.')[2])\n"
        f" here = asked[-1] == {doing!r} and asked.count({doing!r}) == {nth}\n"
        f" return real('tests.faults.standing' if here else module, request | {{'pid': {str(pid)!r}}}, *rest)\n"
        f"child.ask = ask"
    )


@pytest.mark.parametrize("how", ["killed", "cancelled"])
@pytest.mark.parametrize(
    ("kind", "doing", "nth", "what"),
    [
        ("gguf", "library", 1, "quantizes"),
        ("gguf", "questions", 1, "prompts the 16-bit file"),
        ("gguf", "questions", 2, "prompts the quantized file"),
    ],
)
def test_real_llama_cpp_ends_with_its_export_in_the_middle_of_its_work(
    kind: str, doing: str, nth: int, what: str, how: str, equipped: Place, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: FaultTable,
) -> None:  # fmt: skip
    exports, pid, run = Exports(equipped.workspace), tmp_path / "pid", equipped.run
    earlier = equipped.workspace.exports / exports.request(run, kind, "q4_k_m").name
    earlier.mkdir()
    (earlier / "export.json").write_text("{}", "utf-8")
    run_instead(monkeypatch, "core.export.export_worker", standing(doing, nth, pid))
    try:
        job = exports.start(run, kind, "q4_k_m")
        wait_until(lambda: pid.exists() and pid.read_text("utf-8") or not job.status().active, LOAD_S)
        assert job.status().active, job.status()
        theirs = psutil.Process(int(pid.read_text("utf-8")))
        assert job.status().stage == {"quantise": "quantising", "ask": "asking_llamacpp"}[doing]
        if how == "killed":
            job.process.kill()
            job.process.wait()
            wait_until(lambda: job.status().message == msg("export.went_away"))
        else:
            assert exports.cancel(job.request.name).state == "cancelled"
        theirs.wait(30)
        Exports(equipped.workspace)  # as the app does when it is started again
        assert not job.job.build.exists() and (earlier / "export.json").read_text("utf-8") == "{}"
        wait_until(lambda: not lease.is_held(equipped.workspace))
    finally:
        shutil.rmtree(earlier)
    faults.add(f"{how} while real llama.cpp {what}", f"export as {kind}")


@pytest.fixture
def small_disk(equipped: Place) -> Iterator[Path]:
    """The folder of the exports as a disk of 64 MB of its own."""
    folder = equipped.workspace.exports
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be made as root on Linux only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount here")
def test_a_disk_that_real_llama_cpp_fills_up_is_said_and_the_earlier_export_stands(
    equipped: Place, small_disk: Path, faults: FaultTable
) -> None:
    """With more and more room, so that another file each time is the one that no longer fits, until all do."""
    with Forker("tight") as forker:
        exporting = Exporting(equipped, forker, "gguf", "q4_k_m")
        assert exporting.run().code == 0, exporting.status()
        whole, stages = exporting.finished(), set()
        leaves = 96 << 10
        while True:
            ballast = small_disk / ".ballast"
            with open(ballast, "wb") as file:
                file.write(bytes(shutil.disk_usage(small_disk).free - leaves))
            trial, status = exporting.run(), exporting.status()
            ballast.unlink()
            print(leaves, trial.code, status.stage, status.message)
            assert exporting.finished() == whole and exporting.folders() == [exporting.exports.list()[0].name]
            if trial.code == 0:
                break
            assert (
                trial.code == 1
                and not status.active
                and status.message.key in ("export.disk_full", "export.went_away_full")
            ), status
            stages.add(status.stage)
            leaves = leaves * 5 // 4
    assert {"converting_gguf", "asking_llamacpp"} <= stages, stages
    faults.add("a tmpfs that real llama.cpp fills up, at: " + ", ".join(sorted(stages)), "export as gguf", 1)
