"""Cores that this process may use, and standing back, with a folder in place of the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.system import cores


def usable_of(tmp_path: Path, own: str, **files: str) -> int:
    (tmp_path / "own").write_text(own, "utf-8")
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", "ascii")
    return cores.usable(tmp_path, tmp_path / "own")


@pytest.fixture
def of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu_max": "200000 100000"}, 2),
        ("0::/a/b\n", {"a__cpu_max": "150000 100000", "a__b__cpu_max": "max 100000"}, 2),  # the group around it counts
        ("0::/\n", {"cpu_max": "max 100000"}, 8),
        ("0::/\n", {"cpu_max": "5000 100000"}, 1),
        ("0::/\n", {"cpu_max": "6400000 100000"}, 8),
        ("0::/\n", {"cpu_max": "nonsense"}, 8),
        ("4:cpu,cpuacct:/x\n3:memory:/y\n", {"cpu__x__cfs_quota_us": "300000", "cpu__x__cfs_period_us": "100000"}, 3),
        ("4:cpu:/\n", {"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"}, 8),
    ],
)
def test_a_limit_of_the_control_group_below_the_cores_counts(
    tmp_path: Path, of_eight: None, own: str, files: dict[str, str], expected: int
) -> None:
    assert usable_of(tmp_path, own, **files) == expected


def test_a_system_without_control_groups_has_the_cores_that_it_is_bound_to(tmp_path: Path, of_eight: None) -> None:
    assert cores.usable(tmp_path, tmp_path / "none") == 8


def test_what_others_use_is_the_busy_cores_without_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([(0.0, 0.0), (10.0, 12.0)])
    now = [0.0, 0.0]
    monkeypatch.setattr(psutil, "cpu_percent", lambda: (now.__setitem__(slice(None), next(clock)), 50.0)[1])
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "usable", lambda: 8)
    monkeypatch.setattr(cores.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(cores.time, "process_time", lambda: now[1])
    assert cores.OtherLoad()() == pytest.approx(4.0 - 1.2)


def test_what_others_use_is_unknown_where_a_limit_hides_which_cores_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda: 8)
    monkeypatch.setattr(cores, "usable", lambda: 2)
    assert cores.OtherLoad()() is None


def test_a_process_that_stands_back_comes_after_others_for_processor_and_disk() -> None:
    # Wine knows no order at the disk
    how = "p.nice()" if os.name == "nt" else "p.nice(), getattr(p, 'ionice', lambda: 'none')()"
    script = f"import psutil\nfrom core.system import cores\ncores.lower_priority()\np = psutil.Process()\nprint({how})"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    if os.name == "nt":
        assert int(output.split()[0]) == psutil.BELOW_NORMAL_PRIORITY_CLASS
        return
    assert int(output.split()[0]) >= cores.NICENESS
    if sys.platform == "linux":
        assert "value=7" in output and "BE" in output
