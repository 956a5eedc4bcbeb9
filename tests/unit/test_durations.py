"""What a run took becomes the share of each test, and what `check` says of the shares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.kit import durations


@pytest.fixture
def shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the gate's shares, in a folder that is the cache too."""
    monkeypatch.setenv("LORA_GARAGE_TEST_CACHE", str(tmp_path))
    monkeypatch.setattr(durations, "SHARES", {"gate": tmp_path / "gate.tsv", "full": tmp_path / "full.tsv"})
    monkeypatch.setattr(durations, "WHOLE", 1)
    (tmp_path / "durations").mkdir()
    return tmp_path / "gate.tsv"


def test_a_long_test_without_a_reason_is_named_and_a_reason_outlives_the_next_writing(
    shares: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shares.parent / "durations" / "1.tsv"
    run.write_text("# 9 s\n6.00\ta.py::test_a[1]\n3.00\ta.py::test_a[2]\n0.1\ta.py::test_b\n7\ta.py::test_c\n", "utf-8")
    shares.write_text("# 8 s\n8.0\ta.py::test_a\tit trains\n", "utf-8")
    assert durations.main([]) == 0
    assert shares.read_text("utf-8") == "# 9 s\n9.0\ta.py::test_a\tit trains\n7.0\ta.py::test_c\n"
    assert durations.main(["--check"]) == 1
    output = capsys.readouterr().out
    assert "7.0 s of a.py::test_c have no reason" in output and "test_a have" not in output


def test_what_took_three_times_its_share_is_named(shares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shares.parent / "durations" / "2.tsv"
    run.write_text("# 9 s, a sample\n31\ta.py::test_a\n7\ta.py::test_b[1]\n4.9\ta.py::test_new\n", "utf-8")
    shares.write_text("# 8 s\n10.0\ta.py::test_a\tit trains\n4.0\ta.py::test_b\n", "utf-8")
    assert durations.main(["--check"]) == 0
    output = capsys.readouterr().out
    assert "31.0 s instead of 10.0: a.py::test_a" in output and "test_b" not in output and "test_new" not in output


def test_what_a_sample_left_out_keeps_its_share_while_it_is_there(
    shares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shares.parent / "tests").mkdir()
    (shares.parent / "a.py").write_text("def test_not_drawn() -> None: ...\n", "utf-8")
    monkeypatch.setattr(durations, "TESTS", shares.parent / "tests")
    names = {"test_some_cases": 9, "test_one_case": 3, "test_quick": 1, "test_not_drawn": 4, "test_deleted": 4}
    shares.write_text("# 8 s\n" + "".join(f"{took}\ta.py::{name}\n" for name, took in names.items()), "utf-8")
    run = "# 9 s, a sample\n4\ta.py::test_some_cases[1]\n2\ta.py::test_one_case\n0.5\ta.py::test_quick[1]\n"
    (shares.parent / "durations" / "3.tsv").write_text(run, "utf-8")
    assert durations.main([]) == 0
    assert durations.kept() == {
        "a.py::test_some_cases": 9.0, "a.py::test_not_drawn": 4.0, "a.py::test_one_case": 2.0, "a.py::test_quick": 0.5,
    }  # fmt: skip


def test_what_the_tests_of_a_file_share_stands_beside_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_a.py").write_text(
        "import time, pytest\n\n"
        "@pytest.fixture(scope='module')\ndef page():\n    time.sleep(0.2)\n\n"
        "def test_first(page): pass\ndef test_second(page): pass\n",
        "utf-8",
    )
    run = (
        "import sys, pytest; from tests.kit.durations import *; "
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', sys.argv[1]], [SharedSetups(), Durations()]))"
    )
    monkeypatch.setenv(durations.FILE, str(tmp_path / "run.tsv"))
    subprocess.run([sys.executable, "-c", run, str(tmp_path)], cwd=durations.TESTS.parent, check=True)
    (setup,) = (took for took, name, _ in durations.rows(tmp_path / "run.tsv") if name.endswith("test_a.py"))
    assert setup >= 0.2


def test_what_a_test_does_for_others_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = durations.Durations()
    shared = [("session", 2.0), ("module", 1.0)]
    for when, duration, properties in (
        ("setup", 3.5, shared),
        ("call", 0.25, shared),
        ("setup", 2.0, [("module", 2.0)]),
    ):
        plugin.pytest_runtest_logreport(
            SimpleNamespace(nodeid="a.py::test_a", when=when, duration=duration, user_properties=properties)  # type: ignore[arg-type]
        )
    monkeypatch.setenv(durations.FILE, str(tmp_path / "run.tsv"))
    plugin.pytest_sessionfinish()
    assert durations.read(tmp_path / "run.tsv") == {"a.py::test_a": 0.75, "a.py": 2.0}


def test_the_full_lane_has_shares_of_its_own_from_the_files_of_its_parts(shares: Path, tmp_path: Path) -> None:
    shares.write_text("# 8 s\n1.0\ta.py::test_a\n1.0\ta.py::test_b\n", "utf-8")
    (tmp_path / "parts").mkdir()
    for name, took in (("a", 50), ("b", 0.7), ("c", 0.5)):
        (tmp_path / "parts" / f"{name}.tsv").write_text(f"# {name}\n{took}\t{name}.py::test_a[1]\n", "utf-8")
    assert durations.main([str(tmp_path / "parts")]) == 0
    assert durations.main(["--check"]) == 1, "what takes 50 s in the full lane says why too"
    assert durations.kept("full") == {"a.py::test_a": 50.0, "a.py::test_b": 1.0, "b.py::test_a": 0.7}
    assert durations.kept() == {"a.py::test_a": 1.0, "a.py::test_b": 1.0}
