"""The instructions of this CPU: checked before loading a library that would crash on a missing one, and for the
memory of a plan. Milliseconds; no torch."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# winnt.h: PF_AVX2_INSTRUCTIONS_AVAILABLE. Windows has no number for FMA and F16C; every x86 processor with AVX2 that
# Windows 10 runs on has them and BMI2 (Intel since Haswell, AMD since Excavator).
AVX2_ON_WINDOWS = 40


def missing_instructions(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of the x86 instructions that this CPU lacks, by Linux's names ("avx2", "fma"). Windows reports AVX2
    alone: all names without it, else none.

    Empty on other CPUs, or if the system does not report them.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return ()
    if platform.system() == "Windows":
        import ctypes

        kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]  # Windows
        return () if kernel.IsProcessorFeaturePresent(AVX2_ON_WINDOWS) else tuple(names)
    flags = _flags()
    return tuple(name for name in names if name not in flags) if flags else ()


def has_bfloat16() -> bool:
    """Return whether this CPU multiplies in bfloat16 (core/engine/device asks torch); False if the system does not
    report it, as on Windows."""
    return not _flags().isdisjoint(("avx512_bf16", "amx_tile"))


def _flags() -> set[str]:
    """Return the flags of the first core; empty if the file is missing or has none."""
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as lines:
            return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()
