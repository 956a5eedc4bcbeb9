"""Which instructions this CPU has, checked before a library is loaded that would crash on a missing one. Milliseconds;
no torch."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# winnt.h: PF_AVX2_INSTRUCTIONS_AVAILABLE. Windows has no number for FMA and F16C; every x86 processor with AVX2 that
# Windows 10 runs on has them and BMI2 (Intel since Haswell, AMD since Excavator).
AVX2_ON_WINDOWS = 40


def missing(wanted: Sequence[str]) -> tuple[str, ...]:
    """Of instructions of x86 by the names that Linux has for them ("avx2", "fma"). None are missing where there is no
    x86, or where the system does not tell."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    if platform.system() == "Windows":
        import ctypes

        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]  # Windows
        return () if kernel.IsProcessorFeaturePresent(AVX2_ON_WINDOWS) else tuple(wanted)
    flags = _flags()
    return tuple(name for name in wanted if name not in flags) if flags else ()


def _flags() -> set[str]:
    """Of the first core; none where the file is not there or names none."""
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as lines:
            return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()
