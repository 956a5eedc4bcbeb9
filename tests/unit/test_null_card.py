"""What the null card (tests/card) says where it cannot be made, and its record, as far as they need no CUDA build of
torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.card import card, record
from tests.card.__main__ import files_of, main
from tests.card.card import NotPossible, NullCard
from tests.card.record import Counts, Line

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the null card is for Linux")


@pytest.fixture
def null_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NullCard:
    """On a PC that has what its build needs."""
    monkeypatch.setattr(card.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/bin/{tool}")
    return NullCard(tmp_path / "card")


def test_without_a_compiler_the_package_is_named(null_card: NullCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "gcc" else f"/usr/bin/{tool}")
    with pytest.raises(NotPossible, match="no gcc: install Debian's build-essential"):
        null_card.ready()


def test_on_another_system_it_says_for_which_it_is(null_card: NullCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card.platform, "machine", lambda: "aarch64")
    with pytest.raises(NotPossible, match="for Linux on x86-64; this is linux on aarch64"):
        null_card.ready()


def test_a_full_disk_is_named_with_both_numbers(null_card: NullCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3.1e9))
    with pytest.raises(NotPossible, match=r"needs 4 GB .* 3\.1 GB are free"):
        null_card.ready()
    assert not null_card.venv.exists()


def test_a_wheel_that_cannot_be_had_is_told_in_pips_words_and_tried_again(
    null_card: NullCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def run(command: list[str], **options: Any) -> SimpleNamespace:
        calls.append(command)
        return SimpleNamespace(returncode=int("pip" in command), stderr="a warning\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=9e9))
    for _ in range(2):
        with pytest.raises(
            NotPossible, match="could not install the CUDA build of torch: ERROR: No matching distribution"
        ):
            null_card.ready()
    assert sum("pip" in command for command in calls) == 2


def test_a_function_of_a_library_that_is_not_known_is_named(tmp_path: Path) -> None:
    card.write_stubs({"cublasNewGemm", "cudaMalloc"}, tmp_path)
    assert "cublasNewGemm" in (tmp_path / "libcublas.c").read_text()
    with pytest.raises(NotPossible, match="nvJitLinkCreate"):
        card.write_stubs({"nvJitLinkCreate"}, tmp_path)


@pytest.mark.skipif(not shutil.which("gcc") or not shutil.which("readelf"), reason="needs gcc")
def test_a_library_that_is_not_known_is_named(null_card: NullCard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer torch brings libcudart.so.14, or a library that no torch before asked for."""
    lib = null_card.packages / "torch/lib"
    lib.mkdir(parents=True)
    for soname in ("libcudart.so.14", "libcublas.so.13", "libgomp.so.1"):
        subprocess.run(
            ["gcc", "-shared", f"-Wl,-soname,{soname}", "-x", "c", "/dev/null", "-o", lib / soname], check=True
        )
    linked = [lib / soname for soname in ("libcudart.so.14", "libcublas.so.13", "libgomp.so.1")]
    subprocess.run(
        [
            "gcc",
            "-shared",
            "-Wl,--no-as-needed",
            "-x",
            "c",
            "/dev/null",
            "-x",
            "none",
            *linked,
            "-o",
            lib / "libtorch.so",
        ],
        check=True,
    )
    monkeypatch.setattr(card, "bitsandbytes_library", lambda: lib / "libtorch.so")
    with pytest.raises(NotPossible, match=r"needs libcudart\.so\.14, which"):
        null_card._build()


def test_what_processes_report_is_summed_and_the_largest_peak_counts() -> None:
    report = """process 1 launches 7
call 3 cudaStreamSynchronize
call 9 cudaMalloc
call 2 copy H2D blocking
kernel 4 void at::native::add
kernel 3 gemm
peak 1048576
process 2 launches 1
kernel 1 gemm
peak 4194304
"""
    assert Counts.of_report(report) == Counts(launches=8, waits=5, peak_bytes=4 << 20)
    assert Counts.of_report("") == Counts()


def test_the_record_says_first_what_it_cannot_show(tmp_path: Path) -> None:
    lines = [
        Line("tests/card/test_x.py::test_a_run_learns[qlora]", "passed", 61.2, Counts(12_345, 67, 350 << 20)),
        *(Line(f"tests/card/test_x.py::test_a_sum[{n}]", "passed", 0.5, Counts(2, 1, n << 20)) for n in range(8)),
        Line("tests/card/test_x.py::test_liger", "skipped", 0.1, Counts(), "liger-kernel is not installed"),
    ]
    kept = tmp_path / "tests.jsonl"
    kept.write_text("".join(json.dumps(asdict(line)) + "\n" for line in lines), "utf-8")
    assert Line.read(kept) == lines
    page = record.page("torch 2, today, abc", ["tests/card/test_x.py"], lines)
    assert "| `tests/card/test_x.py` | 9 | 0 | 1 | 1 | 12,361 | 75 | 350 |" in page
    assert "* skipped: liger: liger-kernel is not installed" in page and "a run learns" not in page
    assert page.index("cannot show") < page.index("torch 2, today, abc:") < page.index("| all | 9 | 0 | 1 |")


def test_a_whole_run_takes_the_journeys_and_every_file_marked_gpu() -> None:
    files = files_of([])
    assert {"tests/card/test_journeys.py", "tests/model/test_on_a_card.py", "tests/model/test_streaming.py"} <= set(
        files
    )
    with pytest.raises(NotPossible, match="test_nothing"):
        files_of(["tests/card/test_nothing.py"])
    with pytest.raises(NotPossible, match="a whole run"):
        main(["--record", "tests/card/test_journeys.py"])
