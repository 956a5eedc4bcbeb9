"""CPU cores: how many this process may use, how many other programs use now, and low priority for our processes. No
torch."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OF_THIS_PROCESS = Path("/proc/self/cgroup")
NICENESS = 10  # a game on every core then gets ten times our share of each


def usable(groups: Path = CGROUPS, own: Path = OF_THIS_PROCESS) -> int:
    """Return the number of cores that this process may use, at least 1.

    Fewer than the PC has if the process is bound to some, or if a container's limit (cpu.max) is lower.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(limit) for limit in _limits(groups, own))]))


def _limits(groups: Path, own: Path) -> list[float]:
    """Return the CPU quotas, in cores, of this process's control groups and their parents: version 2's cpu.max, version
    1's quota. [] without any, and where there are no control groups."""
    limits = []
    try:
        lines = own.read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and "cpu" not in names.split(","):
            continue
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # "max", or -1: no limit
                if names:
                    quota, period = (
                        (groups / "cpu" / folder / f"cpu.cfs_{name}_us").read_text("ascii")
                        for name in ("quota", "period")
                    )
                else:
                    quota, period = (groups / folder / "cpu.max").read_text("ascii").split()
                if float(quota) > 0 < float(period):
                    limits.append(float(quota) / float(period))
    return limits


class OtherLoad:
    """Measures the cores that other programs used since the last call by the same thread.

    None if this process may not use all cores, so that the others' load may lie elsewhere, or if the system does not
    report it.
    """

    def __init__(self) -> None:
        self._all = psutil.cpu_count() or 1
        self._is_known = usable() >= self._all
        self._before = (0.0, 0.0)
        self()

    def __call__(self) -> float | None:
        """Return the mean number of cores that other programs used since the last call; None if unknown."""
        try:
            busy = psutil.cpu_percent() / 100 * self._all
        except (OSError, psutil.Error):
            return None
        before, self._before = self._before, (time.monotonic(), time.process_time())
        took, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, busy - own / took) if self._is_known and took > 0 else None


def lower_priority() -> None:
    """Lower this process's priority for CPU and disk, below the person's own programs.

    Call it before threads start, which inherit it. For the disk it is the last of the usual class, not idle: a
    checkpoint must be written on a busy disk too.
    """
    own, windows = psutil.Process(), os.name == "nt"
    with suppress(OSError, psutil.Error):
        if windows:
            own.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)  # type: ignore[attr-defined]  # Windows
            own.ionice(psutil.IOPRIO_LOW)  # type: ignore[attr-defined]  # Windows
        else:
            own.nice(max(NICENESS, int(own.nice())))
            if hasattr(psutil, "IOPRIO_CLASS_BE"):  # Linux
                own.ionice(psutil.IOPRIO_CLASS_BE, 7)
